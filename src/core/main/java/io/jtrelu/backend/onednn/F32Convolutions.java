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
 * {@code JtreluF32Convolutions} of {@code native/cpu/cpu_kernels.h}: F32 convolutions of one
 * method. Operands are addresses.
 */
final class F32Convolutions {
  /** Taps along an axis at most. */
  static final int MOST_TAPS = 11;

  private static final Linker LINKER = Linker.nativeLinker();
  private static final MethodHandle PACKED_BYTES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_INT));
  private static final MethodHandle WORKSPACE_BYTES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_LONG, JAVA_LONG));
  private static final MethodHandle PACK =
      LINKER.downcallHandle(FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle FORWARD =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_LONG));
  private static final MethodHandle BACKWARD_DATA =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_INT,
              JAVA_LONG,
              JAVA_LONG));
  private static final MethodHandle GRADIENTS =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG));

  private final String name;
  private final int together;
  private final MemorySegment packedBytes;
  private final MemorySegment workspaceBytes;
  private final MemorySegment pack;
  private final MemorySegment forward;
  private final MemorySegment backwardData;
  private final MemorySegment gradients;

  /**
   * Six functions of the table; they cannot be called after the library's close.
   *
   * @param together rows of results that are computed together
   */
  F32Convolutions(String name, int together, MemorySegment table, int first, Arena library) {
    this.name = name;
    this.together = together;
    this.packedBytes = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
    this.workspaceBytes = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
    this.pack = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
    this.forward = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
    this.backwardData = table.getAtIndex(ADDRESS, first + 4).reinterpret(library, null);
    this.gradients = table.getAtIndex(ADDRESS, first + 5).reinterpret(library, null);
  }

  /** Method and instruction set, for people. */
  @Override
  public String toString() {
    return name;
  }

  /** Rows of results that are computed together, from the first on. */
  int together() {
    return together;
  }

  /** Bytes of the packed form of the forward pass, or of that of backward data. */
  long packedBytes(long sizes, boolean backward) {
    try {
      return (long) PACKED_BYTES.invokeExact(packedBytes, sizes, backward ? 1 : 0);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** Bytes of working memory for any pass. */
  long workspaceBytes(long sizes) {
    try {
      return (long) WORKSPACE_BYTES.invokeExact(workspaceBytes, sizes);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** Packs KRSC weights for both directions. */
  void pack(long sizes, long weights, long forward, long backward) {
    try {
      PACK.invokeExact(pack, sizes, weights, forward, backward);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** dst = phi(convolution + bias). */
  void forward(
      long sizes, long src, long packed, long bias, Rectifier phi, long dst, long workspace) {
    try {
      FORWARD.invokeExact(
          forward, sizes, src, packed, bias, phi.slope(), phi.scale(), dst, workspace);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /**
   * diff_src = ([diff_src +] transposed convolution) * psi'(gate).
   *
   * @param gate source of the derivative; 0 for none
   */
  void backwardData(
      long sizes,
      long diffDst,
      long packed,
      long gate,
      Rectifier psi,
      Write write,
      long diffSrc,
      long workspace) {
    try {
      BACKWARD_DATA.invokeExact(
          backwardData,
          sizes,
          diffDst,
          packed,
          gate,
          psi.slope(),
          psi.scale(),
          write == Write.ACCUMULATE ? 1 : 0,
          diffSrc,
          workspace);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }

  /** Gradients of weights and bias. */
  void gradients(
      long sizes,
      long src,
      long diffDst,
      long diffWeights,
      long diffBias,
      Write write,
      long workspace) {
    try {
      GRADIENTS.invokeExact(
          gradients,
          sizes,
          src,
          diffDst,
          diffWeights,
          diffBias,
          write == Write.ACCUMULATE ? 1 : 0,
          workspace);
    } catch (Throwable failure) {
      throw CpuKernels.unchecked(failure);
    }
  }
}
