package io.jtrelu.shaping;

import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;

/**
 * Tailored activation transformation (arXiv 2203.08120).
 *
 * <p>With leaky_relu: the slope a of a {@link TailoredRectifier} such that M_f,C_a(0) = eta, the
 * largest cosine that any subnetwork makes of orthogonal inputs.
 *
 * @param eta target for leaky_relu, in (0, 1)
 * @param tau target for smooth activations, positive
 */
public record Tat(double eta, double tau) implements ShapingMethod {
  /** Default of eta. */
  public static final double DEFAULT_ETA = 0.9;

  /** Default of tau. */
  public static final double DEFAULT_TAU = 0.3;

  private static final int MAX_EVALUATIONS = 200;

  /**
   * @throws IllegalArgumentException if eta is not in (0, 1) or tau is not positive and finite
   */
  public Tat {
    if (!(eta > 0 && eta < 1)) {
      throw new IllegalArgumentException(
          "eta, the target for M(0), must lie strictly between 0 and 1, but is " + eta);
    }
    if (!(tau > 0 && tau < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "tau, the target for the curvature, must be positive and finite, but is " + tau);
    }
  }

  /** With both targets at their defaults. */
  public Tat() {
    this(DEFAULT_ETA, DEFAULT_TAU);
  }

  /** For leaky_relu with the given target. */
  public static Tat eta(double eta) {
    return new Tat(eta, DEFAULT_TAU);
  }

  /** For smooth activations with the given target. */
  public static Tat tau(double tau) {
    return new Tat(DEFAULT_ETA, tau);
  }

  @Override
  public String methodName() {
    return "tat";
  }

  @Override
  public Shaping solve(SignalGraph graph, ActivationFunction activation) {
    if (activation == Activation.LEAKY_RELU) {
      return rectifier(graph);
    }
    throw new UnsuitableActivationException(
        activation.activationName(), "TAT for smooth activations is not there yet");
  }

  private Shaping rectifier(SignalGraph graph) {
    // Solved in the curvature coefficient k, in which M is smooth up to the end; a is not, as
    // dk/da = 0 at a = 1. And in e = 1 - c, so that eta close to 1 keeps its digits.
    double most = 1 / Math.PI;
    double attainable = 1 - leastE(graph, most);
    if (eta > attainable) {
      throw unreachable(graph, attainable);
    }
    double k =
        new BracketingNthOrderBrentSolver(1e-15, 1e-300, 1e-15, 5)
            .solve(
                MAX_EVALUATIONS,
                x -> leastE(graph, x) - (1 - eta),
                0,
                most,
                AllowedSolution.ANY_SIDE);
    TailoredRectifier rectifier = TailoredRectifier.ofCurvature(k);
    double achieved = 1 - graph.minimum(rectifier::e, 1);
    return new Shaping(
        this,
        TransformedActivation.of(rectifier),
        graph.activations(),
        eta,
        achieved,
        rectifier.moments(),
        Math.abs(achieved - eta),
        java.util.List.of());
  }

  /** 1 - M_f,C(0) for the rectifier with curvature coefficient k. */
  private static double leastE(SignalGraph graph, double k) {
    return graph.minimum(e -> TailoredRectifier.e(k, e), 1);
  }

  private InfeasibleTargetException unreachable(SignalGraph graph, double attainable) {
    String found =
        String.format(
            java.util.Locale.ROOT,
            "TAT cannot reach M(0) = %.10g: with the negative slope at 0, the most that leaky_relu"
                + " can bend, this network of %d activations has M(0) = %.10g. ",
            eta,
            graph.activations(),
            attainable);
    if (!graph.isChain()) {
      return new InfeasibleTargetException(
          found + "Ask for less, make the network deeper or the shortcut weights smaller.",
          eta,
          attainable,
          0);
    }
    int depth = 0;
    for (double e = 1; 1 - e < eta; depth++) {
      e = TailoredRectifier.e(1 / Math.PI, e);
    }
    return new InfeasibleTargetException(
        found + "A plain chain reaches it from " + depth + " activations on. Or ask for less.",
        eta,
        attainable,
        depth);
  }
}
