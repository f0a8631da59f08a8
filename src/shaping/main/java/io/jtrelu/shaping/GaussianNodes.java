package io.jtrelu.shaping;

import java.util.Arrays;
import org.hipparchus.analysis.integration.gauss.LegendreRuleFactory;
import org.hipparchus.util.Pair;

/**
 * Nodes z_i and weights w_i with E[f(z)] ~ sum w_i f(z_i) for z ~ N(0, 1) and f(z) = g(a z + b),
 * where g is smooth between given points.
 *
 * <p>An activation and its derivatives are analytic in a strip about the real axis of their own
 * argument u = a z + b, of half-width 1 or more (softsign 1, tanh pi/2). So the interval is cut
 * where g is not smooth, and where a is large also about u = 0, in pieces that grow with their
 * distance.
 */
@SuppressWarnings("ArrayRecordComponent") // internal, never compared, arrays never change
record GaussianNodes(double[] z, double[] weight) {
  /** The normal distribution has a mass of 1e-23 beyond it. */
  private static final double RANGE = 10;

  private static final double PANEL = 2;
  private static final double[] ABOUT_ORIGIN = {-16, -12, -8, -5, -3, -1, 1, 3, 5, 8, 12, 16};
  private static final double[] NOWHERE = {};

  /** How much a solver wants of a quadrature. */
  static final class Grade {
    /** An error near 1e-7, for finding where solutions are. */
    static final Grade COARSE = new Grade(10);

    /** An error near 1e-12, for double integrals. */
    static final Grade MEDIUM = new Grade(16);

    /** An error near 1e-15. */
    static final Grade FINE = new Grade(24);

    private final Pair<double[], double[]> rule;
    private final GaussianNodes smooth;

    private Grade(int pointsPerPanel) {
      this.rule = new LegendreRuleFactory().getRule(pointsPerPanel);
      this.smooth = legendre(GaussianNodes.cuts(1, 0, NOWHERE, PANEL));
    }

    private GaussianNodes legendre(double[] cuts) {
      double[] points = rule.getFirst();
      double[] weights = rule.getSecond();
      double[] z = new double[(cuts.length - 1) * points.length];
      double[] weight = new double[z.length];
      int next = 0;
      for (int p = 0; p + 1 < cuts.length; p++) {
        double middle = (cuts[p] + cuts[p + 1]) / 2;
        double radius = (cuts[p + 1] - cuts[p]) / 2;
        for (int i = 0; i < points.length; i++) {
          z[next] = middle + radius * points[i];
          weight[next] = density(z[next]) * radius * weights[i];
          next++;
        }
      }
      return new GaussianNodes(z, weight);
    }
  }

  /** By Gauss-Legendre on panels: for solving. */
  static GaussianNodes of(double a, double b, double[] breakpoints, Grade grade) {
    if (breakpoints.length == 0 && Math.abs(a) <= 1) {
      return grade.smooth;
    }
    return grade.legendre(cuts(a, b, breakpoints, PANEL));
  }

  /** By the finest rule. */
  static GaussianNodes of(double a, double b, double[] breakpoints) {
    return of(a, b, breakpoints, Grade.FINE);
  }

  /**
   * By the double exponential (tanh-sinh) rule between the points where the function is not smooth:
   * shares neither nodes nor panels with {@link #of}, so that it can check it.
   */
  static GaussianNodes independent(double a, double b, double[] breakpoints) {
    double[] cuts = cuts(a, b, breakpoints, RANGE);
    double step = 1.0 / 32;
    int half = (int) Math.round(3.25 / step);
    int perPiece = 2 * half + 1;
    double[] z = new double[(cuts.length - 1) * perPiece];
    double[] weight = new double[z.length];
    int next = 0;
    for (int p = 0; p + 1 < cuts.length; p++) {
      double middle = (cuts[p] + cuts[p + 1]) / 2;
      double radius = (cuts[p + 1] - cuts[p]) / 2;
      for (int i = -half; i <= half; i++) {
        double t = Math.PI / 2 * Math.sinh(i * step);
        double cosh = Math.cosh(t);
        z[next] = middle + radius * Math.tanh(t);
        weight[next] =
            density(z[next]) * radius * step * (Math.PI / 2) * Math.cosh(i * step) / (cosh * cosh);
        next++;
      }
    }
    return new GaussianNodes(z, weight);
  }

  /**
   * For a function that is not smooth at some points and bends over the given width at others:
   * pieces grow from that width with the distance from those.
   */
  static GaussianNodes graded(double[] corners, double[] bends, double width) {
    int doublings = Math.max(1, (int) Math.ceil(Math.log(PANEL / width) / Math.log(2)));
    int regular = (int) Math.round(2 * RANGE / PANEL) + 1;
    double[] cuts = new double[regular + corners.length + bends.length * (2 * doublings + 1)];
    int count = 0;
    for (int i = 0; i < regular; i++) {
      cuts[count++] = -RANGE + i * PANEL;
    }
    for (double z : corners) {
      count = cut(cuts, count, z);
    }
    for (double z : bends) {
      count = cut(cuts, count, z);
      for (int j = 0; j < doublings; j++) {
        count = cut(cuts, count, z - Math.scalb(width, j));
        count = cut(cuts, count, z + Math.scalb(width, j));
      }
    }
    Arrays.sort(cuts, 0, count);
    return Grade.MEDIUM.legendre(Arrays.copyOf(cuts, count));
  }

  /** The ends of the pieces, in ascending order. */
  private static double[] cuts(double a, double b, double[] breakpoints, double panel) {
    boolean steep = Math.abs(a) > 1;
    int regular = (int) Math.round(2 * RANGE / panel) + 1;
    double[] cuts = new double[regular + breakpoints.length + (steep ? ABOUT_ORIGIN.length : 0)];
    int count = 0;
    for (int i = 0; i < regular; i++) {
      cuts[count++] = -RANGE + i * panel;
    }
    for (double u : breakpoints) {
      count = cut(cuts, count, (u - b) / a);
    }
    if (steep) {
      for (double u : ABOUT_ORIGIN) {
        count = cut(cuts, count, (u - b) / a);
      }
    }
    Arrays.sort(cuts, 0, count);
    return Arrays.copyOf(cuts, count);
  }

  private static int cut(double[] cuts, int count, double z) {
    if (!(Math.abs(z) < RANGE)) {
      return count;
    }
    cuts[count] = z;
    return count + 1;
  }

  private static double density(double z) {
    return Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
  }
}
