package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;

/**
 * Edge of chaos (arXiv 1611.01232): the activation stays as it is; the variance of the weights is
 * such that, with the given variance of the biases,
 *
 * <pre>
 *   chi_1 = sigma_w^2 E[phi'(sqrt(q*) z)^2] = 1,   q* = sigma_w^2 E[phi(sqrt(q*) z)^2] + sigma_b^2
 * </pre>
 *
 * <p>so that q* solves q - E[phi^2] / E[phi'^2] = sigma_b^2. Of several solutions it takes an
 * attracting q* before others, and then the smallest. For relu and leaky_relu the left side is zero
 * for every q: sigma_b^2 must be 0, sigma_w^2 = 2 / (1 + a^2), and q* is whatever the input has,
 * here 1.
 *
 * @param sigmaB2 variance of the biases, not negative
 */
public record Eoc(double sigmaB2) implements ShapingMethod {
  private static final double LEAST_Q = 1e-6;
  private static final double GREATEST_Q = 1e6;
  private static final int STEPS = 120;
  private static final int MAX_EVALUATIONS = 200;

  /**
   * @throws IllegalArgumentException if the variance is negative or not finite
   */
  public Eoc {
    if (!(sigmaB2 >= 0 && sigmaB2 < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "sigmaB2, the variance of the biases, must be finite and not negative, but is "
              + sigmaB2);
    }
  }

  @Override
  public String methodName() {
    return "eoc";
  }

  @Override
  public Shaping solve(SignalGraph graph, ActivationFunction activation) {
    graph.requireShapeable("EOC");
    EdgeOfChaos edge = edge(activation);
    TransformedActivation unchanged = TransformedActivation.unchanged(activation);
    EdgeOfChaos.Level check = EdgeOfChaos.Level.independent(activation, edge.qStar());
    double chi1 = edge.sigmaW2() * check.slope();
    double achieved = graph.maximum(y -> chi1 * y, 1);
    double residual =
        Tat.largest(
            chi1 - 1, edge.sigmaW2() * check.square() + sigmaB2 - edge.qStar(), achieved - 1);
    return new Shaping(
        this,
        unchanged,
        graph.activations(),
        1,
        achieved,
        Moments.of(unchanged),
        residual,
        List.of(),
        edge);
  }

  private EdgeOfChaos edge(ActivationFunction activation) {
    double[] q = new double[STEPS + 1];
    double[] bias = new double[STEPS + 1];
    double least = Double.POSITIVE_INFINITY;
    double greatest = Double.NEGATIVE_INFINITY;
    double largestRelative = 0;
    for (int i = 0; i <= STEPS; i++) {
      q[i] = LEAST_Q * Math.pow(GREATEST_Q / LEAST_Q, (double) i / STEPS);
      bias[i] = biasFor(activation, q[i]);
      least = Math.min(least, bias[i]);
      greatest = Math.max(greatest, bias[i]);
      largestRelative = Math.max(largestRelative, Math.abs(bias[i]) / q[i]);
    }
    if (largestRelative < 1e-12) { // zero throughout, but for rounding
      if (sigmaB2 == 0) {
        return at(activation, 1);
      }
      throw infeasible(activation, 0, "; a bias would make q grow without bound");
    }
    List<EdgeOfChaos> found = new ArrayList<>();
    for (int i = 1; i <= STEPS; i++) {
      if ((bias[i] - sigmaB2) * (bias[i - 1] - sigmaB2) < 0) {
        double root =
            new BracketingNthOrderBrentSolver(1e-15, 1e-300, 1e-300, 5)
                .solve(
                    MAX_EVALUATIONS,
                    x -> biasFor(activation, x) - sigmaB2,
                    q[i - 1],
                    q[i],
                    AllowedSolution.ANY_SIDE);
        found.add(at(activation, root));
      }
    }
    if (sigmaB2 == 0 && activation.value(0) == 0 && activation.derivative(0) != 0) {
      // Attracting or not, q* = 0 is the edge that has been called critical initialisation.
      found.add(0, at(activation, 0));
    }
    for (EdgeOfChaos edge : found) {
      if (edge.qSlope() < 1) {
        return edge;
      }
    }
    if (!found.isEmpty()) {
      return found.get(0);
    }
    if (greatest < 0) {
      throw new NoSolutionException(
          activation.activationName()
              + " has no edge of chaos: at chi_1 = 1 its q has no fixed point, whatever the variance"
              + " of the biases");
    }
    throw infeasible(activation, sigmaB2 > greatest ? greatest : Math.max(0, least), "");
  }

  private EdgeOfChaos at(ActivationFunction activation, double q) {
    return EdgeOfChaos.at(activation, 1 / EdgeOfChaos.Level.at(activation, q).slope(), sigmaB2, q);
  }

  /** The sigma_b^2 with which q is the fixed point at the edge of chaos. */
  private static double biasFor(ActivationFunction activation, double q) {
    EdgeOfChaos.Level level = EdgeOfChaos.Level.at(activation, q);
    return q - level.square() / level.slope();
  }

  private InfeasibleTargetException infeasible(
      ActivationFunction activation, double attainable, String why) {
    return new InfeasibleTargetException(
        String.format(
            Locale.ROOT,
            "%s has no edge of chaos at sigma_b^2 = %.6g: the nearest that has one, over q* from"
                + " 1e-6 to 1e6, is %.6g%s",
            activation.activationName(),
            sigmaB2,
            attainable,
            why),
        sigmaB2,
        attainable,
        0);
  }
}
