package io.jtrelu.shaping;

import io.jtrelu.activation.TransformedActivation;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The outcome of a {@link ShapingMethod}.
 *
 * @param method the method with its targets
 * @param activation the shaped activation
 * @param activations number of activations on the network's longest path
 * @param target the network-level target: eta, tau or zeta; for EOC 1, the slope of the C map at 1
 *     through the whole network; for none equal to achieved
 * @param achieved the network-level value: M_f,C(0) for TAT with leaky_relu; C_f(0) for none;
 *     M_f,r(0) with r(y) = y + C''(1) for TAT; M_f,r(1) with r(y) = C'(1) y for DKS, and for EOC
 *     with chi_1
 * @param moments the local values achieved, evaluated by a quadrature that the solver does not use
 *     (in closed form for TAT with leaky_relu)
 * @param residual the largest violation of a condition, local or of the whole network
 * @param alternatives the other solutions, those first whose Q map departs less from the identity
 *     ({@link QMap#departure}); empty where it is unique. {@link Solution} takes one by its number
 * @param edgeOfChaos for EOC the variances of weights and biases and what follows; else null
 */
public record Shaping(
    ShapingMethod method,
    TransformedActivation activation,
    int activations,
    double target,
    double achieved,
    Moments moments,
    double residual,
    List<TransformedActivation> alternatives,
    @Nullable EdgeOfChaos edgeOfChaos) {

  public Shaping {
    alternatives = List.copyOf(alternatives);
  }
}
