package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.shaping.GaussianNodes.Grade;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;
import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;
import org.hipparchus.exception.MathRuntimeException;
import org.jspecify.annotations.Nullable;

/**
 * Finds the parameters with which an activation meets the local conditions of DKS or of smooth TAT.
 *
 * <p>Output scale and shift have closed forms, given the input scale a and shift b. With psi(z) =
 * phi(a z + b) and V its variance:
 *
 * <ul>
 *   <li>DKS: C(0) = 0 makes the mean of phi_hat zero, and then g = V^(-1/2).
 *   <li>TAT: C'(1) = Q(1) = 1 makes g = E[psi'^2]^(-1/2), and then E[psi + d]^2 = E[psi'^2] - V
 *       (not negative, by Poincare's inequality). The mean has either sign: two families.
 * </ul>
 *
 * <p>Of the two conditions left one measures how far phi_hat is from affine (DKS: C'(1) - 1, TAT:
 * C''(1)). It goes to zero with a, near enough as a power of a, and gives a for every b. The other,
 * Q'(1), is then a function of b alone; its sign changes over a grid that is dense about 0 and
 * reaches far out bracket the solutions. No start is guessed and nothing is random.
 */
final class LocalSolver {
  private static final double SMALLEST_SCALE = 1e-8;
  private static final double LARGEST_SCALE = 1e4;
  private static final int MAX_EVALUATIONS = 200;
  private static final double ROOT_TOLERANCE = 1e-9;

  /** What conditions are off at a root of the coarse quadrature is near 1e-7, or it is none. */
  private static final double JUMP = 1e-4;

  /** For derivatives: its square, and the coarse quadrature's error, are all they lack. */
  private static final double DIFFERENCE = 1e-4;

  private static final int MAX_POLISHING = 8;
  private static final double POLISHED = 1e-11;

  /** The shifts reach 0.2 sinh(6) = 40 from the centre. */
  private static final double REACH = 6;

  /** The conditions, besides Q(1) = 1. */
  enum Family {
    /** C(0) = 0, C'(1) = 1 + level, Q'(1). */
    DKS,
    /** C'(1) = 1, C''(1) = level, Q'(1), with a mean of phi_hat that is positive. */
    TAT_POSITIVE,
    /** The same with a negative mean. */
    TAT_NEGATIVE
  }

  private final ActivationFunction phi;
  private final double[] breakpoints;
  private final boolean tat;
  private final double level;
  private final double qSlope;
  private final boolean odd;
  private double nearestQSlope = Double.POSITIVE_INFINITY;

  /**
   * @param phi the activation
   * @param tat whether the conditions are those of TAT; else of DKS
   * @param level the target for C''(1) in TAT, for C'(1) - 1 in DKS
   * @param qSlope the target for Q'(1)
   */
  LocalSolver(ActivationFunction phi, boolean tat, double level, double qSlope) {
    this.phi = phi;
    this.breakpoints = phi.breakpoints();
    this.tat = tat;
    this.level = level;
    this.qSlope = qSlope;
    this.odd = isOdd(phi);
  }

  /**
   * All solutions, in {@link SolutionOrder}.
   *
   * @throws NoSolutionException if there is none
   */
  List<TransformedActivation> solve() {
    List<TransformedActivation> found = scan();
    if (found.isEmpty()) {
      found = scanThoroughly();
    }
    if (found.isEmpty()) {
      throw new NoSolutionException(explanation());
    }
    return SolutionOrder.of(found);
  }

  private String explanation() {
    String condition =
        tat
            ? String.format(Locale.ROOT, "C'(1) = 1 and C''(1) = %.6g", level)
            : String.format(Locale.ROOT, "C(0) = 0 and C'(1) = %.10g", 1 + level);
    String name = phi.activationName();
    if (nearestQSlope == Double.POSITIVE_INFINITY) {
      return "no input scale and shift give " + name + " " + condition;
    }
    return String.format(
        Locale.ROOT,
        "%s cannot meet Q'(1) = %.6g together with %s: wherever those hold, over input shifts"
            + " up to 40 either way and scales from 1e-4 to 1e3, it comes no nearer than %.6g",
        name,
        qSlope,
        condition,
        nearestQSlope);
  }

