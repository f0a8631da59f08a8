package io.jtrelu.backend;

import io.jtrelu.tensor.Tensor;

/** The convolution, then the sum in place, for backends that have nothing better. */
final class ComposedConv2dSum extends Conv2dSum {
  private final WeightedSum sum;

  ComposedConv2dSum(
      Backend backend,
      Conv2d convolution,
      float shortcutWeight,
      float branchWeight,
      Rectifier activation) {
    super(backend.device(), convolution, shortcutWeight, branchWeight, activation);
    long elements = convolution.descriptor().dst().elements();
    sum =
        backend.weightedSum(elements, convolution.type(), shortcutWeight, branchWeight, activation);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor shortcut, Tensor dst) {
    convolution().forward(stream, src, weights, bias, dst);
    sum.forward(stream, shortcut, dst, dst);
  }

  @Override
  protected void release() {
    sum.close();
  }
}
