package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/**
 * {@code JtreluMaxPool} of {@code native/cpu/cpu_kernels.h}: max-pooling of one type of
 * activations. Operands are addresses.
 */
final class MaxPoolPasses {
  private static final Linker LINKER = Linker.nativeLinker();
  private static final MethodHandle FORWARD =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle BACKWARD =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_INT,
              JAVA_INT,
              JAVA_LONG));

  private final MemorySegment forward;
  private final MemorySegment backward;

  /** Two functions of the table; they cannot be called after the library's close. */
  MaxPoolPasses(MemorySegment table, int first, Arena library) {
    this.forward = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
    this.backward = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
  }

  /** Maxima and their places, where asked for with a mark for those above 0. */
  void forward(long sizes, long src, boolean marked, long dst, long argmax) {
    try {
      FORWARD.invokeExact(forward, sizes, src, marked ? 1 : 0, dst, argmax);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** diff_src = ([diff_src +] what each element won) * psi'(src). */
  void backward(
      long sizes,
      long diffDst,
      long argmax,
      long src,
      Rectifier psi,
      boolean marked,
      Write write,
      long diffSrc) {
    try {
      BACKWARD.invokeExact(
          backward,
          sizes,
          diffDst,
          argmax,
          src,
          psi.slope(),
          psi.scale(),
          marked ? 1 : 0,
          write == Write.ACCUMULATE ? 1 : 0,
          diffSrc);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }
}
