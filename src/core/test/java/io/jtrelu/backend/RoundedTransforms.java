package io.jtrelu.backend;

/**
 * What rounded transforms may add to the error of a 3x3 convolution of stride 1: {@link Conv2d} has
 * the bound.
 */
final class RoundedTransforms {
  /** Both factors of each of 46 products are rounded to 8 bits; and the sums, to far more. */
  private static final double FACTOR = 46 * 0x1p-7 * (1 + 0x1p-8);

  private final Conv2dDescriptor d;

  RoundedTransforms(Conv2dDescriptor descriptor) {
    d = descriptor;
  }

  /** Of dst, before the rectifier. */
  double[] forward(float[] src, float[] weights) {
    float[] largest = largest(src, d.h(), d.w(), d.ic(), d.oh(), d.ow(), d.padTop(), d.padLeft());
    double[][] sums = new double[d.oc()][d.ic()];
    for (int i = 0; i < weights.length; i++) {
      sums[i / (9 * d.ic())][i % d.ic()] += Math.abs(weights[i]);
    }
    return products(largest, sums, d.ic(), d.oc());
  }

  /** Of diff_src, before the derivative. */
  double[] backwardData(float[] diffDst, float[] weights) {
    float[] largest =
        largest(diffDst, d.oh(), d.ow(), d.oc(), d.h(), d.w(), 2 - d.padTop(), 2 - d.padLeft());
    double[][] sums = new double[d.ic()][d.oc()];
    for (int i = 0; i < weights.length; i++) {
      sums[i % d.ic()][i / (9 * d.ic())] += Math.abs(weights[i]);
    }
    return products(largest, sums, d.oc(), d.ic());
  }

  /** Of diff_weights. */
  double[] backwardWeights(float[] src, float[] diffDst) {
    float[] largest = largest(src, d.h(), d.w(), d.ic(), d.oh(), d.ow(), d.padTop(), d.padLeft());
    double[] bound = new double[d.oc() * 9 * d.ic()];
    for (int pixel = 0; pixel < diffDst.length / d.oc(); pixel++) {
      for (int k = 0; k < d.oc(); k++) {
        double error = FACTOR * Math.abs(diffDst[pixel * d.oc() + k]);
        for (int i = 0; i < 9 * d.ic(); i++) {
          bound[k * 9 * d.ic() + i] += error * largest[pixel * d.ic() + i % d.ic()];
        }
      }
    }
    return bound;
  }

  private static double[] products(float[] largest, double[][] sums, int from, int to) {
    double[] bound = new double[largest.length / from * to];
    for (int i = 0; i < bound.length; i++) {
      for (int c = 0; c < from; c++) {
        bound[i] += FACTOR * largest[i / to * from + c] * sums[i % to][c];
      }
    }
    return bound;
  }

  /**
   * For each result and channel the largest |value| within three rows and columns of its window.
   */
  private float[] largest(
      float[] values, int h, int w, int channels, int toH, int toW, int padTop, int padLeft) {
    float[] largest = new float[d.n() * toH * toW * channels];
    for (int i = 0; i < largest.length; i++) {
      int c = i % channels;
      int q = i / channels % toW - padLeft;
      int p = i / channels / toW % toH - padTop;
      int n = i / channels / toW / toH;
      for (int y = Math.max(0, p - 3); y < Math.min(h, p + 6); y++) {
        for (int x = Math.max(0, q - 3); x < Math.min(w, q + 6); x++) {
          float value = Math.abs(values[((n * h + y) * w + x) * channels + c]);
          largest[i] = Math.max(largest[i], value);
        }
      }
    }
    return largest;
  }
}
