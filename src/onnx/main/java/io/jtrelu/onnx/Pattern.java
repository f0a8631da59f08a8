package io.jtrelu.onnx;

import io.jtrelu.activation.Activation;
import io.jtrelu.onnx.schema.NodeProto;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** Finds activation functions that are several operators in a graph; see {@link Expression}. */
final class Pattern {
  /** A function and the name of the value that it is applied to. */
  record Match(Activation function, String x) {}

  /** The operator that gives a value; null where none does. */
  private final Function<String, @Nullable NodeProto> producer;

  /** The value of a scalar of the file; NaN for anything else. */
  private final Function<String, Double> scalar;

  Pattern(Function<String, @Nullable NodeProto> producer, Function<String, Double> scalar) {
    this.producer = producer;
    this.scalar = scalar;
  }

  /** The function whose last operator a node is, if it has several. */
  @Nullable Match find(NodeProto node) {
    for (Activation function : Activation.values()) {
      if (Expression.of(function) instanceof Expression.Apply apply
          && apply.operator().equals(node.getOpType())
          && !apply.arguments().equals(List.of(Expression.X))
          && node.getOutputCount() == 1) {
        String x = match(apply, node.getOutput(0), "");
        if (x != null) {
          return new Match(function, x);
        }
      }
    }
    return null;
  }

  /**
   * @param x the value that the input stands for; empty while nothing is known
   * @return the same, or what was found out; null if the expression is another one
   */
  private @Nullable String match(Expression expression, String value, String x) {
    return switch (expression) {
      case Expression.Input ignored -> {
        boolean variable = Double.isNaN(scalar.apply(value));
        yield variable && (x.isEmpty() || x.equals(value)) ? value : null;
      }
      case Expression.Constant constant -> {
        double difference = scalar.apply(value) - constant.value();
        yield Math.abs(difference) <= 1e-5 * Math.abs(constant.value()) ? x : null;
      }
      case Expression.Apply apply -> {
        NodeProto node = producer.apply(value);
        if (node == null
            || !node.getOpType().equals(apply.operator())
            || !node.getDomain().isEmpty()
            || node.getAttributeCount() > 0
            || node.getInputCount() != apply.arguments().size()) {
          yield null;
        }
        String found = match(apply.arguments(), node.getInputList(), x);
        yield found == null && apply.commutes()
            ? match(apply.arguments(), node.getInputList().reversed(), x)
            : found;
      }
    };
  }

  private @Nullable String match(List<Expression> arguments, List<String> values, String x) {
    String found = x;
    for (int i = 0; found != null && i < arguments.size(); i++) {
      found = match(arguments.get(i), values.get(i), found);
    }
    return found;
  }
}