  /**
   * Input shifts in ascending order, dense about the points where phi is not smooth, or about 0.
   */
  private double[] shifts(double step) {
    double[] centres = breakpoints.length == 0 ? new double[] {0} : breakpoints;
    int last = (int) Math.round(REACH / step);
    return Arrays.stream(centres)
        .flatMap(
            centre ->
                IntStream.rangeClosed(-last, last)
                    .mapToDouble(i -> centre + 0.2 * Math.sinh(i * step)))
        .filter(b -> !odd || b >= 0)
        .sorted()
        .toArray();
  }

  /** Follows, over all shifts, the least scale with the wanted nonlinearity. */
  private List<TransformedActivation> scan() {
    List<TransformedActivation> found = new ArrayList<>();
    @Nullable Expectations before = null;
    double guess = Math.min(1, Math.sqrt(level));
    for (double b : shifts(0.2)) {
      Expectations here = atLevel(b, guess, Grade.COARSE);
      if (here != null) {
        // The shifts grow like powers of a number, and log a with them, about.
        double growth = before == null ? 1 : here.a() / before.a();
        guess = here.a() * Math.max(0.5, Math.min(2, growth));
        collect(before, here, found);
      }
      before = here;
    }
    return found;
  }

  /** Follows every scale with the wanted nonlinearity, on a finer grid; slow. */
  private List<TransformedActivation> scanThoroughly() {
    List<TransformedActivation> found = new ArrayList<>();
    List<Expectations> before = List.of();
    for (double b : shifts(0.1)) {
      List<Expectations> here = allAtLevel(b);
      // Where their number changes, one cannot tell which continues which: all are tried.
      boolean paired = before.size() == here.size();
      for (int i = 0; i < here.size(); i++) {
        for (int j = paired ? i : 0; j < (paired ? i + 1 : before.size()); j++) {
          collect(before.get(j), here.get(i), found);
        }
      }
      before = here;
    }
    return found;
  }

  private List<Expectations> allAtLevel(double b) {
    List<Expectations> result = new ArrayList<>();
    double before = Double.NaN;
    for (double logA = Math.log(1e-4); logA < Math.log(1e3); logA += 0.25) {
      double here = excess(expectations(logA, b, Grade.COARSE));
      if (before * here <= 0) {
        Expectations at = between(b, logA - 0.25, logA, Grade.COARSE);
        if (at != null) {
          result.add(at);
        }
      }
      before = here;
    }
    return result;
  }

  private void collect(
      @Nullable Expectations before, Expectations here, List<TransformedActivation> found) {
    Family[] families =
        tat ? new Family[] {Family.TAT_POSITIVE, Family.TAT_NEGATIVE} : new Family[] {Family.DKS};
    for (Family family : families) {
      double error = qSlopeError(here, family);
      if (Math.abs(error) < Math.abs(nearestQSlope - qSlope)) {
        nearestQSlope = qSlope + error;
      }
      if (before != null && error * qSlopeError(before, family) <= 0) {
        TransformedActivation solution = refine(before, here, family);
        if (solution != null && found.stream().noneMatch(f -> isSame(f, solution))) {
          found.add(solution);
        }
      }
    }
  }

  /** A root on a grid point is found from both sides. */
  static boolean isSame(TransformedActivation one, TransformedActivation other) {
    return Math.abs(one.inputShift() - other.inputShift()) <= 1e-9
        && Math.abs(one.inputScale() - other.inputScale()) <= 1e-9 * one.inputScale()
        && Math.abs(one.outputShift() - other.outputShift()) <= 1e-9
        && Math.abs(one.negativeSlope() - other.negativeSlope()) <= 1e-9;
  }

