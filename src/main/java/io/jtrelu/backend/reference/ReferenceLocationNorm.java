package io.jtrelu.backend.reference;

import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** Image by image, location by location. */
final class ReferenceLocationNorm extends LocationNorm {
  private final Lifetime lifetime = new Lifetime("location norm");

  ReferenceLocationNorm(Shape src, DataType srcType, DataType type, Settings settings) {
    super(Device.CPU, src, srcType, type, settings);
  }

  @Override
  protected void runForward(Stream stream, Tensor source, Tensor destination) {
    lifetime.requireOpen(stream);
    float[] v = Elements.read(source);
    double[] y = Elements.zeros(destination);
    int channels = src().dim(3);
    int locations = src().dim(1) * src().dim(2);
    double white = srcType() == DataType.U8 ? 255 : 1;
    for (int n = 0; n < src().dim(0); n++) {
      double imageSquares = 0;
      for (int p = n * locations; p < (n + 1) * locations; p++) {
        for (int k = 0; k < channels; k++) {
          double x =
              (v[p * channels + k] / white - settings().mean().get(k)) / settings().std().get(k);
          y[p * (channels + 1) + k] = x;
          imageSquares += x * x;
        }
      }
      double appended = settings().scale();
      if (settings().homogeneous() == Homogeneous.IMAGE_RMS && imageSquares != 0) {
        appended *= Math.sqrt(imageSquares / ((double) locations * channels));
      }
      for (int p = n * locations; p < (n + 1) * locations; p++) {
        int begin = p * (channels + 1);
        y[begin + channels] = appended;
        double squares = 0;
        for (int k = 0; k <= channels; k++) {
          squares += y[begin + k] * y[begin + k];
        }
        double rms = Math.sqrt(squares / (channels + 1));
        for (int k = 0; k <= channels; k++) {
          y[begin + k] /= rms;
        }
      }
    }
    Elements.store(y, destination);
  }

  @Override
  public void close() {
    lifetime.close();
  }
}
