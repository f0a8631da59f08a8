package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;

/**
 * Where a network of an activation stands between order and chaos (arXiv 1611.01232). Its layers
 * move q and c as
 *
 * <pre>
 *   q -> sigmaW2 * E[phi(sqrt(q) z)^2] + sigmaB2
 *   chi_1 = sigmaW2 * E[phi'(sqrt(q*) z)^2]
 * </pre>
 *
 * with q* the fixed point. chi_1 is the slope of the C map at c = 1: below 1 nearby inputs merge,
 * above 1 they part; at 1, the edge, both happen more slowly than exponentially.
 *
 * @param sigmaW2 variance of the weights times the fan-in
 * @param sigmaB2 variance of the biases
 * @param qStar fixed point of q (of the pre-activations)
 * @param chi1 slope of the C map at 1
 * @param qSlope slope of the q map at its fixed point; the fixed point attracts if below 1
 */
public record EdgeOfChaos(
    double sigmaW2, double sigmaB2, double qStar, double chi1, double qSlope) {

  /** Differences of chi_1 from 1 below it are rounding. */
  private static final double ROUNDING = 1e-9;

  /**
   * The number of layers in which a small difference 1 - c changes by a factor of e, 1 / |log
   * chi_1|; infinite at the edge of chaos, where 1 - c falls like a power of the depth instead.
   */
  public double depthScale() {
    if (Math.abs(chi1 - 1) <= ROUNDING) {
      return Double.POSITIVE_INFINITY;
    }
    return 1 / Math.abs(Math.log(chi1));
  }

  /**
   * Where the network stands at given variances, with q* found by iterating the q map from 1.
   *
   * @throws IllegalArgumentException if a variance is negative or not finite
   * @throws NoSolutionException if q does not settle
   */
  public static EdgeOfChaos at(ActivationFunction activation, double sigmaW2, double sigmaB2) {
    if (!(sigmaW2 >= 0 && sigmaB2 >= 0 && sigmaW2 + sigmaB2 < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "variances must be finite and not negative, but are " + sigmaW2 + " and " + sigmaB2);
    }
    double q = 1;
    for (int i = 0; i < 100_000; i++) {
      double next = sigmaW2 * Level.at(activation, q).square + sigmaB2;
      if (!(next < 1e12)) {
        break;
      }
      if (Math.abs(next - q) <= 1e-15 * q || next < 1e-30) {
        return at(activation, sigmaW2, sigmaB2, next < 1e-30 ? 0 : next);
      }
      q = next;
    }
    throw new NoSolutionException(
        activation.activationName()
            + " has no attracting q at sigma_w^2 = "
            + sigmaW2
            + ", sigma_b^2 = "
            + sigmaB2);
  }

  static EdgeOfChaos at(
      ActivationFunction activation, double sigmaW2, double sigmaB2, double qStar) {
    Level level = Level.at(activation, qStar);
    double qSlope = qStar == 0 ? sigmaW2 * level.slope : sigmaW2 * level.product / qStar;
    return new EdgeOfChaos(sigmaW2, sigmaB2, qStar, sigmaW2 * level.slope, qSlope);
  }

  /**
   * Expectations at pre-activations of mean square q.
   *
   * @param square E[phi^2]
   * @param slope E[phi'^2]
   * @param product E[phi phi' x], x = sqrt(q) z
   */
  record Level(double square, double slope, double product) {
    static Level at(ActivationFunction activation, double q) {
      double a = Math.sqrt(q);
      if (q == 0) {
        return of(activation, a, new GaussianNodes(new double[] {0}, new double[] {1}));
      }
      return of(activation, a, GaussianNodes.of(a, 0, activation.breakpoints()));
    }

    static Level independent(ActivationFunction activation, double q) {
      double a = Math.sqrt(q);
      if (q == 0) {
        return at(activation, 0);
      }
      return of(activation, a, GaussianNodes.independent(a, 0, activation.breakpoints()));
    }

    private static Level of(ActivationFunction activation, double a, GaussianNodes nodes) {
      double square = 0;
      double slope = 0;
      double product = 0;
      for (int i = 0; i < nodes.z().length; i++) {
        double x = a * nodes.z()[i];
        double w = nodes.weight()[i];
        double value = activation.value(x);
        double first = activation.derivative(x);
        square += w * value * value;
        slope += w * first * first;
        product += w * value * first * x;
      }
      return new Level(square, slope, product);
    }
  }
}
