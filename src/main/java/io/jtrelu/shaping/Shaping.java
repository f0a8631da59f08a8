package io.jtrelu.shaping;

import java.util.List;

/**
 * The outcome of a {@link ShapingMethod}.
 *
 * @param method the method with its targets
 * @param activation the shaped activation
 * @param activations number of activations on the network's longest path
 * @param target the network-level target
 * @param achieved the network-level value, for TAT with leaky_relu M_f,C(0)
 * @param moments Q, C and their derivatives at 1, C(0) and the fourth moment
 * @param residual the largest violation of a condition
 * @param alternatives other solutions in order of rising fourth moment; empty where it is unique
 */
public record Shaping(
    ShapingMethod method,
    TransformedActivation activation,
    int activations,
    double target,
    double achieved,
    Moments moments,
    double residual,
    List<TransformedActivation> alternatives) {

  public Shaping {
    alternatives = List.copyOf(alternatives);
  }
}
