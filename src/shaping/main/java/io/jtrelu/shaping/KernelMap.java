package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import org.jspecify.annotations.Nullable;

/**
 * The local maps of one layer as functions, for plots and for following a kernel through a network:
 * {@code graph.output(map::c, c)} is the global C map, {@code graph.throughDepth(map::c, c)} its
 * course.
 *
 * <p>C is analytic in theta = acos c, even for a kinked activation. It is evaluated by quadrature
 * at Chebyshev points of theta in [0, pi] and interpolated; rectifiers have their closed form. The
 * error is near 1e-10, and rounding near c = 1 apart from that.
 *
 * <p>Immutable and safe for use by several threads.
 */
public final class KernelMap {
  private static final int POINTS = 32;

  private final TransformedActivation activation;
  private final double sigmaW2;
  private final double sigmaB2;
  private final double q;

  /** Chebyshev coefficients of the covariance of outputs in theta, the first one halved. */
  private final double[] coefficients;

  private final double atOne;

  /** The closed form, where there is one. */
  private final @Nullable TailoredRectifier rectifier;

  private KernelMap(TransformedActivation activation, double sigmaW2, double sigmaB2, double q) {
    this.activation = activation;
    this.sigmaW2 = sigmaW2;
    this.sigmaB2 = sigmaB2;
    this.q = q;
    this.rectifier = rectifier(activation, sigmaB2);
    this.coefficients =
        rectifier == null ? chebyshev(activation, Math.sqrt(q)) : new double[] {1 / sigmaW2};
    this.atOne = sigmaW2 * series(0) + sigmaB2;
  }

  /** The maps at q = 1 of an activation between layers with orthogonal weights and no biases. */
  public static KernelMap of(TransformedActivation activation) {
    return new KernelMap(activation, 1, 0, 1);
  }

  /**
   * The maps at q* of a layer with random weights and biases, from pre-activation to
   * pre-activation.
   *
   * @throws IllegalArgumentException if q* is 0, where there is no cosine
   */
  public static KernelMap of(ActivationFunction activation, EdgeOfChaos edge) {
    if (!(edge.qStar() > 0)) {
      throw new IllegalArgumentException(
          "at q* = 0 every signal vanishes and there is no cosine to follow");
    }
    return new KernelMap(
        TransformedActivation.unchanged(activation), edge.sigmaW2(), edge.sigmaB2(), edge.qStar());
  }

  /** The maps that belong to a solution. */
  public static KernelMap of(Shaping shaping) {
    EdgeOfChaos edge = shaping.edgeOfChaos();
    return edge == null ? of(shaping.activation()) : of(shaping.activation().function(), edge);
  }

  /** C(c) for c in [-1, 1], normalised so that C(1) = 1. */
  public double c(double c) {
    if (rectifier != null) {
      return rectifier.c(c);
    }
    double theta = Math.acos(Math.max(-1, Math.min(1, c)));
    return (sigmaW2 * series(theta) + sigmaB2) / atOne;
  }

  /** Q(x): the mean square of the outputs at inputs of mean square x. */
  public double q(double x) {
    double a = Math.sqrt(x);
    GaussianNodes nodes = nodes(activation, a);
    double sum = 0;
    for (int i = 0; i < nodes.z().length; i++) {
      double value = activation.value(a * nodes.z()[i]);
      sum += nodes.weight()[i] * value * value;
    }
    return sigmaW2 * sum + sigmaB2;
  }

  /** The q at which C is taken. */
  public double q() {
    return q;
  }

  private static @Nullable TailoredRectifier rectifier(
      TransformedActivation activation, double sigmaB2) {
    double slope = activation.negativeSlope();
    boolean closed = activation.isScaledRectifier() && sigmaB2 == 0 && slope >= 0 && slope <= 1;
    return closed ? new TailoredRectifier(slope) : null;
  }

  private double series(double theta) {
    double y = 2 * theta / Math.PI - 1;
    double d = 0;
    double dd = 0;
    for (int j = coefficients.length - 1; j > 0; j--) {
      double next = 2 * y * d - dd + coefficients[j];
      dd = d;
      d = next;
    }
    return y * d - dd + coefficients[0];
  }

  private static double[] chebyshev(TransformedActivation activation, double a) {
    double[] values = new double[POINTS];
    for (int k = 0; k < POINTS; k++) {
      double y = Math.cos(Math.PI * (k + 0.5) / POINTS);
      values[k] = covariance(activation, a, (y + 1) * Math.PI / 2);
    }
    double[] result = new double[POINTS];
    for (int j = 0; j < POINTS; j++) {
      double sum = 0;
      for (int k = 0; k < POINTS; k++) {
        sum += values[k] * Math.cos(Math.PI * j * (k + 0.5) / POINTS);
      }
      result[j] = sum * (j == 0 ? 1.0 : 2.0) / POINTS;
    }
    return result;
  }

  /** E[phi(a u) phi(a v)] for u, v ~ N(0, 1) at angle theta. */
  private static double covariance(TransformedActivation activation, double a, double theta) {
    // u = x and v = x cos theta + y sin theta: given x, v is normal of standard deviation
    // sin theta. The inner mean is smooth in x, but bends over a width of tan theta where v's mean
    // crosses a kink.
    double cos = Math.cos(theta);
    double sin = Math.sin(theta);
    double[] kinks = activation.breakpoints();
    GaussianNodes outer = nodes(activation, a);
    if (kinks.length > 0) {
      double width = Math.max(1e-3, Math.abs(sin / cos));
      outer = GaussianNodes.graded(scaled(kinks, 1 / a), scaled(kinks, 1 / (a * cos)), width);
    }
    double sum = 0;
    for (int i = 0; i < outer.z().length; i++) {
      double x = outer.z()[i];
      double centre = a * cos * x;
      double inner = 0;
      GaussianNodes given =
          GaussianNodes.of(
              a * sin * activation.inputScale(),
              activation.inputScale() * centre + activation.inputShift(),
              activation.function().breakpoints(),
              GaussianNodes.Grade.MEDIUM);
      for (int j = 0; j < given.z().length; j++) {
        inner += given.weight()[j] * activation.value(centre + a * sin * given.z()[j]);
      }
      sum += outer.weight()[i] * activation.value(a * x) * inner;
    }
    return sum;
  }

  private static double[] scaled(double[] points, double factor) {
    double[] result = points.clone();
    for (int i = 0; i < result.length; i++) {
      result[i] *= factor;
    }
    return result;
  }

  private static GaussianNodes nodes(TransformedActivation activation, double a) {
    return GaussianNodes.of(
        a * activation.inputScale(),
        activation.inputShift(),
        activation.function().breakpoints(),
        GaussianNodes.Grade.MEDIUM);
  }
}
