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
  private @Nullable Tensor alias;

  /**
   * @param owner kind of kernels that can read it: a value that equals only its like
   * @param backwardOffset where the form for dgrad begins, in bytes
   */
  CudaWeights(Object owner, CudaMemory memory, long backwardOffset) {
    this.owner = owner;
    this.memory = memory;
    this.backwardOffset = backwardOffset;
  }

  /** Packed weights as given to an operation. */
  static CudaWeights of(PackedWeights packed, Object owner) {
    if (packed instanceof CudaWeights weights && weights.owner.equals(owner)) {
      return weights;
    }
    throw new OperandException(
        "conv2d: packed weights must come from newPackedWeights of an operation with the same"
            + " weights and type on this backend");
  }

  long forward() {
    return memory.address();
  }

  long backward() {
    return memory.address() + backwardOffset;
  }

  /** Remembers the tensor that was packed, for kernels that read it as it is. */
  void alias(Tensor weights) {
    alias = weights;
  }

  /** The tensor that was packed last. */
  Tensor alias() {
    if (alias == null) {
      throw new IllegalStateException("conv2d: these packed weights were never packed");
    }
    return alias;
  }

  @Override
  public void close() {
    memory.close();
  }
}
