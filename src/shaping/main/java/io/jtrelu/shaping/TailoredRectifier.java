package io.jtrelu.shaping;

import io.jtrelu.activation.TransformedActivation;

/**
 * The tailored rectifier (TReLU) and its local maps in closed form:
 *
 * <pre>
 *   phi(x)  = s * (max(x, 0) + a * min(x, 0)),   s = sqrt(2 / (1 + a^2)),   0 &lt;= a &lt;= 1
 *   Q(q)    = q
 *   C(c)    = c + k * (sqrt(1 - c^2) - c * acos c),   k = (1 - a)^2 / (pi * (1 + a^2))
 *   C'(c)   = 1 - k * acos c
 *   C''(c)  = k / sqrt(1 - c^2)
 * </pre>
 *
 * <p>Near c = 1 the formula for C cancels, so everything is computed from e = 1 - c, with theta =
 * acos c = 2 asin(sqrt(e / 2)) and a series for sin theta - theta cos theta. The methods that take
 * e keep 1e-13 of relative accuracy in 1 - C down to e = 1e-16 and below.
 *
 * <p>Source: arXiv 2203.08120, section 3.
 *
 * @param negativeSlope a, from 0 (ReLU) to 1 (the identity)
 */
public record TailoredRectifier(double negativeSlope) {
  private static final double SERIES_BELOW = 0.7;

  /**
   * @throws IllegalArgumentException if the slope is not in [0, 1]
   */
  public TailoredRectifier {
    if (!(negativeSlope >= 0 && negativeSlope <= 1)) {
      throw new IllegalArgumentException(
          "the negative slope must lie in [0, 1], but is " + negativeSlope);
    }
  }

  /** As a transformed leaky_relu. */
  public TransformedActivation transformed() {
    return TransformedActivation.rectifier(negativeSlope, outputScale());
  }

  /** The rectifier with the given curvature coefficient k, from 0 (the identity) to 1/pi (ReLU). */
  static TailoredRectifier ofCurvature(double k) {
    // (1 - m) a^2 - 2 a + (1 - m) = 0 with m = pi k; of its two roots, whose product is 1, the
    // smaller, in the form that does not cancel.
    double m = Math.min(1, Math.PI * k);
    return new TailoredRectifier((1 - m) / (1 + Math.sqrt(m * (2 - m))));
  }

  /** s, which makes Q the identity. */
  public double outputScale() {
    return Math.sqrt(2 / (1 + negativeSlope * negativeSlope));
  }

  /** k, which measures how far C is from the identity. */
  public double curvature() {
    return (1 - negativeSlope)
        * (1 - negativeSlope)
        / (Math.PI * (1 + negativeSlope * negativeSlope));
  }

  /** phi(x). */
  public double value(double x) {
    return outputScale() * (x > 0 ? x : negativeSlope * x);
  }

  /** C(c) for c in [-1, 1]. */
  public double c(double c) {
    return 1 - e(1 - c);
  }

  /** C'(c) for c in [-1, 1]. */
  public double cSlope(double c) {
    return eSlope(1 - c);
  }

  /** C''(c) for c in [-1, 1]; infinite at the ends. */
  public double cCurvature(double c) {
    return curvature() / Math.sqrt((1 - c) * (1 + c));
  }

  /** 1 - C(1 - e) for e in [0, 2]: the C map in terms of the distance from c = 1. */
  public double e(double e) {
    return e(curvature(), e);
  }

  /** C(1 - e) - (1 - e), accurate however small it is. */
  public double gain(double e) {
    return curvature() * sineMinusCosine(e);
  }

  /** C'(1 - e). */
  public double eSlope(double e) {
    return 1 - curvature() * angle(e);
  }

  /** 1 - C(1 - e) for the rectifier with curvature coefficient k. */
  static double e(double k, double e) {
    return e - k * sineMinusCosine(e);
  }

  /** All that shaping controls, in closed form. */
  Moments moments() {
    double a2 = negativeSlope * negativeSlope;
    double scale2 = 2 / (1 + a2);
    double fourth = 1.5 * scale2 * scale2 * (1 + a2 * a2);
    double curvature = negativeSlope < 1 ? Double.POSITIVE_INFINITY : 0;
    return new Moments(1, 1, curvature(), 1, curvature, fourth);
  }

  private static double angle(double e) {
    return 2 * Math.asin(Math.sqrt(Math.max(0, Math.min(1, e / 2))));
  }

  /** sin t - t cos t at cos t = 1 - e; sums of rounded weights may leave e just outside [0, 2]. */
  private static double sineMinusCosine(double anyE) {
    double e = Math.max(0, Math.min(2, anyE));
    double t = angle(e);
    if (t >= SERIES_BELOW) {
      return Math.sqrt(e * (2 - e)) - t * (1 - e);
    }
    // t^3/3 - t^5/30 + t^7/840 - ..., each term -t^2 / (2n (2n + 3)) times the one before.
    double t2 = t * t;
    double sum = 1;
    for (int n = 8; n >= 1; n--) {
      sum = 1 - sum * t2 / (2 * n * (2 * n + 3.0));
    }
    return sum * t2 * t / 3;
  }
}
