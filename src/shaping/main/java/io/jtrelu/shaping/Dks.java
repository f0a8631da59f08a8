package io.jtrelu.shaping;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.List;
import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;

/**
 * Deep kernel shaping (arXiv 2110.01765): Q(1) = 1, Q'(1) = qSlope, C(0) = 0 and C'(1) = s, where s
 * is such that M_f,r(1) = zeta with r(y) = s y: the largest slope at 1 that the C map of any
 * subnetwork has.
 *
 * <p>leaky_relu is solved for its negative slope and input shift, the input scale being without
 * effect. relu has one parameter too few: Q'(1) is left free, and the input shift is 1 or -1.
 *
 * @param zeta target for the network, above 1
 * @param qSlope target for the local Q'(1)
 */
public record Dks(double zeta, double qSlope) implements ShapingMethod {
  /** Default of zeta. */
  public static final double DEFAULT_ZETA = 1.5;

  private static final int MAX_EVALUATIONS = 500;

  /**
   * @throws IllegalArgumentException if zeta is not above 1 and finite, or qSlope not positive and
   *     finite
   */
  public Dks {
    if (!(zeta > 1 && zeta < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "zeta, the target for the slope C'(1) of the network, must be finite and above 1, as every"
              + " nonlinear C map with C(0) = 0 has a slope above 1, but is "
              + zeta);
    }
    if (!(qSlope > 0 && qSlope < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "qSlope, the target for the local Q'(1), must be positive and finite, but is " + qSlope);
    }
  }

  /** With the given zeta and Q'(1) = 1. */
  public Dks(double zeta) {
    this(zeta, 1);
  }

  /** With the defaults. */
  public Dks() {
    this(DEFAULT_ZETA);
  }

  @Override
  public String methodName() {
    return "dks";
  }

  @Override
  public Shaping solve(SignalGraph graph, ActivationFunction activation) {
    return solve(graph, activation, 1);
  }

  /** The solution of a number, from 1. */
  Shaping solve(SignalGraph graph, ActivationFunction activation, int number) {
    graph.requireShapeable("DKS");
    Tat.requireActivation(graph);
    double excess = localExcess(graph);
    List<TransformedActivation> solutions =
        SolutionOrder.from(solutions(activation, excess), number, this, activation);
    TransformedActivation best = solutions.get(0);
    Moments moments = Moments.of(best);
    double achieved = graph.maximum(y -> moments.cSlope() * y, 1);
    double residual =
        Tat.largest(
            moments.q() - 1,
            activation == Activation.RELU ? 0 : moments.qSlope() - qSlope,
            moments.c0(),
            moments.cSlope() - 1 - excess,
            achieved - zeta);
    return new Shaping(
        this,
        best,
        graph.activations(),
        zeta,
        achieved,
        moments,
        residual,
        solutions.subList(1, solutions.size()),
        null);
  }

  private List<TransformedActivation> solutions(ActivationFunction activation, double excess) {
    if (activation == Activation.RELU) {
      return List.of(ShiftedRectifier.relu(1 + excess));
    }
    if (activation == Activation.LEAKY_RELU) {
      return ShiftedRectifier.leakyRelu(1 + excess, qSlope);
    }
    if (activation == Activation.SQUARE) {
      throw new NoSolutionException(
          "square cannot meet the conditions of DKS: with C(0) = 0 its Q'(1) equals C'(1), which"
              + " would have to be both "
              + qSlope
              + " and "
              + (1 + excess));
    }
    return new LocalSolver(activation, false, excess, qSlope).solve();
  }

  /** s - 1; in this form it keeps its digits in deep networks. */
  private double localExcess(SignalGraph graph) {
    // An activation alone is a subnetwork, so s <= zeta. In deep networks zeta^depth overflows.
    double high = zeta - 1;
    while (!(maximum(graph, high) < 1e9 * zeta)) {
      high /= 2;
    }
    if (maximum(graph, high) < zeta) {
      high *= 2;
    }
    if (maximum(graph, high) <= zeta) {
      return high;
    }
    return new BracketingNthOrderBrentSolver(1e-15, 1e-300, 1e-15, 5)
        .solve(
            MAX_EVALUATIONS,
            x -> Math.log(maximum(graph, x) / zeta),
            0,
            high,
            AllowedSolution.ANY_SIDE);
  }

  private static double maximum(SignalGraph graph, double excess) {
    return graph.maximum(y -> y + excess * y, 1);
  }
}
