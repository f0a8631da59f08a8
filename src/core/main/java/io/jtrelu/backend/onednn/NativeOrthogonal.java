package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/**
 * {@code native/cpu/orthogonal_kernels.h}, which holds the method. All blocks of reflections are
 * drawn first, then panels of columns pass through them. Blocks and panels are each independent, so
 * all cores work on them, and what is computed does not depend on how many there are.
 */
final class NativeOrthogonal extends Orthogonal {
  private static final int BLOCK = CpuKernels.Orthogonals.BLOCK;

  /** Multiply-adds below which a second thread takes longer to wake than it saves. */
  private static final long PARALLEL = 1 << 20;

  private final CpuKernels.Orthogonals kernels;

  NativeOrthogonal(CpuKernels.Orthogonals kernels, int rows, int cols, float gain) {
    super(Device.CPU, rows, cols, gain);
    this.kernels = kernels;
  }

  @Override
  protected void compute(Stream stream, Tensor dst, long seed, long sequence) {
    OneDnnStream.of(stream);
    int m = Math.max(rows(), cols());
    int k = Math.min(rows(), cols());
    int blocks = Math.ceilDiv(k, BLOCK);
    boolean alone = (long) m * k * k < PARALLEL;
    boolean transposed = rows() < cols();
    long to = dst.address();
    try (Arena arena = Arena.ofConfined()) {
      long reflections = arena.allocate(kernels.reflectionBytes(m, k), 64).address();
      // The first blocks are the longest, the last panels pass through most blocks: they go first.
      forEach(blocks, alone, i -> kernels.draw(m, k, i, seed, sequence, reflections));
      long bytes = kernels.panelBytes(m, k);
      forEach(
          blocks,
          alone,
          i -> {
            try (Arena own = Arena.ofConfined()) {
              long workspace = own.allocate(bytes, 64).address();
              kernels.panel(m, k, blocks - 1 - i, gain(), transposed, reflections, to, workspace);
            }
          });
    }
  }

  /** In order of the index, as far as threads that take turns keep it. */
  private static void forEach(int count, boolean alone, IntConsumer action) {
    int threads = Math.min(count, ForkJoinPool.getCommonPoolParallelism() + 1);
    if (alone || threads == 1) {
      IntStream.range(0, count).forEach(action);
      return;
    }
    AtomicInteger next = new AtomicInteger();
    IntStream.range(0, threads)
        .parallel()
        .forEach(
            thread -> {
              for (int i = next.getAndIncrement(); i < count; i = next.getAndIncrement()) {
                action.accept(i);
              }
            });
  }
}
