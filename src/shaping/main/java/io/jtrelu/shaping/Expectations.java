package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;

/**
 * What the local conditions need to know of psi(z) = phi(a z + b) - phi(b), z ~ N(0, 1). Taking
 * phi(b) away first keeps the digits of the variance where a is small.
 *
 * @param a input scale
 * @param b input shift
 * @param origin phi(b)
 * @param mean E[psi]
 * @param variance E[psi^2] - E[psi]^2
 * @param slope E[psi'^2]
 * @param curvature E[psi''^2]
 * @param product E[psi psi' z]
 * @param slopeZ E[psi' z]
 */
record Expectations(
    double a,
    double b,
    double origin,
    double mean,
    double variance,
    double slope,
    double curvature,
    double product,
    double slopeZ) {

  static Expectations of(
      ActivationFunction phi, double[] breakpoints, double a, double b, GaussianNodes.Grade grade) {
    GaussianNodes nodes = GaussianNodes.of(a, b, breakpoints, grade);
    double[] zs = nodes.z();
    double[] weights = nodes.weight();
    double origin = phi.value(b);
    double[] jet = new double[3];
    double mean = 0;
    double square = 0;
    double slope = 0;
    double curvature = 0;
    double product = 0;
    double slopeZ = 0;
    for (int i = 0; i < zs.length; i++) {
      double z = zs[i];
      double w = weights[i];
      double u = a * z + b;
      phi.evaluate(u, jet);
      double value = jet[0] - origin;
      double first = jet[1];
      mean += w * value;
      square += w * value * value;
      slope += w * first * first;
      product += w * value * first * z;
      slopeZ += w * first * z;
      curvature += w * jet[2] * jet[2];
    }
    return new Expectations(
        a,
        b,
        origin,
        mean,
        square - mean * mean,
        a * a * slope,
        a * a * a * a * curvature,
        a * product,
        a * slopeZ);
  }
}
