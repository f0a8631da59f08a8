package io.jtrelu.djl;

import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.LambdaBlock;
import ai.djl.nn.ParallelBlock;
import ai.djl.nn.SequentialBlock;
import ai.djl.nn.convolutional.Convolution;
import ai.djl.nn.core.Linear;
import ai.djl.nn.core.Prelu;
import ai.djl.nn.norm.BatchNorm;
import ai.djl.nn.norm.Dropout;
import ai.djl.nn.norm.LayerNorm;
import ai.djl.util.Pair;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Gives a network of DJL's blocks the activations that suit it.
 *
 * <p>What the network does to the kernel, its {@link SignalGraph}, is read off its blocks:
 *
 * <table>
 * <caption>Blocks</caption>
 * <tr><th>block</th><th>in the graph</th></tr>
 * <tr><td>{@link SequentialBlock}</td><td>its blocks in order</td></tr>
 * <tr><td>{@link NormalizedSum}</td><td>the sum of its two parts</td></tr>
 * <tr><td>{@link ShapedActivation}</td><td>an activation</td></tr>
 * <tr><td>{@link ai.djl.nn.Activation}'s blocks ReLU, LeakyReLU, Tanh, sigmoid, softPlus, softSign,
 * SELU, GELU</td><td>an activation</td></tr>
 * <tr><td>convolutions, {@link Linear}, max- and average pooling, {@link Dropout}, {@code
 * batchFlattenBlock}, {@code identityBlock}</td><td>keep cosines</td></tr>
 * </table>
 *
 * <p>Others are refused by name and place. For networks that have some, {@link #shape(Block,
 * ShapingMethod, SignalGraph)} takes the graph from the caller.
 */
public final class BlockShaping {
  /** DJL's activation blocks that tell what they compute, by the names it gives them. */
  private static final Map<String, Activation> LAMBDAS =
      Map.of(
          "ReLU", Activation.RELU,
          "LeakyReLU", Activation.LEAKY_RELU,
          "Tanh", Activation.TANH,
          "sigmoid", Activation.SIGMOID,
          "softPlus", Activation.SOFTPLUS,
          "softSign", Activation.SOFTSIGN,
          "SELU", Activation.SELU,
          "GELU", Activation.GELU_EXACT);

  private static final Pattern KEEPS_COSINES =
      Pattern.compile("identity|batchFlatten|(maxPool|avgPool|globalMaxPool|globalAvgPool)[123]d");

  private BlockShaping() {}

  /**
   * What a network does to the kernel. The keys of activations are the names of their functions.
   *
   * @throws IllegalArgumentException for a block that it cannot be told of, saying which one and
   *     where
   */
  public static SignalGraph graph(Block network) {
    SignalGraph.Builder graph = SignalGraph.builder();
    return graph.build(walk(network, graph, graph.input(), network.getClass().getSimpleName()));
  }

