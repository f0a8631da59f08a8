package io.jtrelu.backend.cuda;

import io.jtrelu.backend.PackedWeights;
import io.jtrelu.tensor.Tensor;

/**
 * Our own kernels for a convolution, which say how weights are packed. The batch may be empty for
 * both methods.
 */
interface ConvolutionKernels extends ConvolutionPasses {
  /** Bytes of {@link #newPackedWeights}. */
  default long packedBytes() {
    return 0;
  }

  /** Weights in the form that {@link #fprop} and {@link #dgrad} read. */
  PackedWeights newPackedWeights();

  /** Fills what {@link #newPackedWeights} made. */
  void pack(CudaStream stream, Tensor weights, PackedWeights packed);
}
