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
    return resample(
        src,
        channels,
        new Taps(h, height, (h - height * step) / 2, step),
        new Taps(w, width, (w - width * step) / 2, step));
  }

  /**
   * Brings a window of src to a size, each axis by itself. src is [h, w, c], the result [height,
   * width, c]; the window begins at (top, left) and has rows x columns pixels, which may be parts
   * of pixels.
   */
  static byte[] window(
      byte[] src,
      int h,
      int w,
      int channels,
      double top,
      double left,
      double rows,
      double columns,
      int height,
      int width) {
    return resample(
        src,
        channels,
        new Taps(h, height, top, rows / height),
        new Taps(w, width, left, columns / width));
  }

  private static byte[] resample(byte[] src, int channels, Taps rows, Taps columns) {
    // One output row before its columns are resampled, of those columns that are needed.
    int from = columns.index(0, 0);
    int to = columns.index(columns.outputs - 1, columns.count - 1) + 1;
    float[] wide = new float[(to - from) * channels];
    byte[] dst =
        new byte[Math.multiplyExact(Math.multiplyExact(rows.outputs, columns.outputs), channels)];
    byte[] signed = new byte[wide.length];
    int[] offset = new int[columns.outputs * columns.count];
    for (int x = 0; x < columns.outputs; x++) {
      for (int t = 0; t < columns.count; t++) {
        offset[x * columns.count + t] = (columns.index(x, t) - from) * channels;
      }
    }
    for (int y = 0; y < rows.outputs; y++) {
      Arrays.fill(wide, 0);
      for (int t = 0; t < rows.count; t++) {
        float weight = rows.weight[y * rows.count + t];
        if (weight != 0) {
          int at = (rows.index(y, t) * columns.extent + from) * channels;
          add(src, at, weight, signed, wide);
        }
      }
      int first = y * columns.outputs * channels;
      if (channels == 3) {
        resampleColours(wide, offset, columns, dst, first);
      } else {
        resampleRow(wide, channels, offset, columns, dst, first);
      }
    }
    return dst;
  }

  /**
   * wide += weight * src, in loops that the compiler makes vectors of: it has none from unsigned.
   */
  private static void add(byte[] src, int from, float weight, byte[] signed, float[] wide) {
    for (int i = 0; i < signed.length; i++) {
      signed[i] = (byte) (src[from + i] ^ 0x80);
    }
    for (int i = 0; i < wide.length; i++) {
      wide[i] += weight * (signed[i] + 128f);
    }
  }

  private static void resampleRow(
      float[] wide, int channels, int[] offset, Taps columns, byte[] dst, int at) {
    for (int x = 0; x < columns.outputs; x++) {
      for (int c = 0; c < channels; c++) {
        float sum = 0;
        for (int t = x * columns.count; t < (x + 1) * columns.count; t++) {
          sum += columns.weight[t] * wide[offset[t] + c];
        }
        dst[at + x * channels + c] = rounded(sum);
      }
    }
  }

  /** As {@link #resampleRow}, of three channels at a time. */
  private static void resampleColours(
      float[] wide, int[] offset, Taps columns, byte[] dst, int at) {
    int to = at;
    for (int x = 0; x < columns.outputs; x++) {
      float red = 0;
      float green = 0;
      float blue = 0;
      for (int t = x * columns.count; t < (x + 1) * columns.count; t++) {
        float weight = columns.weight[t];
        int from = offset[t];
        red += weight * wide[from];
        green += weight * wide[from + 1];
        blue += weight * wide[from + 2];
      }
      dst[to++] = rounded(red);
      dst[to++] = rounded(green);
      dst[to++] = rounded(blue);
    }
  }

  /** To the nearest, halves up; a mean of bytes is 0 or more, and passes 255 by rounding only. */
  private static byte rounded(float mean) {
    int below = (int) mean;
    return (byte) Math.min(255, mean - below >= 0.5f ? below + 1 : below);
  }

  /** Which input pixels make an output pixel, along one axis, and their weights (sum 1). */
  private static final class Taps {
    private final int extent;
    private final int outputs;
    private final int count;
    private final int[] first;
    private final float[] weight;

    Taps(int extent, int outputs, double start, double step) {
      this.extent = extent;
      this.outputs = outputs;
      double radius = Math.max(step, 1) / 2;
      boolean box = step > 1;
      this.count = box ? (int) Math.ceil(step) + 1 : 2;
      this.first = new int[outputs];
      this.weight = new float[outputs * count];
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
