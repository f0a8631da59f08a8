package io.jtrelu.shaping;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ErrorFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.DoubleUnaryOperator;
import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;
import org.hipparchus.exception.MathRuntimeException;
import org.jspecify.annotations.Nullable;

/**
 * DKS for relu and leaky_relu. With u = z + b, P = max(u, 0) and N = min(u, 0) every expectation is
 * a closed form in the normal density and distribution function at b.
 *
 * @param b input shift
 * @param positiveMass P(u > 0)
 * @param density normal density at b
 * @param positiveMean E[P]
 * @param negativeMean E[N]
 * @param positiveSquare E[P^2]
 * @param negativeSquare E[N^2]
 */
record ShiftedRectifier(
    double b,
    double positiveMass,
    double density,
    double positiveMean,
    double negativeMean,
    double positiveSquare,
    double negativeSquare) {

  /** C'(1) of relu with b = 0 and zero mean: 1 / (1 - 1/pi). */
  private static final double RELU_SLOPE_UNSHIFTED = 1 / (1 - 1 / Math.PI);

  private static final double LARGEST_SHIFT = 12;
  private static final int MAX_EVALUATIONS = 200;

  static ShiftedRectifier at(double b) {
    // Each from its own tail, so that none is a small difference of large numbers.
    double density = ErrorFunction.normalDensity(b);
    double positive = ErrorFunction.normalCdf(b);
    double negative = ErrorFunction.normalCdf(-b);
    return new ShiftedRectifier(
        b,
        positive,
        density,
        b * positive + density,
        b * negative - density,
        (1 + b * b) * positive + b * density,
        (1 + b * b) * negative - b * density);
  }

  /** max(a x + b, 0) with b = 1 or -1, zero mean and C'(1) as given; Q'(1) is left free. */
  static TransformedActivation relu(double cSlope) {
    // Only t = b / a matters, and C'(1) falls from infinity to 1 as t rises.
    double steepest = at(-LARGEST_SHIFT).cSlope(0);
    if (cSlope > steepest) {
      throw new NoSolutionException(
          String.format(
              Locale.ROOT,
              "relu cannot meet C(0) = 0 and C'(1) = %.10g: with its bend up to %.0f standard"
                  + " deviations out, C'(1) reaches %.4g",
              cSlope,
              LARGEST_SHIFT,
              steepest));
    }
    double t =
        new BracketingNthOrderBrentSolver(1e-15, 1e-15, 1e-300, 5)
            .solve(
                MAX_EVALUATIONS,
                x -> Math.log(at(x).cSlope(0) / cSlope),
                cSlope < RELU_SLOPE_UNSHIFTED ? 0 : -LARGEST_SHIFT,
                cSlope < RELU_SLOPE_UNSHIFTED ? LARGEST_SHIFT : 0,
                AllowedSolution.ANY_SIDE);
    ShiftedRectifier rectifier = at(t);
    double a = t == 0 ? 1 : 1 / Math.abs(t);
    return new TransformedActivation(
        Activation.RELU,
        a,
        Math.signum(t),
        1 / (a * Math.sqrt(rectifier.variance(0))),
        -a * rectifier.positiveMean,
        0);
  }

  /**
   * max(x + b, 0) + slope min(x + b, 0) with zero mean and C'(1) and Q'(1) as given, in {@link
   * SolutionOrder}.
   *
   * @throws NoSolutionException if there is none
   */
  static List<TransformedActivation> leakyRelu(double cSlope, double qSlope) {
    List<TransformedActivation> found = new ArrayList<>();
    double nearest = Double.POSITIVE_INFINITY;
    for (boolean larger : new boolean[] {true, false}) {
      DoubleUnaryOperator error =
          b -> {
            ShiftedRectifier rectifier = at(b);
            return rectifier.qSlope(rectifier.slopeFor(cSlope, larger)) - qSlope;
          };
      double before = Double.NaN;
      double left = Double.NaN;
      for (int i = -80; i <= 80; i++) {
        double b = 0.2 * Math.sinh(i * 0.06);
        double here = error.applyAsDouble(b);
        if (Math.abs(here) < Math.abs(nearest)) {
          nearest = here;
        }
        if (here * before <= 0) {
          TransformedActivation solution = refine(error, left, b, cSlope, larger);
          if (solution != null && found.stream().noneMatch(f -> LocalSolver.isSame(f, solution))) {
            found.add(solution);
          }
        }
        before = here;
        left = b;
      }
    }
    if (found.isEmpty()) {
      throw new NoSolutionException(explanation(cSlope, qSlope, nearest));
    }
    return SolutionOrder.of(found);
  }

  private static String explanation(double cSlope, double qSlope, double nearest) {
    if (nearest == Double.POSITIVE_INFINITY) {
      return String.format(
          Locale.ROOT,
          "leaky_relu cannot meet C(0) = 0 and C'(1) = %.10g with any slope in [0, 1] and input"
              + " shift up to 12 either way",
          cSlope);
    }
    return String.format(
        Locale.ROOT,
        "leaky_relu cannot meet Q'(1) = %.10g together with C(0) = 0 and C'(1) = %.10g: wherever"
            + " those hold, with slopes in [0, 1] and input shifts up to 12 either way, it comes no"
            + " nearer than %.6g",
        qSlope,
        cSlope,
        qSlope + nearest);
  }

  private static @Nullable TransformedActivation refine(
      DoubleUnaryOperator error, double left, double right, double cSlope, boolean larger) {
    double b;
    try {
      b =
          new BracketingNthOrderBrentSolver(1e-15, 1e-15, 1e-300, 5)
              .solve(MAX_EVALUATIONS, error::applyAsDouble, left, right, AllowedSolution.ANY_SIDE);
    } catch (MathRuntimeException e) {
      return null;
    }
    if (Math.abs(b) < 1e-9 && Math.abs(error.applyAsDouble(0)) <= 1e-13) {
      b = 0; // for Q'(1) = 1 it is a solution, as a leaky ReLU without shift is homogeneous
    }
    ShiftedRectifier rectifier = at(b);
    double slope = rectifier.slopeFor(cSlope, larger);
    if (!(Math.abs(error.applyAsDouble(b)) <= 1e-9)) {
      return null;
    }
    return new TransformedActivation(
        Activation.LEAKY_RELU,
        1,
        b,
        1 / Math.sqrt(rectifier.variance(slope)),
        -rectifier.mean(slope),
        slope);
  }

  private double mean(double slope) {
    return positiveMean + slope * negativeMean;
  }

  private double variance(double slope) {
    // Var P + slope^2 Var N + 2 slope Cov(P, N), and P N = 0.
    return positiveSquare
        - positiveMean * positiveMean
        + slope * slope * (negativeSquare - negativeMean * negativeMean)
        - 2 * slope * positiveMean * negativeMean;
  }

  private double cSlope(double slope) {
    return (positiveMass + slope * slope * (1 - positiveMass)) / variance(slope);
  }

  /** Q'(1) = E[(f - E f) f' z] / Var f. */
  private double qSlope(double slope) {
    double product =
        positiveSquare
            - b * positiveMean
            + slope * slope * (negativeSquare - b * negativeMean)
            - mean(slope) * density * (1 - slope);
    return product / variance(slope);
  }

  /**
   * The slope in [0, 1] that gives C'(1), a root of a quadratic equation; NaN if it has none there.
   * Slopes above 1 are mirror images of these.
   */
  private double slopeFor(double cSlope, boolean larger) {
    double quadratic = (1 - positiveMass) - cSlope * (negativeSquare - negativeMean * negativeMean);
    double halfLinear = cSlope * positiveMean * negativeMean;
    double constant = positiveMass - cSlope * (positiveSquare - positiveMean * positiveMean);
    double root = Math.sqrt(halfLinear * halfLinear - quadratic * constant);
    double sum = -(halfLinear + Math.copySign(root, halfLinear));
    double first = sum / quadratic;
    double second = constant / sum;
    double slope = larger ? Math.max(first, second) : Math.min(first, second);
    return slope >= 0 && slope <= 1 ? slope : Double.NaN;
  }
}
