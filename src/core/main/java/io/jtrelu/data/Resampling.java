package io.jtrelu.data;

import java.util.Arrays;

/**
 * Changes the size of an image: each output pixel is the mean of the input over the area that it
 * covers (box filter), where it covers more than a pixel, else linear between neighbours. Written
 * out because the result must be the same on every platform.
 */
final class Resampling {
  private Resampling() {}

  /**
   * Scales src until it covers the size, and cuts around the centre. src is [h, w, c], the result
   * [height, width, c]; the same array where nothing is to be done.
   */
  static byte[] cover(byte[] src, int h, int w, int channels, int height, int width) {
    if (h == height && w == width) {
      return src;
    }
    // Pixels of src per pixel of dst, equal on both axes; the window of src that is kept.
    double step = Math.min((double) h / height, (double) w / width);
    Taps rows = new Taps(h, height, step);
    Taps columns = new Taps(w, width, step);
    float[] wide = new float[w * channels]; // one output row before its columns are resampled
    byte[] dst = new byte[Math.multiplyExact(Math.multiplyExact(height, width), channels)];
    for (int y = 0; y < height; y++) {
      Arrays.fill(wide, 0);
      for (int t = 0; t < rows.count; t++) {
        float weight = rows.weight[y * rows.count + t];
        if (weight != 0) {
          int from = rows.index(y, t) * w * channels;
          for (int i = 0; i < wide.length; i++) {
            wide[i] += weight * (src[from + i] & 0xff);
          }
        }
      }
      for (int x = 0; x < width; x++) {
        for (int c = 0; c < channels; c++) {
          float sum = 0;
          for (int t = 0; t < columns.count; t++) {
            sum += columns.weight[x * columns.count + t] * wide[columns.index(x, t) * channels + c];
          }
          dst[(y * width + x) * channels + c] = (byte) Math.clamp(Math.round(sum), 0, 255);
        }
      }
    }
    return dst;
  }

  /** Which input pixels make an output pixel, along one axis, and their weights (sum 1). */
  private static final class Taps {
    private final int extent;
    private final int count;
    private final int[] first;
    private final float[] weight;

    Taps(int extent, int outputs, double step) {
      this.extent = extent;
      double radius = Math.max(step, 1) / 2;
      boolean box = step > 1;
      this.count = (int) Math.ceil(2 * Math.max(step, 1)) + 1;
      this.first = new int[outputs];
      this.weight = new float[outputs * count];
      double start = (extent - outputs * step) / 2;
      for (int i = 0; i < outputs; i++) {
        double centre = start + (i + 0.5) * step; // pixel j spans j to j+1
        first[i] = (int) Math.floor(box ? centre - radius : centre - 0.5);
        double sum = 0;
        double[] raw = new double[count];
        for (int t = 0; t < count; t++) {
          int j = first[i] + t;
          raw[t] =
              box
                  ? Math.max(0, Math.min(j + 1, centre + radius) - Math.max(j, centre - radius))
                  : Math.max(0, 1 - Math.abs(j + 0.5 - centre));
          sum += raw[t];
        }
        for (int t = 0; t < count; t++) {
          weight[i * count + t] = (float) (raw[t] / sum);
        }
      }
    }

    /** Beyond an edge its own pixel repeats. */
    int index(int output, int tap) {
      return Math.clamp(first[output] + tap, 0, extent - 1);
    }
  }
}
