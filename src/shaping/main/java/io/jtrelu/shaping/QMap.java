package io.jtrelu.shaping;

import io.jtrelu.activation.TransformedActivation;

/**
 * What a shaped activation phi does to q, the mean square of a normal signal: Q(q) = E[phi(sqrt(q)
 * z)^2], z ~ N(0, 1).
 */
public final class QMap {
  /** Where a map is compared with the identity. */
  private static final double[] AROUND = {0.5, Math.sqrt(0.5), Math.sqrt(2), 2};

  private QMap() {}

  /** Q(q), for q above 0. */
  public static double at(TransformedActivation phi, double q) {
    double root = Math.sqrt(q);
    GaussianNodes nodes =
        GaussianNodes.of(phi.inputScale() * root, phi.inputShift(), phi.function().breakpoints());
    double sum = 0;
    for (int i = 0; i < nodes.z().length; i++) {
      double value = phi.value(root * nodes.z()[i]);
      sum += nodes.weight()[i] * value * value;
    }
    return sum;
  }

  /**
   * How far the map is from the identity about q = 1: the largest |log(Q(q) / q)| at q = 1/2,
   * 1/sqrt(2), sqrt(2) and 2. At finite widths q does not stay 1, and what a layer adds to its
   * departure adds up over depth. 0 for a tailored rectifier.
   */
  public static double departure(TransformedActivation phi) {
    double largest = 0;
    for (double q : AROUND) {
      largest = Math.max(largest, Math.abs(Math.log(at(phi, q) / q)));
    }
    return largest;
  }
}
