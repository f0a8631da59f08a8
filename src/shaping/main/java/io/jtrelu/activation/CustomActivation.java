package io.jtrelu.activation;

import java.util.Arrays;
import java.util.function.DoubleUnaryOperator;

/** An activation function that the caller supplied. */
final class CustomActivation implements ActivationFunction {
  private final String name;
  private final DoubleUnaryOperator value;
  private final DoubleUnaryOperator derivative;
  private final DoubleUnaryOperator secondDerivative;
  private final double[] breakpoints;
  private final boolean kinked;

  CustomActivation(
      String name,
      DoubleUnaryOperator value,
      DoubleUnaryOperator derivative,
      DoubleUnaryOperator secondDerivative,
      double[] breakpoints,
      boolean kinked) {
    this.name = name;
    this.value = value;
    this.derivative = derivative;
    this.secondDerivative = secondDerivative;
    this.breakpoints = breakpoints.clone();
    Arrays.sort(this.breakpoints);
    this.kinked = kinked;
  }

  @Override
  public String activationName() {
    return name;
  }

  @Override
  public double value(double x) {
    return value.applyAsDouble(x);
  }

  @Override
  public double derivative(double x) {
    return derivative.applyAsDouble(x);
  }

  @Override
  public double secondDerivative(double x) {
    return secondDerivative.applyAsDouble(x);
  }

  @Override
  public double[] breakpoints() {
    return breakpoints.clone();
  }

  @Override
  public boolean isKinked() {
    return kinked;
  }

  @Override
  public String toString() {
    return name;
  }
}
