package io.jtrelu.backend;

/**
 * Convolution and its gradients by the definition, one result element at a time: each gathers its
 * terms, where the code under test may scatter, block or transform. With whole numbers below 2^53
 * everything here is exact.
 */
final class NaiveConv2d {
  private final Conv2dDescriptor d;
  private final int channels;
  private final int groupOutputs;

  NaiveConv2d(Conv2dDescriptor descriptor) {
    d = descriptor;
    channels = d.ic() / d.groups();
    groupOutputs = d.oc() / d.groups();
  }

  /**
   * Sums and, beside each, the sum of its terms' absolute values.
   *
   * @param value the sums
   * @param magnitude what rounding errors are measured by
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record Sums(double[] value, double[] magnitude) {
    Sums(long elements) {
      this(new double[Math.toIntExact(elements)], new double[Math.toIntExact(elements)]);
    }

    private void add(int element, double term) {
      value[element] += term;
      magnitude[element] += Math.abs(term);
    }
  }

  private int src(int n, int y, int x, int c) {
    return ((n * d.h() + y) * d.w() + x) * d.ic() + c;
  }

  private int dst(int n, int p, int q, int k) {
    return ((n * d.oh() + p) * d.ow() + q) * d.oc() + k;
  }

  private int weight(int k, int r, int s, int c) {
    return ((k * d.kh() + r) * d.kw() + s) * channels + c;
  }

  private int y(int p, int r) {
    return p * d.strideH() - d.padTop() + r * d.dilationH();
  }

  private int x(int q, int s) {
    return q * d.strideW() - d.padLeft() + s * d.dilationW();
  }

  /** conv(src, weights) + bias. */
  Sums forward(float[] src, float[] weights, float[] bias) {
    Sums sums = new Sums(d.dst().elements());
    for (int n = 0; n < d.n(); n++) {
      for (int p = 0; p < d.oh(); p++) {
        for (int q = 0; q < d.ow(); q++) {
          for (int k = 0; k < d.oc(); k++) {
            int at = dst(n, p, q, k);
            int g = k / groupOutputs * channels;
            sums.add(at, bias[k]);
            for (int r = 0; r < d.kh(); r++) {
              for (int s = 0; s < d.kw(); s++) {
                int y = y(p, r);
                int x = x(q, s);
                if (0 <= y && y < d.h() && 0 <= x && x < d.w()) {
                  for (int c = 0; c < channels; c++) {
                    sums.add(at, (double) src[src(n, y, x, g + c)] * weights[weight(k, r, s, c)]);
                  }
                }
              }
            }
          }
        }
      }
    }
    return sums;
  }

  /** conv^T(diff_dst, weights): for each source element, the destinations that it reaches. */
  Sums backwardData(float[] diffDst, float[] weights) {
    Sums sums = new Sums(d.src().elements());
    for (int n = 0; n < d.n(); n++) {
      for (int y = 0; y < d.h(); y++) {
        for (int r = 0; r < d.kh(); r++) {
          int p = outputOf(y + d.padTop() - r * d.dilationH(), d.strideH(), d.oh());
          for (int x = 0; p >= 0 && x < d.w(); x++) {
            for (int s = 0; s < d.kw(); s++) {
              int q = outputOf(x + d.padLeft() - s * d.dilationW(), d.strideW(), d.ow());
              for (int c = 0; q >= 0 && c < d.ic(); c++) {
                int at = src(n, y, x, c);
                int first = c / channels * groupOutputs;
                for (int k = first; k < first + groupOutputs; k++) {
                  sums.add(
                      at,
                      (double) diffDst[dst(n, p, q, k)] * weights[weight(k, r, s, c % channels)]);
                }
              }
            }
          }
        }
      }
    }
    return sums;
  }

  /** The output whose tap lies at a distance from the first output, or -1. */
  private static int outputOf(int distance, int stride, int outputs) {
    boolean hit = distance >= 0 && distance % stride == 0 && distance / stride < outputs;
    return hit ? distance / stride : -1;
  }

  /** The gradient of the weights. */
  Sums backwardWeights(float[] src, float[] diffDst) {
    Sums sums = new Sums(d.weights().elements());
    for (int k = 0; k < d.oc(); k++) {
      int g = k / groupOutputs * channels;
      for (int r = 0; r < d.kh(); r++) {
        for (int s = 0; s < d.kw(); s++) {
          for (int n = 0; n < d.n(); n++) {
            for (int p = 0; p < d.oh(); p++) {
              for (int q = 0; q < d.ow(); q++) {
                int y = y(p, r);
                int x = x(q, s);
                if (0 <= y && y < d.h() && 0 <= x && x < d.w()) {
                  double factor = diffDst[dst(n, p, q, k)];
                  for (int c = 0; c < channels; c++) {
                    sums.add(weight(k, r, s, c), factor * src[src(n, y, x, g + c)]);
                  }
                }
              }
            }
          }
        }
      }
    }
    return sums;
  }

  /** The gradient of the bias. */
  Sums backwardBias(float[] diffDst) {
    Sums sums = new Sums(d.oc());
    for (int k = 0; k < d.oc(); k++) {
      for (int i = k; i < diffDst.length; i += d.oc()) {
        sums.add(k, diffDst[i]);
      }
    }
    return sums;
  }
}
