package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dSum;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.cuda.ConvolutionPasses.Epilogue;
import io.jtrelu.tensor.Tensor;

/** The convolution's forward kernel with the sum in its epilogue. */
final class CudaConv2dSum extends Conv2dSum {
  private final CudaBackend backend;
  private final CudaConv2d own;
  private final Epilogue epilogue;

  CudaConv2dSum(
      CudaBackend backend,
      CudaConv2d convolution,
      float shortcutWeight,
      float branchWeight,
      Rectifier activation) {
    super(backend.device(), convolution, shortcutWeight, branchWeight, activation);
    this.backend = backend;
    own = convolution;
    epilogue = new Epilogue(activation, branchWeight, shortcutWeight);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor shortcut, Tensor dst) {
    own.forward(backend.own(stream), src, weights, bias, epilogue, shortcut.address(), dst);
  }
}
