package io.jtrelu.backend.reference;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Element by element. */
final class ReferenceRectify extends Rectify {

  ReferenceRectify(long elements, DataType type, Rectifier rectifier) {
    super(Device.CPU, elements, type, rectifier);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(src);
    double[] y = Elements.zeros(dst);
    for (int i = 0; i < y.length; i++) {
      y[i] = Elements.apply(rectifier(), x[i]);
    }
    Elements.store(y, dst);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor dst, Tensor diffDst, Tensor diffSrc, Write write) {
    ReferenceStream.require(stream);
    float[] y = Elements.read(dst);
    float[] dy = Elements.read(diffDst);
    double[] dx = Elements.zeros(diffSrc);
    for (int i = 0; i < dx.length; i++) {
      dx[i] = dy[i] * Elements.derivative(rectifier(), y[i]);
    }
    Elements.store(dx, diffSrc, write);
  }
}
