package io.jtrelu.backend.cuda;

import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Tensor;

/**
 * One way to do the passes of a convolution: the seam where our kernels and NVIDIA's libraries meet
 * {@link CudaConv2d}. Operands are checked, the stream is open, the batch is not empty.
 */
interface ConvolutionPasses extends AutoCloseable {
  /**
   * What happens to a convolution's result before it is stored.
   *
   * @param activation phi
   * @param branchWeight factor of the result, where there is a shortcut
   * @param shortcutWeight factor of the shortcut
   */
  record Epilogue(Rectifier activation, float branchWeight, float shortcutWeight) {}

  /**
   * dst = phi(branchWeight * (conv(src, weights) + bias) + shortcutWeight * shortcut).
   *
   * @param shortcut address of a tensor like dst, or 0 for dst = phi(conv(src, weights) + bias)
   */
  void fprop(
      CudaStream stream,
      Tensor src,
      PackedWeights packed,
      Tensor bias,
      Epilogue epilogue,
      long shortcut,
      Tensor dst);

  /** diff_src = ([diff_src +] conv^T(diff_dst, weights)) * psi'(src). */
  void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write);

  /** Gradients of weights and bias. */
  void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write);

  /** Bytes of the stream's workspace that the passes take at most. */
  default long scratchBytes() {
    return 0;
  }

  /** Gives back what it holds beside kernels. */
  @Override
  default void close() {}
}
