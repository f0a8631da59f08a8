package io.jtrelu.backend.reference;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dPool;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;

/**
 * The convolution and the pooling, with a tensor between them for as long as they run. Places are
 * those of {@link MaxPool2d}, which tell all that the backward pass must know of what lies between.
 */
final class ReferenceConv2dPool extends Conv2dPool {
  ReferenceConv2dPool(Conv2d convolution, MaxPool2d pooling) {
    super(Device.CPU, convolution, pooling);
  }

  private Tensor between() {
    return Tensor.allocate(convolution().descriptor().dst(), convolution().type(), Layout.NHWC);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor places) {
    try (Tensor between = between()) {
      convolution().forward(stream, src, weights, bias, between);
      pooling().forward(stream, between, dst, places);
    }
  }

  @Override
  protected void runBackwardWeights(
      Stream stream,
      Tensor src,
      Tensor diffDst,
      Tensor places,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    try (Tensor between = between();
        Tensor diffBetween = between()) {
      pooling().backward(stream, diffDst, places, between, diffBetween, Write.OVERWRITE);
      convolution().backwardWeights(stream, src, diffBetween, diffWeights, diffBias, write);
    }
  }
}
