package io.jtrelu.activation;

import java.util.function.DoubleUnaryOperator;
import java.util.function.UnaryOperator;
import org.hipparchus.analysis.differentiation.UnivariateDerivative2;

/**
 * An elementwise function phi with its first two derivatives. {@link Activation} has the usual
 * ones; {@link #of} makes one from three functions and {@link #derived} from one function whose
 * derivatives are obtained by automatic differentiation.
 *
 * <p>phi is expected to be continuous, and smooth between its {@link #breakpoints()}; expectations
 * are integrated piece by piece between them. It must not grow faster than a polynomial.
 * Implementations are immutable and safe for use by several threads.
 */
public interface ActivationFunction {

  /** The name used in results and on the command line, such as {@code leaky_relu}. */
  String activationName();

  /** phi(x). */
  double value(double x);

  /** phi'(x); at a kink the value from the left, as in PyTorch: 0 for ReLU at 0. */
  double derivative(double x);

  /** phi''(x); at a breakpoint the value from the right. */
  double secondDerivative(double x);

  /**
   * phi(x), phi'(x) and phi''(x) together, for functions whose parts share work.
   *
   * @param dst receives the three
   */
  default void evaluate(double x, double[] dst) {
    dst[0] = value(x);
    dst[1] = derivative(x);
    dst[2] = secondDerivative(x);
  }

  /**
   * Whether {@link #derivativeFromValue} is defined.
   *
   * @return false unless overridden
   */
  default boolean derivativeFollowsFromValue() {
    return false;
  }

  /**
   * phi'(x) from y = phi(x), for functions whose derivative is a function of their value.
   *
   * @throws UnsupportedOperationException if it is not
   */
  default double derivativeFromValue(double y) {
    throw new UnsupportedOperationException(
        "the derivative of " + activationName() + " does not follow from its value");
  }

  /** The points, in ascending order, at which phi, phi' or phi'' is not smooth. */
  default double[] breakpoints() {
    return new double[0];
  }

  /**
   * Whether phi' jumps somewhere, which makes C''(1) infinite.
   *
   * @return false unless overridden
   */
  default boolean isKinked() {
    return false;
  }

  /** A smooth function with its derivatives. */
  static ActivationFunction of(
      String name,
      DoubleUnaryOperator value,
      DoubleUnaryOperator derivative,
      DoubleUnaryOperator secondDerivative) {
    return new CustomActivation(name, value, derivative, secondDerivative, new double[0], false);
  }

  /**
   * A function with its derivatives that is smooth but for some points.
   *
   * @param kinked whether the first derivative jumps at one of them
   * @param breakpoints the points at which the function or a derivative is not smooth
   */
  static ActivationFunction of(
      String name,
      DoubleUnaryOperator value,
      DoubleUnaryOperator derivative,
      DoubleUnaryOperator secondDerivative,
      boolean kinked,
      double... breakpoints) {
    return new CustomActivation(name, value, derivative, secondDerivative, breakpoints, kinked);
  }

  /**
   * A smooth function whose derivatives are obtained by automatic differentiation:
   *
   * <pre>{@code
   * ActivationFunction.derived("sine", x -> x.sin());
   * }</pre>
   *
   * <p>An evaluation makes some small objects, so that a solve takes one to five times as long as
   * with written-out derivatives: a few milliseconds, and some ten in a process that has just
   * begun.
   */
  static ActivationFunction derived(String name, UnaryOperator<UnivariateDerivative2> function) {
    return new DerivedActivation(name, function);
  }
}
