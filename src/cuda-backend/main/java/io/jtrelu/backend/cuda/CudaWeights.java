package io.jtrelu.backend.cuda;

import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Packed weights in device memory: one or two forms in one block. */
final class CudaWeights implements PackedWeights {
  private final Object owner;
  private final CudaMemory memory;
  private final long backwardOffset;
  private volatile @Nullable Tensor source; // what was packed last

  /**
   * @param owner kind of kernels that can read it: a value that equals only its like
   * @param backwardOffset where the form for dgrad begins, in bytes
   */
  CudaWeights(Object owner, CudaMemory memory, long backwardOffset) {
    this.owner = owner;
    this.memory = memory;
    this.backwardOffset = backwardOffset;
  }

  /** Packed weights as given to an operation, which stay open until it ends. */
  static CudaWeights of(CudaStream stream, PackedWeights packed, Object owner) {
    if (packed instanceof CudaWeights weights && weights.owner.equals(owner)) {
      stream.hold(weights.memory);
      return weights;
    }
    throw new OperandException(
        "conv2d: packed weights must come from newPackedWeights of an operation with the same"
            + " weights and type on this backend");
  }

  /** Keeps it open until the operation under way ends. */
  void hold(CudaStream stream) {
    stream.hold(memory);
  }

  /** Where the form for fprop lies, to be written. */
  long forwardToPack() {
    return memory.address();
  }

  /** Where the form for dgrad lies, to be written. */
  long backwardToPack() {
    return memory.address() + backwardOffset;
  }

  long forward() {
    source();
    return forwardToPack();
  }

  long backward() {
    source();
    return backwardToPack();
  }

  /** Remembers the tensor that was packed, for kernels that read it as it is. */
  void packed(Tensor weights) {
    source = weights;
  }

  /** The tensor that was packed last, which stays open until the operation under way ends. */
  Tensor alias(CudaStream stream) {
    Tensor alias = source();
    stream.hold(alias.memory());
    return alias;
  }

  private Tensor source() {
    Tensor last = source;
    if (last == null) {
      throw new IllegalStateException("conv2d: these packed weights were never packed");
    }
    return last;
  }

  @Override
  public void close() {
    memory.close();
  }
}
