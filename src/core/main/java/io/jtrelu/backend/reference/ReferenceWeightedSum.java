package io.jtrelu.backend.reference;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Element by element. */
final class ReferenceWeightedSum extends WeightedSum {

  ReferenceWeightedSum(
      long elements, DataType type, float weightA, float weightB, Rectifier activation) {
    super(Device.CPU, elements, type, weightA, weightB, activation);
  }

  @Override
  protected void runForward(Stream stream, Tensor a, Tensor b, Tensor dst) {
    ReferenceStream.require(stream);
    float[] first = Elements.read(a);
    float[] second = Elements.read(b);
    double[] y = Elements.zeros(dst);
    for (int i = 0; i < y.length; i++) {
      double sum = (double) weightA() * first[i] + (double) weightB() * second[i];
      y[i] = Elements.apply(activation(), sum);
    }
    Elements.store(y, dst);
  }

  @Override
  protected void runBackward(
      Stream stream,
      float weight,
      Tensor diffDst,
      Rectifier srcActivation,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    ReferenceStream.require(stream);
    float[] dy = Elements.read(diffDst);
    double[] dx = Elements.zeros(diffSrc);
    for (int i = 0; i < dx.length; i++) {
      dx[i] = (double) weight * dy[i];
    }
    Elements.storeGradient(dx, srcActivation, src, diffSrc, write);
  }
}
