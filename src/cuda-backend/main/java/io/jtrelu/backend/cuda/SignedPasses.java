package io.jtrelu.backend.cuda;

import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Tensor;

/**
 * Passes by our own kernels, which write and read signs of activations (cuda/include/conv2d.cuh).
 */
interface SignedPasses extends ConvolutionPasses {
  /**
   * As {@link ConvolutionPasses#fprop}.
   *
   * @param signs address that receives the signs of dst, or 0
   */
  void fprop(
      CudaStream stream,
      Tensor src,
      PackedWeights packed,
      Tensor bias,
      Epilogue epilogue,
      long shortcut,
      Tensor dst,
      long signs);

  /**
   * As {@link ConvolutionPasses#dgrad}.
   *
   * @param gate address of src, or 0
   * @param signs address of its signs, or 0
   */
  void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      long gate,
      long signs,
      Tensor diffSrc,
      Write write);

  @Override
  default void fprop(
      CudaStream stream,
      Tensor src,
      PackedWeights packed,
      Tensor bias,
      Epilogue epilogue,
      long shortcut,
      Tensor dst) {
    fprop(stream, src, packed, bias, epilogue, shortcut, dst, 0);
  }
}
