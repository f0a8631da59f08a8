package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.nn.Network;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.Solution;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import java.util.ArrayList;
import java.util.List;

/**
 * How a network's activations get their parameters.
 *
 * @param method {@code tat}, {@code dks}, {@code eoc}, {@code none}; or {@code he}, the unshaped
 *     ReLU with He's scale that shaping is compared with
 * @param activation name of the activation function
 * @param eta target of TAT for leaky_relu, in (0, 1)
 * @param tau target of TAT for smooth activations, positive
 * @param zeta target of DKS, above 1
 * @param sigmaB2 variance of the biases for EOC
 * @param solution which of several solutions, from 1, the one that the method takes by itself
 */
public record ShapingConfig(
    @JsonProperty(required = true) String method,
    @JsonProperty(required = true) String activation,
    @JsonProperty(required = true) double eta,
    @JsonProperty(required = true) double tau,
    @JsonProperty(required = true) double zeta,
    @JsonProperty(required = true) double sigmaB2,
    @JsonProperty(required = true) int solution) {
  /** TAT with tailored rectifiers, the library's default. */
  public static final ShapingConfig DEFAULT = of("tat", Activation.LEAKY_RELU.activationName());

  /** The unshaped ReLU with He's scale. */
  public static final ShapingConfig HE = of("he", Activation.RELU.activationName());

  /** A method and activation with default targets. */
  public static ShapingConfig of(String method, String activation) {
    return new ShapingConfig(
        method, activation, Tat.DEFAULT_ETA, Tat.DEFAULT_TAU, Dks.DEFAULT_ZETA, 0, 1);
  }

  /**
   * @throws IllegalArgumentException if the solution is not positive
   */
  public ShapingConfig {
    if (solution < 1) {
      throw new IllegalArgumentException(
          "solutions are counted from 1, but " + solution + " is asked for");
    }
  }

  /** From a configuration; earlier versions took the first solution and said nothing of it. */
  static ShapingConfig read(JsonNode node) throws JsonProcessingException {
    JsonNode all = node.deepCopy();
    if (all instanceof ObjectNode shaping && !shaping.has("solution")) {
      shaping.put("solution", 1);
    }
    return Json.MAPPER.treeToValue(all, ShapingConfig.class);
  }

  /** This with another solution. */
  public ShapingConfig withSolution(int number) {
    return new ShapingConfig(method, activation, eta, tau, zeta, sigmaB2, number);
  }

  /** Names of the methods. */
  public static List<String> methods() {
    List<String> names = new ArrayList<>(ShapingMethod.names());
    names.add("he");
    return names;
  }

  /** The method with its targets. */
  public ShapingMethod shapingMethod() {
    ShapingMethod chosen = ofName();
    return solution == 1 ? chosen : new Solution(chosen, solution);
  }

  private ShapingMethod ofName() {
    return switch (method) {
      case "tat" -> new Tat(eta, tau);
      case "dks" -> new Dks(zeta);
      case "eoc" -> new Eoc(sigmaB2);
      case "none", "he" -> new Unshaped();
      default ->
          throw new IllegalArgumentException(
              "unknown shaping method '" + method + "'; known are " + String.join(", ", methods()));
    };
  }

  /** The function by its name. */
  public Activation function() {
    return Activation.named(activation);
  }

  /** Names of the activation functions. */
  public static List<String> activations() {
    List<String> names = new ArrayList<>();
    for (Activation function : Activation.values()) {
      names.add(function.activationName());
    }
    return names;
  }

  /**
   * A network with the function in every activation layer, shaped.
   *
   * @throws io.jtrelu.shaping.ShapingException if the network cannot reach the target
   * @throws IllegalArgumentException if a name is unknown or a target out of range
   */
  public Network shape(Network network) {
    if (method.equals("he") && network.gaussianWeights()) {
      // As other frameworks have it: He's factor in the weights.
      return network.with(TransformedActivation.unchanged(Activation.RELU), Math.sqrt(2), 0);
    }
    if (method.equals("he")) {
      return network.with(TransformedActivation.rectifier(0, Math.sqrt(2)));
    }
    return network.with(function()).shape(shapingMethod());
  }
}