  private @Nullable TransformedActivation refine(
      Expectations left, Expectations right, Family family) {
    // Nearly all of the way on the coarse quadrature, the rest on the fine one.
    Expectations near = root(left, right, family, Grade.COARSE);
    if (near != null
        && !(Math.abs(qSlopeError(near, family)) <= JUMP && Math.abs(excess(near)) <= JUMP)) {
      return null; // not a root: rounding, where phi is flat but for its last digits
    }
    Expectations at = near == null ? null : polished(near, family);
    if (at == null) {
      at = root(left, right, family, Grade.FINE);
    }
    if (at == null || !(Math.abs(qSlopeError(at, family)) <= ROOT_TOLERANCE)) {
      return null;
    }
    return new TransformedActivation(
        phi,
        at.a(),
        at.b(),
        1 / Math.sqrt(family == Family.DKS ? at.variance() : at.slope()),
        meanOfShifted(at, family) - at.mean() - at.origin(),
        0);
  }

  /**
   * From a root of both conditions on the coarse quadrature to one on the fine quadrature, by
   * Newton's method in (log a, b) with the coarse quadrature's derivatives, which are right to many
   * digits; null if it does not get there.
   */
  private @Nullable Expectations polished(Expectations near, Family family) {
    double x = Math.log(near.a());
    double b = near.b();
    double h = DIFFERENCE;
    Expectations right = expectations(x + h, b, Grade.COARSE);
    Expectations left = expectations(x - h, b, Grade.COARSE);
    Expectations up = expectations(x, b + h, Grade.COARSE);
    Expectations down = expectations(x, b - h, Grade.COARSE);
    double levelByX = (excess(right) - excess(left)) / (2 * h);
    double levelByB = (excess(up) - excess(down)) / (2 * h);
    double slopeByX = (qSlopeError(right, family) - qSlopeError(left, family)) / (2 * h);
    double slopeByB = (qSlopeError(up, family) - qSlopeError(down, family)) / (2 * h);
    double determinant = levelByX * slopeByB - levelByB * slopeByX;
    Expectations best = near;
    double least = Double.POSITIVE_INFINITY;
    for (int i = 0; i < MAX_POLISHING; i++) {
      Expectations at = expectations(x, b, Grade.FINE);
      double levelError = excess(at);
      double slopeError = qSlopeError(at, family);
      double error = Math.max(Math.abs(levelError), Math.abs(slopeError));
      if (!(error < least)) {
        break; // rounding, or astray
      }
      best = at;
      least = error;
      x -= (levelError * slopeByB - slopeError * levelByB) / determinant;
      b -= (slopeError * levelByX - levelError * slopeByX) / determinant;
    }
    return least <= POLISHED ? best : null;
  }

  /** Where Q'(1) is right between two; null if its error does not change sign, or jumps. */
  private @Nullable Expectations root(
      Expectations left, Expectations right, Family family, Grade grade) {
    double tolerance = tolerance(grade);
    // Each a begins at the one found before.
    Expectations[] last = {left};
    try {
      double b =
          new BracketingNthOrderBrentSolver(tolerance, tolerance, 1e-16, 5)
              .solve(
                  MAX_EVALUATIONS,
                  v -> {
                    Expectations at = atLevel(v, last[0].a(), grade);
                    if (at == null) {
                      return Double.NaN;
                    }
                    last[0] = at;
                    return qSlopeError(at, family);
                  },
                  left.b(),
                  right.b(),
                  AllowedSolution.ANY_SIDE);
      return last[0].b() == b ? last[0] : atLevel(b, last[0].a(), grade);
    } catch (MathRuntimeException e) {
      return null;
    }
  }

  private static double tolerance(Grade grade) {
    return grade == Grade.FINE ? 1e-15 : 1e-7;
  }

