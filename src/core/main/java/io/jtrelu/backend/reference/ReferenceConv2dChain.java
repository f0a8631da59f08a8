package io.jtrelu.backend.reference;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dChain;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** The two convolutions, with a tensor between them for as long as they run. */
final class ReferenceConv2dChain extends Conv2dChain {
  ReferenceConv2dChain(Conv2d first, Conv2d second) {
    super(Device.CPU, first, second);
  }

  private Tensor between() {
    return Tensor.allocate(first().descriptor().dst(), first().type(), Layout.NHWC);
  }

  @Override
  protected void runForward(
      Stream stream,
      Tensor src,
      Weights ofFirst,
      Weights ofSecond,
      Tensor dst,
      @Nullable Tensor signs) {
    try (Tensor mid = between()) {
      first().forward(stream, src, ofFirst.packed(), ofFirst.bias(), mid);
      if (signs == null) {
        second().forward(stream, mid, ofSecond.packed(), ofSecond.bias(), dst);
      } else {
        second().forwardWithSigns(stream, mid, ofSecond.packed(), ofSecond.bias(), dst, signs);
      }
    }
  }

  @Override
  protected void runBackward(
      Stream stream,
      Sources sources,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights) {
    Tensor src = sources.src();
    Tensor diffDst = sources.diffDst();
    try (Tensor mid = between();
        Tensor diffMid = between()) {
      first().forward(stream, src, ofFirst.packed(), ofFirst.bias(), mid);
      second().backwardData(stream, diffDst, ofSecond, mid, diffMid, Write.OVERWRITE);
      second()
          .backwardWeights(
              stream, mid, diffDst, diffSecond.weights(), diffSecond.bias(), writeWeights);
      first()
          .backwardWeights(
              stream, src, diffMid, diffFirst.weights(), diffFirst.bias(), writeWeights);
      if (sources.signs() == null) {
        first().backwardData(stream, diffMid, ofFirst.packed(), src, diffSrc, write);
      } else {
        first()
            .backwardDataBySigns(
                stream, diffMid, ofFirst.packed(), sources.signs(), diffSrc, write);
      }
    }
  }
}
