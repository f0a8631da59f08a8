package io.jtrelu.shaping;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * A way of choosing an activation's parameters for a network.
 *
 * <table>
 * <caption>Methods</caption>
 * <tr><th>name</th><th>class</th><th>for</th></tr>
 * <tr><td>tat</td><td>{@link Tat}</td><td>leaky_relu (TReLU); smooth activations</td></tr>
 * <tr><td>dks</td><td>{@link Dks}</td><td>smooth activations, leaky_relu; relu poorly</td></tr>
 * <tr><td>eoc</td><td>{@link Eoc}</td><td>any: it changes weights and biases instead</td></tr>
 * <tr><td>none</td><td>{@link Unshaped}</td><td>any</td></tr>
 * <tr><td>theirs</td><td>{@link Solution}</td><td>another solution where there are several</td></tr>
 * </table>
 */
public sealed interface ShapingMethod permits Tat, Dks, Eoc, Unshaped, Solution {

  /** The name used in results and on the command line. */
  String methodName();

  /**
   * Parameters for the activation in the given network.
   *
   * @throws ShapingException if there are none: {@link InfeasibleTargetException} where the target
   *     cannot be reached, {@link UnsuitableActivationException} where the method cannot be used
   *     with the activation, {@link NoSolutionException} where the activation cannot meet the local
   *     conditions
   */
  Shaping solve(SignalGraph graph, ActivationFunction activation);

  /**
   * Parameters for several activations in one network. DKS and TAT for smooth activations share
   * their local targets over all of them, so that each is solved for on its own.
   *
   * @param activations the function for each of the graph's {@link SignalGraph#keys() keys}
   * @return for each key, in the graph's order, the shaped activation
   * @throws IllegalArgumentException if a key of the graph has no function
   * @throws ShapingException as for one, and if TAT is asked for leaky_relu besides others, or EOC
   *     for several
   */
  default Map<String, Shaping> solve(
      SignalGraph graph, Map<String, ? extends ActivationFunction> activations) {
    Set<ActivationFunction> distinct = new LinkedHashSet<>();
    for (String key : graph.keys()) {
      ActivationFunction activation = activations.get(key);
      if (activation == null) {
        throw new IllegalArgumentException("no function is given for the activation '" + key + "'");
      }
      distinct.add(activation);
    }
    requireTogether(distinct);
    Map<ActivationFunction, Shaping> solved = new HashMap<>();
    distinct.forEach(activation -> solved.put(activation, solve(graph, activation)));
    Map<String, Shaping> result = new LinkedHashMap<>();
    graph.keys().forEach(key -> result.put(key, solved.get(activations.get(key))));
    return result;
  }

  private void requireTogether(Set<ActivationFunction> activations) {
    ShapingMethod method = this instanceof Solution solution ? solution.method() : this;
    String names =
        activations.stream()
            .map(ActivationFunction::activationName)
            .collect(Collectors.joining(", "));
    if (method instanceof Eoc && activations.size() > 1) {
      throw new UnsuitableActivationException(
          names,
          "EOC scales the weights of the whole network for one activation, and q* of one is not q*"
              + " of another, but this network has "
              + names
              + "; use DKS, or TAT where all are smooth");
    }
    boolean rectifier = activations.contains(Activation.LEAKY_RELU);
    if (method instanceof Tat && rectifier && activations.size() > 1) {
      throw new UnsuitableActivationException(
          Activation.LEAKY_RELU.activationName(),
          "TAT shapes leaky_relu by another condition than smooth activations, so leaky_relu must"
              + " be the network's only activation, but this network has "
              + names
              + "; use DKS for a mixture");
    }
  }

  /**
   * The method of that name with its default targets.
   *
   * @throws IllegalArgumentException if there is none; the message lists the names
   */
  static ShapingMethod named(String name) {
    return switch (name) {
      case "tat" -> new Tat();
      case "dks" -> new Dks();
      case "eoc" -> new Eoc(0);
      case "none" -> new Unshaped();
      default ->
          throw new IllegalArgumentException(
              "there is no shaping method '" + name + "'; known are " + String.join(", ", names()));
    };
  }

  /** The names of all methods. */
  static List<String> names() {
    return List.of("tat", "dks", "eoc", "none");
  }
}
