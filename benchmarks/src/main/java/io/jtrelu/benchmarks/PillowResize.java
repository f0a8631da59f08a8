package io.jtrelu.benchmarks;

/**
 * A window of a picture brought to a size as Pillow and torchvision do it: bilinear with
 * antialiasing, columns first, then rows, in fixed point of 22 bits.
 */
final class PillowResize {
  private static final int BITS = 22;

  private PillowResize() {}

  /** src is [h, w, 3]. */
  static byte[] resize(
      byte[] src, int w, int top, int left, int rows, int columns, int height, int width) {
    int[][] across = coefficients(columns, width);
    int[][] down = coefficients(rows, height);
    byte[] narrow = new byte[rows * width * 3];
    for (int y = 0; y < rows; y++) {
      int row = ((top + y) * w + left) * 3;
      for (int x = 0; x < width; x++) {
        int[] taps = across[x];
        int red = 1 << BITS - 1;
        int green = red;
        int blue = red;
        int at = row + taps[0] * 3;
        for (int t = 1; t < taps.length; t++, at += 3) {
          red += taps[t] * (src[at] & 0xff);
          green += taps[t] * (src[at + 1] & 0xff);
          blue += taps[t] * (src[at + 2] & 0xff);
        }
        int to = (y * width + x) * 3;
        narrow[to] = clip(red);
        narrow[to + 1] = clip(green);
        narrow[to + 2] = clip(blue);
      }
    }
    byte[] dst = new byte[height * width * 3];
    int[] sums = new int[width * 3];
    for (int y = 0; y < height; y++) {
      int[] taps = down[y];
      java.util.Arrays.fill(sums, 1 << BITS - 1);
      for (int t = 1; t < taps.length; t++) {
        int from = (taps[0] + t - 1) * sums.length;
        int weight = taps[t];
        for (int i = 0; i < sums.length; i++) {
          sums[i] += weight * (narrow[from + i] & 0xff);
        }
      }
      for (int i = 0; i < sums.length; i++) {
        dst[y * sums.length + i] = clip(sums[i]);
      }
    }
    return dst;
  }

  private static byte clip(int sum) {
    return (byte) Math.clamp(sum >> BITS, 0, 255);
  }

  /** For each output the first input, and the weights from there on. */
  private static int[][] coefficients(int in, int out) {
    double scale = (double) in / out;
    double support = Math.max(scale, 1);
    int[][] all = new int[out][];
    for (int i = 0; i < out; i++) {
      double centre = (i + 0.5) * scale;
      int from = Math.max(0, (int) (centre - support + 0.5));
      int to = Math.min(in, (int) (centre + support + 0.5));
      double[] weights = new double[to - from];
      double sum = 0;
      for (int t = 0; t < weights.length; t++) {
        weights[t] = Math.max(0, 1 - Math.abs((from + t - centre + 0.5) / support));
        sum += weights[t];
      }
      all[i] = new int[weights.length + 1];
      all[i][0] = from;
      for (int t = 0; t < weights.length; t++) {
        all[i][t + 1] = (int) Math.round(weights[t] / sum * (1 << BITS));
      }
    }
    return all;
  }
}
