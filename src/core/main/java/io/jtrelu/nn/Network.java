package io.jtrelu.nn;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.shaping.EdgeOfChaos;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.tensor.Shape;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;

/**
 * A network as a graph of layers in topological order, with one input and one output (the logits).
 *
 * <p>Activation layers carry their function. A new network has functions as they are; {@link
 * #shape} gives each the parameters that suit the network:
 *
 * <pre>{@code
 * Network network = Networks.build(Networks.Options.of("plain50"), input, classes)
 *     .with(Activation.SOFTPLUS)
 *     .shape(new Dks());
 * }</pre>
 *
 * <p>Immutable and safe for use by several threads; holds no values.
 */
public final class Network {
  private final String name;
  private final List<Layer> layers;
  private final List<ParameterSpec> parameters;
  private final double weightScale;
  private final double biasDeviation;

  private Network(String name, List<Layer> layers, double weightScale, double biasDeviation) {
    if (!(weightScale > 0 && weightScale < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "the scale of the weights must be positive and finite, got " + weightScale);
    }
    if (!(biasDeviation >= 0 && biasDeviation < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "the deviation of the biases must be finite and not negative, got " + biasDeviation);
    }
    this.name = name;
    this.layers = List.copyOf(layers);
    this.parameters = ParameterSpec.of(this.layers);
    this.weightScale = weightScale;
    this.biasDeviation = biasDeviation;
  }

  /** Name, for people. */
  public String name() {
    return name;
  }

  /** All nodes, each after its sources; the first is the input, the last gives the logits. */
  public List<Layer> layers() {
    return layers;
  }

  /** Size of an input image. */
  public Extent input() {
    return layers.getFirst().extent();
  }

  /** Number of logits. */
  public int classes() {
    return layers.getLast().extent().channels();
  }

  /** Weights and biases with their places in the arena: all weights first, then all biases. */
  public List<ParameterSpec> parameters() {
    return parameters;
  }

  /** Number of trainable values (without the arena's padding). */
  public long parameterCount() {
    return parameters.stream().mapToLong(p -> p.shape().elements()).sum();
  }

  /** Multiply-adds of the forward pass of one image. */
  public long multiplyAdds() {
    long sum = 0;
    for (Layer layer : layers) {
      if (layer instanceof Layer.Convolution convolution) {
        sum += convolution.descriptor().multiplyAdds();
      }
    }
    return sum;
  }

  /** Factor of the initial weights: sigma_w at the edge of chaos, else 1. */
  public double weightScale() {
    return weightScale;
  }

  /** Standard deviation of the initial biases: sigma_b at the edge of chaos, else 0. */
  public double biasDeviation() {
    return biasDeviation;
  }

  /** The functions of the activation layers by name, in order of their first use. */
  public Map<String, ActivationFunction> functions() {
    Map<String, ActivationFunction> functions = new LinkedHashMap<>();
    for (Layer layer : layers) {
      if (layer instanceof Layer.Activation activation) {
        ActivationFunction function = activation.function().function();
        functions.put(function.activationName(), function);
      }
    }
    return Collections.unmodifiableMap(functions);
  }

  /**
   * Finds what {@link #shape} sets, with all that there is to know about it.
   *
   * @return for each of {@link #functions} the solution for this network
   * @throws io.jtrelu.shaping.ShapingException if there is none; the message says why
   */
  public Map<String, Shaping> solve(ShapingMethod method) {
    return method.solve(signalGraph(), functions());
  }

  /**
   * This network with the parameters of every activation, and the initial scale of weights and
   * biases, as a method chooses them. Parameters that activations had before are replaced: only
   * their functions count.
   *
   * @throws io.jtrelu.shaping.ShapingException if there are none; the message says why
   */
  public Network shape(ShapingMethod method) {
    Map<String, Shaping> solved = solve(method);
    double weights = 1;
    double biases = 0;
    for (Shaping shaping : solved.values()) {
      EdgeOfChaos edge = shaping.edgeOfChaos();
      if (edge != null) { // and then it is the only one
        weights = Math.sqrt(edge.sigmaW2());
        biases = Math.sqrt(edge.sigmaB2());
      }
    }
    return with(f -> solved.get(f.function().activationName()).activation(), weights, biases);
  }

  /** This network with one function, as it is, in every activation layer. */
  public Network with(ActivationFunction function) {
    return with(TransformedActivation.unchanged(function));
  }

  /** This network with one function, shaped already, in every activation layer. */
  public Network with(TransformedActivation function) {
    return with(function, 1, 0);
  }

  /**
   * This network with one function, shaped already, in every activation layer.
   *
   * @param weightScale factor of the initial weights, positive
   * @param biasDeviation standard deviation of the initial biases, not negative
   */
  public Network with(TransformedActivation function, double weightScale, double biasDeviation) {
    return with(any -> function, weightScale, biasDeviation);
  }

