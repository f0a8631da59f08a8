package io.jtrelu.cli;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.nn.Networks;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.Solution;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** The methods, activations and networks that can be named, with a phrase for each. */
final class ShapingNames {
  private ShapingNames() {}

  static String text() {
    StringBuilder text = new StringBuilder();
    append(text, "Methods", methods());
    append(text, "\nActivations", activations());
    text.append("\nNetworks\n  ").append(String.join(", ", Networks.names()));
    return text.toString();
  }

  static ObjectNode json() {
    ObjectNode node = JsonNodeFactory.instance.objectNode();
    add(node.putArray("methods"), methods());
    add(node.putArray("activations"), activations());
    ArrayNode networks = node.putArray("networks");
    Networks.names().forEach(networks::add);
    return node;
  }

  private static void append(StringBuilder text, String title, Map<String, String> phrases) {
    text.append(title).append('\n');
    phrases.forEach(
        (name, phrase) -> text.append(String.format(Locale.ROOT, "  %-11s %s%n", name, phrase)));
  }

  private static void add(ArrayNode array, Map<String, String> phrases) {
    phrases.forEach(
        (name, phrase) -> array.addObject().put("name", name).put("description", phrase));
  }

  private static Map<String, String> methods() {
    Map<String, String> phrases = new LinkedHashMap<>();
    for (String name : ShapingMethod.names()) {
      phrases.put(name, method(ShapingMethod.named(name)));
    }
    return phrases;
  }

  private static Map<String, String> activations() {
    Map<String, String> phrases = new LinkedHashMap<>();
    for (Activation activation : Activation.values()) {
      phrases.put(activation.activationName(), activation(activation));
    }
    return phrases;
  }

  private static String method(ShapingMethod method) {
    return switch (method) {
      case Tat tat ->
          "tailored activation transformation: leaky_relu (--eta) and smooth activations (--tau)";
      case Dks dks -> "deep kernel shaping: smooth activations and leaky_relu (--zeta, --q-slope)";
      case Eoc eoc ->
          "edge of chaos: the activation stays, weights and biases are scaled (--sigma-b2)";
      case Unshaped none -> "the activation as it is";
      case Solution one -> method(one.method());
    };
  }

  private static String activation(Activation activation) {
    return switch (activation) {
      case TANH -> "tanh x";
      case SOFTPLUS -> "log(1 + exp x)";
      case LEAKY_RELU -> "max(x, 0) + a min(x, 0); shaped by tat it is the tailored rectifier";
      case RELU -> "max(x, 0)";
      case SELU -> "elu with the two scales of self-normalising networks";
      case ELU -> "x above 0, else exp x - 1";
      case SWISH -> "x / (1 + exp(-x)), also called SiLU";
      case SIGMOID -> "1 / (1 + exp(-x))";
      case ERF -> "erf x";
      case BENTID -> "bent identity, (sqrt(x^2 + 1) - 1) / 2 + x";
      case ATAN -> "arctan x";
      case ASINH -> "log(x + sqrt(x^2 + 1))";
      case SQUARE -> "x^2";
      case SOFTSIGN -> "x / (1 + |x|)";
      case GELU -> "GELU in its tanh form";
      case GELU_EXACT -> "GELU, x times the normal distribution function of x";
    };
  }
}
