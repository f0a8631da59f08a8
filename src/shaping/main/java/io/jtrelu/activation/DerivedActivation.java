package io.jtrelu.activation;

import java.util.function.UnaryOperator;
import org.hipparchus.analysis.differentiation.UnivariateDerivative2;

/** A smooth function whose derivatives are obtained by automatic differentiation. */
final class DerivedActivation implements ActivationFunction {
  private final String name;
  private final UnaryOperator<UnivariateDerivative2> function;

  DerivedActivation(String name, UnaryOperator<UnivariateDerivative2> function) {
    this.name = name;
    this.function = function;
  }

  @Override
  public String activationName() {
    return name;
  }

  @Override
  public double value(double x) {
    return at(x).getValue();
  }

  @Override
  public double derivative(double x) {
    return at(x).getFirstDerivative();
  }

  @Override
  public double secondDerivative(double x) {
    return at(x).getSecondDerivative();
  }

  @Override
  public void evaluate(double x, double[] dst) {
    UnivariateDerivative2 y = at(x);
    dst[0] = y.getValue();
    dst[1] = y.getFirstDerivative();
    dst[2] = y.getSecondDerivative();
  }

  private UnivariateDerivative2 at(double x) {
    return function.apply(new UnivariateDerivative2(x, 1, 0));
  }

  @Override
  public String toString() {
    return name;
  }
}