  /** Every activation changed. */
  Network with(UnaryOperator<TransformedActivation> change, double weights, double biases) {
    List<Layer> changed = new ArrayList<>();
    for (Layer layer : layers) {
      changed.add(
          layer instanceof Layer.Activation a
              ? new Layer.Activation(a.name(), a.source(), change.apply(a.function()), a.extent())
              : layer);
    }
    return new Network(name, changed, weights, biases);
  }

  /** Number of activations on the longest path from input to output. */
  public int depth() {
    int[] longest = new int[layers.size()];
    for (int i = 0; i < longest.length; i++) {
      for (int source : layers.get(i).sources()) {
        longest[i] = Math.max(longest[i], longest[source]);
      }
      if (layers.get(i) instanceof Layer.Activation) {
        longest[i]++;
      }
    }
    return longest[longest.length - 1];
  }

  /**
   * What the network does to the kernel, for the shaping solver: activations and normalised sums;
   * everything else keeps cosines. Derived from the layers, for any network; the keys of
   * activations are the names of their functions.
   */
  public SignalGraph signalGraph() {
    SignalGraph.Builder graph = SignalGraph.builder();
    int[] node = new int[layers.size()];
    for (int i = 0; i < node.length; i++) {
      Layer layer = layers.get(i);
      node[i] =
          switch (layer) {
            case Layer.Input input -> graph.input();
            case Layer.Activation activation ->
                graph.activation(
                    node[activation.source()], activation.function().function().activationName());
            case Layer.NormalizedSum sum ->
                graph.sum(
                    new double[] {sum.shortcutWeight(), sum.branchWeight()},
                    node[sum.shortcut()],
                    node[sum.branch()]);
            default -> graph.affine(node[layer.sources().getFirst()]);
          };
      graph.label(node[i], layer.name());
    }
    return graph.build(node[node.length - 1]);
  }

  @Override
  public String toString() {
    return name;
  }

  /**
   * Starts a network.
   *
   * @param height rows of an input image
   * @param width columns of an input image
   * @param channels channels of an input image, a homogeneous one included
   */
  public static Builder builder(String name, int height, int width, int channels) {
    return new Builder(name, new Extent(height, width, channels));
  }

  /**
   * Adds layers one by one; each method returns the new node's index, to be used as a source. Not
   * thread-safe.
   */
  public static final class Builder {
    private final String name;
    private final List<Layer> layers = new ArrayList<>();
    private final Set<String> names = new HashSet<>();
    private final Map<String, ActivationFunction> functions = new LinkedHashMap<>();

    private Builder(String name, Extent input) {
      this.name = name;
      add(new Layer.Input("input", input));
    }

    /** The input node. */
    public int input() {
      return 0;
    }

    /** Size of a node's result. */
    public Extent extent(int node) {
      return layers.get(node).extent();
    }

    /** A square convolution with SAME padding. */
    public int convolution(String layerName, int source, int channels, int kernel, int stride) {
      Extent in = extent(source);
      return convolution(
          layerName,
          source,
          Conv2dDescriptor.same(
              1, in.height(), in.width(), in.channels(), channels, kernel, stride));
    }

    /** Any convolution of a node's result. */
    public int convolution(String layerName, int source, Conv2dDescriptor descriptor) {
      Extent in = extent(source);
      if (descriptor.h() != in.height()
          || descriptor.w() != in.width()
          || descriptor.ic() != in.channels()) {
        throw new IllegalArgumentException(
            "layer "
                + layerName
                + ": convolution "
                + descriptor
                + " does not fit a source of "
                + in);
      }
      return add(new Layer.Convolution(layerName, source, descriptor.withBatch(1)));
    }

    /** A fully connected layer over 1x1 images. */
    public int linear(String layerName, int source, int outputs) {
      Extent in = extent(source);
      if (in.height() != 1 || in.width() != 1) {
        throw new IllegalArgumentException(
            "layer "
                + layerName
                + ": a fully connected layer needs 1x1 images, its source is "
                + in
                + "; pool first");
      }
      return add(
          new Layer.Convolution(
              layerName, source, Conv2dDescriptor.linear(1, in.channels(), outputs)));
    }

    /** A leaky_relu, unless {@link Network#with(ActivationFunction)} puts another in its place. */
    public int activation(String layerName, int source) {
      return activation(layerName, source, Activation.LEAKY_RELU);
    }

    /** An activation of its own function; {@link Network#shape} gives it parameters. */
    public int activation(String layerName, int source, ActivationFunction function) {
      return activation(layerName, source, TransformedActivation.unchanged(function));
    }