  /** E[psi + d]. */
  private static double meanOfShifted(Expectations at, Family family) {
    double mean = Math.sqrt(Math.max(0, at.slope() - at.variance()));
    return switch (family) {
      case DKS -> 0;
      case TAT_POSITIVE -> mean;
      case TAT_NEGATIVE -> -mean;
    };
  }

  private double qSlopeError(Expectations at, Family family) {
    double shift = meanOfShifted(at, family) - at.mean();
    double product = at.product() + shift * at.slopeZ();
    return product / (family == Family.DKS ? at.variance() : at.slope()) - qSlope;
  }

  /** C''(1) in TAT, C'(1) - 1 in DKS. */
  private double nonlinearity(Expectations at) {
    return tat ? at.curvature() / at.slope() : at.slope() / at.variance() - 1;
  }

  /**
   * The expectations for the least a near the guess at which the nonlinearity is as wanted; null if
   * there is no such a.
   */
  private @Nullable Expectations atLevel(double b, double guess, Grade grade) {
    // On logarithmic scales the nonlinearity is close to a straight line of slope 2 (or 4 at an
    // inflection), which the secant method likes; where it is not, brackets and Brent.
    double tolerance = tolerance(grade);
    double x0 = Math.log(guess);
    Expectations at = expectations(x0, b, grade);
    double y0 = excess(at);
    if (Double.isNaN(y0)) {
      return null; // phi is flat here to all digits
    }
    double x1 = x0 - y0 / 2;
    for (int i = 0; i < 12 && Math.abs(x1 - x0) < 8; i++) {
      at = expectations(x1, b, grade);
      double y1 = excess(at);
      if (Math.abs(y1) <= tolerance) {
        return at;
      }
      double slope = (y1 - y0) / (x1 - x0);
      if (!(slope > 0.2)) {
        break;
      }
      double x2 = x1 - y1 / slope;
      if (!(Math.abs(x2 - x1) > 2e-16 * Math.abs(x1))) {
        return at;
      }
      x0 = x1;
      y0 = y1;
      x1 = x2;
    }
    return bracketed(b, guess, grade);
  }

  private @Nullable Expectations bracketed(double b, double guess, Grade grade) {
    double low = Math.log(guess);
    while (!(excess(expectations(low, b, grade)) < 0)) {
      low -= 1;
      if (low < Math.log(SMALLEST_SCALE)) {
        return null;
      }
    }
    double high = low + 0.5;
    while (!(excess(expectations(high, b, grade)) >= 0)) {
      high += 0.5;
      if (high > Math.log(LARGEST_SCALE)) {
        return null;
      }
    }
    return between(b, high - 0.5, high, grade);
  }

  private @Nullable Expectations between(double b, double low, double high, Grade grade) {
    double tolerance = tolerance(grade) / 4;
    try {
      double x =
          new BracketingNthOrderBrentSolver(tolerance, tolerance, 1e-16, 5)
              .solve(
                  MAX_EVALUATIONS,
                  v -> excess(expectations(v, b, grade)),
                  low,
                  high,
                  AllowedSolution.ANY_SIDE);
      return expectations(x, b, grade);
    } catch (MathRuntimeException e) {
      return null;
    }
  }

  private double excess(Expectations at) {
    double value = nonlinearity(at);
    return Math.log(Math.max(value, 1e-300) / level);
  }

  private Expectations expectations(double logA, double b, Grade grade) {
    return Expectations.of(phi, breakpoints, Math.exp(logA), b, grade);
  }

  /** Whether phi is odd up to a constant, so that b and -b give mirror images. */
  private static boolean isOdd(ActivationFunction phi) {
    double twiceCentre = 2 * phi.value(0);
    for (double x : new double[] {1e-3, 0.1, 0.7, 1.3, 2.9, 7.1, 23}) {
      double sum = phi.value(x) + phi.value(-x) - twiceCentre;
      double size = Math.abs(phi.value(x)) + Math.abs(phi.value(-x));
      if (!(Math.abs(sum) <= 1e-14 * size)) {
        return false;
      }
    }
    return true;
  }
}
