package io.jtrelu.shaping;

import io.jtrelu.activation.TransformedActivation;

/**
 * Expectations of a transformed activation over z ~ N(0, 1) that shaping controls.
 *
 * @param q Q(1) = E[phi^2]
 * @param qSlope Q'(1) = E[phi phi' z]
 * @param c0 C(0) = E[phi]^2 / Q(1)
 * @param cSlope C'(1) = E[phi'^2] / Q(1)
 * @param cCurvature C''(1) = E[phi''^2] / Q(1); infinite if phi' jumps
 * @param fourth E[phi^4] / Q(1)^2, which sets the fluctuation of q at finite width
 */
public record Moments(
    double q, double qSlope, double c0, double cSlope, double cCurvature, double fourth) {

  /**
   * By a double exponential rule, which the solvers do not use.
   *
   * @return the moments of the activation; not finite where the function is not
   */
  public static Moments of(TransformedActivation activation) {
    GaussianNodes nodes =
        GaussianNodes.independent(
            activation.inputScale(), activation.inputShift(), activation.function().breakpoints());
    double mean = 0;
    double q = 0;
    double product = 0;
    double slope = 0;
    double curvature = 0;
    double fourth = 0;
    for (int i = 0; i < nodes.z().length; i++) {
      double z = nodes.z()[i];
      double w = nodes.weight()[i];
      double value = activation.value(z);
      double first = activation.derivative(z);
      double second = activation.secondDerivative(z);
      mean += w * value;
      q += w * value * value;
      product += w * value * first * z;
      slope += w * first * first;
      curvature += w * second * second;
      fourth += w * value * value * value * value;
    }
    boolean finite = !activation.function().isKinked() || activation.isAffine();
    return new Moments(
        q,
        product,
        mean * mean / q,
        slope / q,
        finite ? curvature / q : Double.POSITIVE_INFINITY,
        fourth / (q * q));
  }
}
