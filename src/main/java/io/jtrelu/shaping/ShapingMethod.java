package io.jtrelu.shaping;

/** A way of choosing an activation's parameters for a network. */
public sealed interface ShapingMethod permits Tat {

  /** The name used in results and on the command line. */
  String methodName();

  /**
   * Parameters for the activation in the given network.
   *
   * @throws ShapingException if there are none: {@link InfeasibleTargetException} where the network
   *     cannot reach the target, {@link UnsuitableActivationException} where the method cannot be
   *     used with the activation, {@link NoSolutionException} where the activation cannot meet the
   *     local conditions
   */
  Shaping solve(SignalGraph graph, ActivationFunction activation);
}
