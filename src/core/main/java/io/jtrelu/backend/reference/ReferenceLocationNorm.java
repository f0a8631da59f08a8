package io.jtrelu.backend.reference;

import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Image by image, location by location. */
final class ReferenceLocationNorm extends LocationNorm {

  ReferenceLocationNorm(Shape src, DataType srcType, DataType type, Settings settings) {
    super(Device.CPU, src, srcType, type, settings);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor source, @Nullable Tensor windows, Tensor destination) {
    ReferenceStream.require(stream);
    float[] whole = Elements.read(source);
    float[] v = windows == null ? whole : cutOut(whole, windows);
    double[] y = Elements.zeros(destination);
    int channels = src().dim(3);
    int locations = src().dim(1) * src().dim(2);
    boolean bytes = srcType() == DataType.U8;
    double white = bytes ? 255 : 1;
    for (int n = 0; n < src().dim(0); n++) {
      double imageSquares = 0;
      for (int p = n * locations; p < (n + 1) * locations; p++) {
        for (int k = 0; k < channels; k++) {
          double x =
              (v[p * channels + k] / white - settings().mean().get(k)) / settings().std().get(k);
          x = bytes ? (float) x : x;
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
        double squares = appended * appended;
        for (int k = 0; k < channels; k++) {
          squares += y[begin + k] * y[begin + k];
        }
        double factor = 1 / Math.sqrt(squares / (channels + 1));
        for (int k = 0; k <= channels; k++) {
          y[begin + k] = (float) (y[begin + k] * factor);
        }
      }
    }
    Elements.store(y, destination);
  }

  /** The images that the windows show. */
  private float[] cutOut(float[] v, Tensor windows) {
    int h = src().dim(1);
    int w = src().dim(2);
    int channels = src().dim(3);
    float[] window = windows.toFloatArray();
    float[] shown = new float[v.length];
    for (int n = 0; n < src().dim(0); n++) {
      for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
          long fromY = y + (long) window[3 * n];
          long fromX = (window[3 * n + 2] != 0 ? w - 1 - x : x) + (long) window[3 * n + 1];
          if (fromY >= 0 && fromY < h && fromX >= 0 && fromX < w) {
            int from = ((n * h + (int) fromY) * w + (int) fromX) * channels;
            System.arraycopy(v, from, shown, ((n * h + y) * w + x) * channels, channels);
          }
        }
      }
    }
    return shown;
  }
}