    /**
     * An activation with parameters.
     *
     * @throws IllegalArgumentException if the network has another function of that name
     */
    public int activation(String layerName, int source, TransformedActivation function) {
      String functionName = function.function().activationName();
      ActivationFunction other = functions.putIfAbsent(functionName, function.function());
      if (other != null && !other.equals(function.function())) {
        throw new IllegalArgumentException(
            "layer "
                + layerName
                + ": the network has another function named "
                + functionName
                + "; give this one a name of its own");
      }
      return add(new Layer.Activation(layerName, source, function, extent(source)));
    }

    /**
     * w * shortcut + sqrt(1 - w^2) * branch.
     *
     * @param w shortcut weight in (0, 1)
     */
    public int normalizedSum(String layerName, int shortcut, int branch, double w) {
      if (!(w > 0 && w < 1)) {
        throw new IllegalArgumentException(
            "layer "
                + layerName
                + ": the shortcut weight must lie in (0, 1), got "
                + w
                + "; for 0 leave the sum out");
      }
      if (shortcut == branch) {
        throw new IllegalArgumentException(
            "layer " + layerName + ": a sum needs two different sources");
      }
      if (!extent(shortcut).equals(extent(branch))) {
        throw new IllegalArgumentException(
            "layer "
                + layerName
                + ": shortcut "
                + extent(shortcut)
                + " and branch "
                + extent(branch)
                + " differ in size");
      }
      return add(new Layer.NormalizedSum(layerName, shortcut, branch, w, extent(branch)));
    }

    /** Max-pooling with SAME padding. */
    public int maxPool(String layerName, int source, int kernel, int stride) {
      Extent in = extent(source);
      return add(
          new Layer.MaxPooling(
              layerName,
              source,
              MaxPool2dDescriptor.same(1, in.height(), in.width(), in.channels(), kernel, stride)));
    }

    /** Mean over all locations. */
    public int globalMeanPool(String layerName, int source) {
      return add(
          new Layer.GlobalMeanPooling(
              layerName, source, new Extent(1, 1, extent(source).channels())));
    }

    /** Dropout while training. */
    public int dropout(String layerName, int source, float rate) {
      return add(new Layer.DropoutLayer(layerName, source, rate, extent(source)));
    }

    /**
     * Ends with the last node added, which gives the logits.
     *
     * @throws IllegalStateException if it is not 1x1, or a node is read by nothing
     */
    public Network build() {
      Extent out = layers.getLast().extent();
      if (out.height() != 1 || out.width() != 1) {
        throw new IllegalStateException("the logits must be 1x1 images, got " + out);
      }
      Set<Integer> read = new HashSet<>();
      layers.forEach(layer -> read.addAll(layer.sources()));
      for (int i = 0; i < layers.size() - 1; i++) {
        if (!read.contains(i)) {
          throw new IllegalStateException(
              "nothing reads layer " + layers.get(i).name() + "; leave it out");
        }
      }
      return new Network(name, layers, 1, 0);
    }

    private int add(Layer layer) {
      for (int source : layer.sources()) {
        if (source < 0 || source >= layers.size()) {
          throw new IllegalArgumentException(
              "layer " + layer.name() + ": there is no node " + source);
        }
      }
      if (!names.add(layer.name())) {
        throw new IllegalArgumentException("two layers are named " + layer.name());
      }
      layers.add(layer);
      return layers.size() - 1;
    }
  }

  /**
   * A weight or bias tensor and its place in the arena.
   *
   * @param name layer name and {@code .weights} or {@code .bias}
   * @param layer index of the layer it belongs to
   * @param kind what it is
   * @param shape KRSC for weights, [oc] for a bias
   * @param offset index of its first element in the arena
   */
  public record ParameterSpec(String name, int layer, Kind kind, Shape shape, long offset) {
    /** What a parameter is. */
    public enum Kind {
      /** Convolution weights, KRSC. */
      WEIGHTS,
      /** One value per output channel. */
      BIAS
    }

    /** Each parameter starts on a cache line: 16 elements of four bytes. */
    private static final int ALIGNMENT = 16;

    private static List<ParameterSpec> of(List<Layer> layers) {
      List<ParameterSpec> specs = new ArrayList<>();
      long offset = 0;
      for (Kind kind : Kind.values()) {
        for (int i = 0; i < layers.size(); i++) {
          if (layers.get(i) instanceof Layer.Convolution c) {
            Shape shape = kind == Kind.WEIGHTS ? c.descriptor().weights() : c.descriptor().bias();
            String suffix = kind == Kind.WEIGHTS ? ".weights" : ".bias";
            specs.add(new ParameterSpec(c.name() + suffix, i, kind, shape, offset));
            offset += Math.ceilDiv(shape.elements(), ALIGNMENT) * ALIGNMENT;
          }
        }
      }
      return List.copyOf(specs);
    }

    /** First element after this parameter and its padding. */
    long end() {
      return offset + Math.ceilDiv(shape.elements(), ALIGNMENT) * ALIGNMENT;
    }
  }
}
