package io.jtrelu.backend.reference;

import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** Image by image. */
final class ReferenceGlobalMeanPool extends GlobalMeanPool {

  ReferenceGlobalMeanPool(Shape src, DataType type, Rectifier srcActivation) {
    super(Device.CPU, src, type, srcActivation);
  }

  @Override
  protected void runForward(Stream stream, Tensor source, Tensor destination) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(source);
    double[] y = Elements.zeros(destination);
    int locations = src().dim(1) * src().dim(2);
    for (int i = 0; i < x.length; i++) {
      y[destinationOf(i)] += x[i];
    }
    for (int i = 0; i < y.length; i++) {
      y[i] /= locations;
    }
    Elements.store(y, destination);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor source, Tensor diffSrc, Write write) {
    ReferenceStream.require(stream);
    float[] dy = Elements.read(diffDst);
    double[] dx = Elements.zeros(diffSrc);
    int locations = src().dim(1) * src().dim(2);
    for (int i = 0; i < dx.length; i++) {
      dx[i] = (double) dy[destinationOf(i)] / locations;
    }
    Elements.storeGradient(dx, srcActivation(), source, diffSrc, write);
  }

  /** Index in [n, 1, 1, c] of the mean that an element of [n, h, w, c] is part of. */
  private int destinationOf(int element) {
    int channels = src().dim(3);
    int image = element / (src().dim(1) * src().dim(2) * channels);
    return image * channels + element % channels;
  }
}
