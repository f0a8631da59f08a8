package io.jtrelu.backend.reference;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Element by element. */
final class ReferencePointwise extends Pointwise {

  ReferencePointwise(long elements, DataType type, TransformedActivation function) {
    super(Device.CPU, elements, type, function);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(src);
    double[] y = Elements.zeros(dst);
    for (int i = 0; i < y.length; i++) {
      y[i] = function().value(x[i]);
    }
    Elements.store(y, dst);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor saved, Tensor diffDst, Tensor diffSrc, Write write) {
    ReferenceStream.require(stream);
    float[] at = Elements.read(saved);
    float[] dy = Elements.read(diffDst);
    double[] dx = Elements.zeros(diffSrc);
    for (int i = 0; i < dx.length; i++) {
      double slope =
          savesOutput() ? function().derivativeFromValue(at[i]) : function().derivative(at[i]);
      dx[i] = dy[i] * slope;
    }
    Elements.store(dx, diffSrc, write);
  }
}
