package io.jtrelu.shaping;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.List;
import java.util.Locale;
import org.hipparchus.analysis.solvers.AllowedSolution;
import org.hipparchus.analysis.solvers.BracketingNthOrderBrentSolver;

/**
 * Tailored activation transformation (arXiv 2203.08120).
 *
 * <p>With leaky_relu: the slope a of a {@link TailoredRectifier} such that M_f,C_a(0) = eta, the
 * largest cosine that any subnetwork makes of orthogonal inputs. It is solved to rounding, in time
 * linear in the network.
 *
 * <p>With smooth activations: Q(1) = 1, Q'(1) = 1, C'(1) = 1 and C''(1) = t, where t is such that
 * M_f,r(0) = tau with r(y) = y + t: the largest second derivative at 1 that the C map of any
 * subnetwork has. Kinked activations (relu, leaky_relu, selu) have C''(1) infinite.
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

  /** Depth up to which a chain that reaches the target is looked for. */
  private static final int DEEPEST = 1_000_000;

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
    return solve(graph, activation, 1);
  }

  /** The solution of a number, from 1. */
  Shaping solve(SignalGraph graph, ActivationFunction activation, int number) {
    graph.requireShapeable("TAT");
    if (activation == Activation.LEAKY_RELU) {
      SolutionOrder.requireNumber(number, 1, this, activation);
      return rectifier(graph);
    }
    return smooth(graph, activation, number);
  }

  private Shaping smooth(SignalGraph graph, ActivationFunction activation, int number) {
    String name = activation.activationName();
    if (activation == Activation.RELU) {
      throw new UnsuitableActivationException(
          name,
          "TAT has no parameter to turn for relu, and C''(1) is infinite; use leaky_relu, of which"
              + " relu is the case of slope 0");
    }
    if (activation.isKinked()) {
      throw new UnsuitableActivationException(
          name,
          name
              + " has a kink, which makes C''(1) infinite, and TAT bounds C''(1); use DKS, a smooth"
              + " activation, or leaky_relu, for which TAT has another condition");
    }
    if (activation == Activation.SQUARE) {
      throw new NoSolutionException(
          "square cannot meet the conditions of TAT: its third Hermite coefficient is zero, so that"
              + " C'(1) = 1 and Q'(1) = 1 leave only C''(1) = 0");
    }
    requireActivation(graph);
    // M is linear in t, so that one evaluation solves for it.
    double perUnit = graph.maximum(y -> y + 1, 0);
    double local = tau / perUnit;
    List<TransformedActivation> solutions =
        SolutionOrder.from(
            new LocalSolver(activation, true, local, 1).solve(), number, this, activation);
    TransformedActivation best = solutions.get(0);
    Moments moments = Moments.of(best);
    double achieved = graph.maximum(y -> y + moments.cCurvature(), 0);
    double residual =
        largest(
            moments.q() - 1,
            moments.qSlope() - 1,
            moments.cSlope() - 1,
            moments.cCurvature() - local,
            achieved - tau);
    return new Shaping(
        this,
        best,
        graph.activations(),
        tau,
        achieved,
        moments,
        residual,
        solutions.subList(1, solutions.size()),
        null);
  }

  static void requireActivation(SignalGraph graph) {
    if (graph.activations() == 0) {
      throw new IllegalArgumentException(
          "the network has no activation on its way, so there is nothing to shape");
    }
  }

  /** The largest absolute value; NaN if one is. */
  static double largest(double... errors) {
    double largest = 0;
    for (double e : errors) {
      largest = Math.max(largest, Math.abs(e));
    }
    return largest;
  }

  private Shaping rectifier(SignalGraph graph) {
    requireActivation(graph);
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
        rectifier.transformed(),
        graph.activations(),
        eta,
        achieved,
        rectifier.moments(),
        Math.abs(achieved - eta),
        List.of(),
        null);
  }

  /** 1 - M_f,C(0) for the rectifier with curvature coefficient k. */
  private static double leastE(SignalGraph graph, double k) {
    return graph.minimum(e -> TailoredRectifier.e(k, e), 1);
  }

  private InfeasibleTargetException unreachable(SignalGraph graph, double attainable) {
    String found =
        String.format(
            Locale.ROOT,
            "TAT cannot reach M(0) = %s: with the negative slope at 0, the most that leaky_relu"
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
    double e = 1;
    while (1 - e < eta && depth < DEEPEST) {
      e = TailoredRectifier.e(1 / Math.PI, e);
      depth++;
    }
    if (1 - e < eta) {
      return new InfeasibleTargetException(
          found
              + String.format(
                  Locale.ROOT,
                  "A plain chain of %d activations has M(0) = %.16g at most. Ask for less.",
                  DEEPEST,
                  1 - e),
          eta,
          attainable,
          0);
    }
    return new InfeasibleTargetException(
        found + "A plain chain reaches it from " + depth + " activations on. Or ask for less.",
        eta,
        attainable,
        depth);
  }
}
