package io.jtrelu.onnx;

import io.jtrelu.activation.Activation;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What an activation function is in ONNX: operators over its input and constants. One definition
 * for the exporter, which writes it, and the importer, which recognises it.
 */
sealed interface Expression {
  /** The function's input. */
  Expression X = new Input();

  /** The function's input. */
  record Input() implements Expression {}

  /** A scalar. */
  record Constant(double value) implements Expression {}

  /** An operator's result. */
  record Apply(String operator, List<Expression> arguments) implements Expression {
    /** Whether arguments may be swapped. */
    boolean commutes() {
      return operator.equals("Add") || operator.equals("Mul");
    }
  }

  /**
   * phi(x), unscaled; null for the rectifiers, which are operators with a slope.
   *
   * <p>The two GELUs are in the form that runtimes know and fuse.
   */
  static @Nullable Expression of(Activation function) {
    return switch (function) {
      case LEAKY_RELU, RELU -> null;
      case TANH -> apply("Tanh", X);
      case SOFTPLUS -> apply("Softplus", X);
      case SELU -> apply("Selu", X);
      case ELU -> apply("Elu", X);
      case SWISH -> apply("Mul", X, apply("Sigmoid", X));
      case SIGMOID -> apply("Sigmoid", X);
      case ERF -> apply("Erf", X);
      case BENTID ->
          apply(
              "Add",
              X,
              apply(
                  "Mul",
                  apply(
                      "Add",
                      apply("Sqrt", apply("Add", apply("Mul", X, X), constant(1))),
                      constant(-1)),
                  constant(0.5)));
      case ATAN -> apply("Atan", X);
      case ASINH -> apply("Asinh", X);
      case SQUARE -> apply("Mul", X, X);
      case SOFTSIGN -> apply("Softsign", X);
      case GELU ->
          apply(
              "Mul",
              apply("Mul", X, constant(0.5)),
              apply(
                  "Add",
                  apply(
                      "Tanh",
                      apply(
                          "Mul",
                          apply(
                              "Add",
                              X,
                              apply("Mul", apply("Pow", X, constant(3)), constant(0.044715))),
                          constant(Math.sqrt(2 / Math.PI)))),
                  constant(1)));
      case GELU_EXACT ->
          apply(
              "Mul",
              apply(
                  "Mul",
                  X,
                  apply("Add", apply("Erf", apply("Div", X, constant(Math.sqrt(2)))), constant(1))),
              constant(0.5));
    };
  }

  private static Expression apply(String operator, Expression... arguments) {
    return new Apply(operator, List.of(arguments));
  }

  private static Expression constant(double value) {
    return new Constant(value);
  }
}
