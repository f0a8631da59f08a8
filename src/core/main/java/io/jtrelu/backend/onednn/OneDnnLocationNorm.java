package io.jtrelu.backend.onednn;

import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** A pass over the locations, after one over the image where its mean square is asked for. */
final class OneDnnLocationNorm extends LocationNorm {

  /** x = factor * src + offset, per channel; in binary64, as the two terms may nearly cancel. */
  private final double[] factor;

  private final double[] offset;

  /** x of each byte, where src is U8. */
  private final float[] standardized;

  OneDnnLocationNorm(Shape src, DataType srcType, DataType type, Settings settings) {
    super(Device.CPU, src, srcType, type, settings);
    int channels = settings.mean().size();
    factor = new double[channels];
    offset = new double[channels];
    for (int k = 0; k < channels; k++) {
      factor[k] = 1 / settings.std().get(k);
      offset[k] = -settings.mean().get(k) / settings.std().get(k);
    }
    standardized = srcType == DataType.U8 ? standardizedBytes(settings) : new float[0];
  }

  @Override
  protected void runForward(
      Stream stream, Tensor source, @Nullable Tensor windows, Tensor destination) {
    OneDnnStream lane = OneDnnStream.of(stream);
    int channels = factor.length;
    long locations = (long) src().dim(1) * src().dim(2);
    float[] v = lane.array(0, channels);
    float[] y = lane.array(1, channels + 1);
    long dstStep = (channels + 1L) * type().bytes();
    for (int n = 0; n < src().dim(0); n++) {
      Window window = new Window(source, windows, n);
      long to = destination.address() + n * locations * dstStep;
      double appended = settings().scale();
      if (settings().homogeneous() == Homogeneous.IMAGE_RMS) {
        double squares = 0;
        for (long p = 0; p < locations; p++) {
          squares = standardize(window.address(p), v, y, squares);
        }
        appended *= squares == 0 ? 1 : Math.sqrt(squares / (locations * channels));
      }
      for (long p = 0; p < locations; p++) {
        double squares = standardize(window.address(p), v, y, appended * appended);
        double scale = 1 / Math.sqrt(squares / (channels + 1));
        for (int k = 0; k < channels; k++) {
          y[k] = (float) (y[k] * scale);
        }
        y[channels] = (float) (appended * scale);
        Elements.store(type(), y, to + p * dstStep, channels + 1);
      }
    }
  }

  /** Where an image's locations lie. */
  private final class Window {
    private final long image;
    private final int dy;
    private final int dx;
    private final boolean flip;

    Window(Tensor source, @Nullable Tensor windows, int n) {
      image = source.address() + n * (source.bytes() / src().dim(0));
      dy = windows == null ? 0 : (int) windows.get(3L * n);
      dx = windows == null ? 0 : (int) windows.get(3L * n + 1);
      flip = windows != null && windows.get(3L * n + 2) != 0;
    }

    /** The address of what a location shows, or 0 outside the image. */
    long address(long location) {
      int h = src().dim(1);
      int w = src().dim(2);
      long y = location / w + dy;
      long x = location % w;
      x = (flip ? w - 1 - x : x) + dx;
      boolean inside = y >= 0 && y < h && x >= 0 && x < w;
      return inside ? image + (y * w + x) * factor.length * srcType().bytes() : 0;
    }
  }

  /**
   * Writes a location's standardised values and returns a sum with their squares added.
   *
   * @param address of its values, or 0 for a black one
   */
  private double standardize(long address, float[] v, float[] x, double sum) {
    int channels = factor.length;
    double squares = sum;
    if (srcType() == DataType.U8) {
      for (int k = 0; k < channels; k++) {
        x[k] = standardized[k * 256 + (address == 0 ? 0 : Elements.getByte(address + k))];
        squares += (double) x[k] * x[k];
      }
      return squares;
    }
    if (address == 0) {
      Arrays.fill(v, 0, channels, 0);
    } else {
      Elements.load(DataType.F32, address, v, channels);
    }
    for (int k = 0; k < channels; k++) {
      double value = v[k] * factor[k] + offset[k];
      squares += value * value;
      x[k] = (float) value;
    }
    return squares;
  }
}
