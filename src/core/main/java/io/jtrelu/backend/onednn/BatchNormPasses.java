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
 * {@code JtreluBatchNorm} of {@code native/cpu/cpu_kernels.h}: passes over activations [rows, c] of
 * one type, with F32 constants for each channel. Operands are addresses.
 */
final class BatchNormPasses {
  private static final Linker LINKER = Linker.nativeLinker();
  private static final MethodHandle MOMENTS =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle NORMALIZE =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_INT,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_LONG));
  private static final MethodHandle GRADIENT_SUMS =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle GRADIENT =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG,
              JAVA_INT, JAVA_LONG));

  private final MemorySegment moments;
  private final MemorySegment normalize;
  private final MemorySegment gradientSums;
  private final MemorySegment gradient;

  /** Four functions of the table; they cannot be called after the library's close. */
  BatchNormPasses(MemorySegment table, int first, Arena library) {
    this.moments = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
    this.normalize = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
    this.gradientSums = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
    this.gradient = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
  }

  /** Means, and sums of squared deviations from them. */
  void moments(long rows, int c, long x, long mean, long squares) {
    try {
      MOMENTS.invokeExact(moments, rows, c, x, mean, squares);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** dst = phi((x - mean) * factor + summand). */
  void normalize(
      long rows, int c, long x, long mean, long factor, long summand, Rectifier phi, long dst) {
    try {
      NORMALIZE.invokeExact(
          normalize, rows, c, x, mean, factor, summand, phi.slope(), phi.scale(), dst);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** Sums of diff_dst, and of diff_dst * (x - mean). */
  void gradientSums(long rows, int c, long diffDst, long x, long mean, long sum, long product) {
    try {
      GRADIENT_SUMS.invokeExact(gradientSums, rows, c, diffDst, x, mean, sum, product);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** diff_src = [diff_src +] factor * diff_dst + (summand + slope * (x - mean)). */
  void gradient(
      long rows,
      int c,
      long diffDst,
      long x,
      long mean,
      long factor,
      long summand,
      long slope,
      Write write,
      long diffSrc) {
    try {
      GRADIENT.invokeExact(
          gradient,
          rows,
          c,
          diffDst,
          x,
          mean,
          factor,
          summand,
          slope,
          write == Write.ACCUMULATE ? 1 : 0,
          diffSrc);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }
}
