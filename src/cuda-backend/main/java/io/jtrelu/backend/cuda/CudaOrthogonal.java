package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** orthogonal.cu. */
final class CudaOrthogonal extends Orthogonal {
  private static final int PANEL = 32;

  private final CudaBackend backend;
  private final Kernel reflectors;
  private final Kernel factors;
  private final Kernel apply;

  CudaOrthogonal(CudaBackend backend, int rows, int cols, float gain) {
    super(backend.device(), rows, cols, gain);
    this.backend = backend;
    reflectors = backend.kernels().get("orthogonal_reflectors");
    factors = backend.kernels().get("orthogonal_factors");
    apply = backend.kernels().get("orthogonal_apply");
  }

  @Override
  protected void compute(Stream stream, Tensor dst, long seed, long sequence) {
    CudaStream on = backend.own(stream);
    int m = Math.max(rows(), cols());
    int k = Math.min(rows(), cols());
    int panels = Math.ceilDiv(k, PANEL);
    long reflectorFloats = (long) panels * PANEL * m;
    long factorFloats = (long) panels * PANEL * PANEL;
    // Not the stream's workspace: this is large, and used once at the start of a run.
    try (CudaMemory scratch = backend.scratch((reflectorFloats + factorFloats) * Float.BYTES)) {
      on.set(dst.address(), 0, Float.BYTES, dst.shape().elements());
      arguments(on, dst, scratch.address(), reflectorFloats, m, k, 0, seed, sequence);
      on.launch(reflectors, (long) panels * PANEL);
      on.launch(factors, panels);
      for (int panel = panels - 1; panel >= 0; panel--) {
        arguments(on, dst, scratch.address(), reflectorFloats, m, k, panel, seed, sequence);
        on.launch(apply, Math.ceilDiv(k - panel * PANEL, PANEL));
      }
    }
  }

  /** struct OrthogonalParameters. */
  private void arguments(
      CudaStream on,
      Tensor dst,
      long scratch,
      long reflectorFloats,
      int m,
      int k,
      int panel,
      long seed,
      long sequence) {
    on.arguments()
        .pointer(dst)
        .pointer(scratch)
        .pointer(scratch + reflectorFloats * Float.BYTES)
        .i64(seed)
        .i64(sequence)
        .i64(rows() >= cols() ? cols() : 1)
        .i64(rows() >= cols() ? 1 : cols())
        .i32(m)
        .i32(k)
        .i32(panel)
        .f32(gain());
  }
}
