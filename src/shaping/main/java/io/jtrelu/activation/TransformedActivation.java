package io.jtrelu.activation;

import java.util.Arrays;

/**
 * An activation function between affine maps,
 *
 * <pre>
 *   phi_hat(x) = outputScale * (phi(inputScale * x + inputShift) + outputShift)
 * </pre>
 *
 * <p>For {@link Activation#LEAKY_RELU} phi is max(x, 0) + negativeSlope * min(x, 0).
 *
 * @param function phi
 * @param inputScale factor of the input
 * @param inputShift added to the scaled input
 * @param outputScale factor of the shifted output
 * @param outputShift added to phi's value
 * @param negativeSlope slope of leaky_relu below zero; 0 and without meaning for other functions
 */
public record TransformedActivation(
    ActivationFunction function,
    double inputScale,
    double inputShift,
    double outputScale,
    double outputShift,
    double negativeSlope) {

  /** The function as it is: scales 1, shifts 0, and for leaky_relu the default slope. */
  public static TransformedActivation unchanged(ActivationFunction function) {
    double slope = function == Activation.LEAKY_RELU ? Activation.DEFAULT_NEGATIVE_SLOPE : 0;
    return new TransformedActivation(function, 1, 0, 1, 0, slope);
  }

  /** A leaky rectifier with a scale: outputScale * (max(x, 0) + negativeSlope * min(x, 0)). */
  public static TransformedActivation rectifier(double negativeSlope, double outputScale) {
    return new TransformedActivation(Activation.LEAKY_RELU, 1, 0, outputScale, 0, negativeSlope);
  }

  /** Whether this is a leaky ReLU or ReLU with a scale and nothing else, as the kernels fuse it. */
  public boolean isScaledRectifier() {
    return (function == Activation.LEAKY_RELU || function == Activation.RELU)
        && inputScale == 1
        && inputShift == 0
        && outputShift == 0;
  }

  /** Whether it is a leaky ReLU of slope 1. */
  public boolean isAffine() {
    return function == Activation.LEAKY_RELU && negativeSlope == 1;
  }

  /** phi_hat(x). */
  public double value(double x) {
    return outputScale * (phi(inputScale * x + inputShift) + outputShift);
  }

  /** phi_hat'(x); at a kink the value from the left of phi's. */
  public double derivative(double x) {
    return outputScale * inputScale * phiDerivative(inputScale * x + inputShift);
  }

  /** Whether {@link #derivativeFromValue} is defined. */
  public boolean derivativeFollowsFromValue() {
    return function == Activation.LEAKY_RELU
        ? negativeSlope > 0
        : function.derivativeFollowsFromValue();
  }

  /**
   * phi_hat'(x) from y = phi_hat(x).
   *
   * @throws UnsupportedOperationException if it does not follow from it
   */
  public double derivativeFromValue(double y) {
    double value = y / outputScale - outputShift;
    double slope =
        function == Activation.LEAKY_RELU
            ? (value > 0 ? 1 : negativeSlope)
            : function.derivativeFromValue(value);
    return outputScale * inputScale * slope;
  }

  /** phi_hat''(x) where it exists. */
  public double secondDerivative(double x) {
    return outputScale
        * inputScale
        * inputScale
        * function.secondDerivative(inputScale * x + inputShift);
  }

  /** The points at which phi_hat or a derivative is not smooth, ascending. */
  public double[] breakpoints() {
    double[] points = function.breakpoints();
    if (inputScale == 0) {
      return new double[0];
    }
    for (int i = 0; i < points.length; i++) {
      points[i] = (points[i] - inputShift) / inputScale;
    }
    Arrays.sort(points);
    return points;
  }

  private double phi(double x) {
    if (function == Activation.LEAKY_RELU) {
      return x >= 0 ? x : negativeSlope * x;
    }
    return function.value(x);
  }

  private double phiDerivative(double x) {
    if (function == Activation.LEAKY_RELU) {
      return x > 0 ? 1 : negativeSlope;
    }
    return function.derivative(x);
  }
}