  /**
   * Solves for a network's activations and sets them. DJL's own activation blocks are replaced by
   * {@link ShapedActivation}s where they stand; the parameters keep their names and values. Nothing
   * is changed if this throws.
   *
   * <p>At the edge of chaos weights and biases are part of the solution: initialise them with
   * {@code new DeltaInitializer(seed, Math.sqrt(edge.sigmaW2()))} and {@code new
   * NormalInitializer((float) Math.sqrt(edge.sigmaB2()))}.
   *
   * @return the solution by name of function
   * @throws IllegalArgumentException as {@link #graph} does
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Map<String, Shaping> shape(Block network, ShapingMethod method) {
    return shape(network, method, graph(network));
  }

  /**
   * As {@link #shape(Block, ShapingMethod)}, for networks with blocks that are not known. Those
   * stay; activations are set wherever they are found below them, and DJL's own are replaced where
   * they stand in a {@link SequentialBlock} or {@link NormalizedSum}.
   *
   * @param graph what the network does to the kernel; its keys are the names of the network's
   *     functions, or {@link SignalGraph#DEFAULT_KEY} where it has only one
   * @throws IllegalArgumentException if the network has no activation that can be set, or lacks one
   *     that the graph names
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Map<String, Shaping> shape(Block network, ShapingMethod method, SignalGraph graph) {
    Map<String, ActivationFunction> functions = new LinkedHashMap<>();
    collect(network, functions);
    if (functions.isEmpty()) {
      throw new IllegalArgumentException(
          "the network has no activation that could be shaped; use blocks new"
              + " ShapedActivation(Activation.LEAKY_RELU) instead of functions");
    }
    boolean unnamed = functions.size() == 1 && graph.keys().equals(Set.of(SignalGraph.DEFAULT_KEY));
    Map<String, Shaping> solved;
    if (unnamed) {
      String name = functions.keySet().iterator().next();
      ActivationFunction function = functions.get(name);
      solved = Map.of(name, method.solve(graph, function));
    } else {
      solved = method.solve(graph, functions);
    }
    for (String name : functions.keySet()) {
      if (!solved.containsKey(name)) {
        throw new IllegalArgumentException(
            "the network has activations "
                + name
                + ", but the graph has only "
                + String.join(", ", graph.keys()));
      }
    }
    set(network, solved);
    return solved;
  }

  private static int walk(Block block, SignalGraph.Builder graph, int source, String place) {
    if (block instanceof SequentialBlock chain) {
      if (chain.isReturnIntermediate()) {
        throw refused(place, "returns all its intermediate results, not one");
      }
      int node = source;
      for (Pair<String, Block> child : chain.getChildren()) {
        node = walk(child.getValue(), graph, node, place + "/" + child.getKey());
      }
      return node;
    }
    if (block instanceof NormalizedSum sum) {
      int[] parts = new int[2];
      for (int i = 0; i < parts.length; i++) {
        Pair<String, Block> child = sum.getChildren().get(i);
        parts[i] = walk(child.getValue(), graph, source, place + "/" + child.getKey());
      }
      double w = sum.weight();
      return graph.label(graph.sum(new double[] {w, Math.sqrt(1 - w * w)}, parts), place);
    }
    if (block instanceof ShapedActivation activation) {
      return activation(graph, source, activation.activation().function(), place);
    }
    if (block instanceof LambdaBlock lambda) {
      Activation function = LAMBDAS.get(lambda.getName());
      if (function != null) {
        return activation(graph, source, function, place);
      }
      if (KEEPS_COSINES.matcher(lambda.getName()).matches()) {
        return graph.affine(source);
      }
      throw refused(
          place,
          "is the function '"
              + lambda.getName()
              + "', which does not tell what it computes; for an activation use a"
              + " ShapedActivation");
    }
    if (block instanceof Convolution || block instanceof Linear || block instanceof Dropout) {
      return graph.affine(source);
    }
    throw refused(place, reason(block));
  }

  private static int activation(
      SignalGraph.Builder graph, int source, ActivationFunction function, String place) {
    return graph.label(graph.activation(source, function.activationName()), place);
  }

  private static String reason(Block block) {
    if (block instanceof BatchNorm || block instanceof LayerNorm) {
      return "normalises, by statistics that are no function of one input's kernel. Leave it out:"
          + " a shaped network keeps its signals in range without it";
    }
    if (block instanceof Prelu) {
      return "learns its slope, so that there is nothing to solve for; use new"
          + " ShapedActivation(Activation.LEAKY_RELU)";
    }
    if (block instanceof ParallelBlock) {
      return "does not tell the weights of its sum; use a NormalizedSum";
    }
    return "is not known";
  }

  private static IllegalArgumentException refused(String place, String reason) {
    return new IllegalArgumentException(
        "block "
            + place
            + " "
            + reason
            + ". (Or say what the network does to the kernel by a SignalGraph of your own.)");
  }

  private static void collect(Block block, Map<String, ActivationFunction> functions) {
    if (block instanceof ShapedActivation activation) {
      ActivationFunction function = activation.activation().function();
      functions.putIfAbsent(function.activationName(), function);
    }
    for (Block child : block.getChildren().values()) {
      Activation function = replaceable(block, child);
      if (function != null) {
        functions.putIfAbsent(function.activationName(), function);
      }
      collect(child, functions);
    }
  }

  /** What a child of a block computes, if it is an activation of DJL's that can be replaced. */
  private static @Nullable Activation replaceable(Block parent, Block child) {
    boolean within = parent instanceof SequentialBlock || parent instanceof NormalizedSum;
    return within && child instanceof LambdaBlock lambda ? LAMBDAS.get(lambda.getName()) : null;
  }

  private static void set(Block block, Map<String, Shaping> solved) {
    if (block instanceof ShapedActivation activation) {
      String name = activation.activation().function().activationName();
      activation.set(solved.get(name).activation());
      return;
    }
    Block[] children = block.getChildren().values().toArray(Block[]::new);
    boolean changed = false;
    for (int i = 0; i < children.length; i++) {
      Activation function = replaceable(block, children[i]);
      if (function == null) {
        set(children[i], solved);
        continue;
      }
      children[i] =
          shaped(
              children[i],
              new ShapedActivation(solved.get(function.activationName()).activation()));
      changed = true;
      if (block instanceof NormalizedSum sum) {
        sum.replace(i, children[i]);
      }
    }
    if (changed && block instanceof SequentialBlock chain) {
      for (int i = 0; i < children.length; i++) {
        chain.removeLastBlock();
      }
      chain.addAll(children);
    }
  }

  /** The new block, initialised if the old one was: it would not be saved otherwise. */
  private static ShapedActivation shaped(Block old, ShapedActivation block) {
    if (old.isInitialized()) {
      Shape[] shapes = old.getInputShapes();
      block.initializeAs(shapes);
    }
    return block;
  }
}
