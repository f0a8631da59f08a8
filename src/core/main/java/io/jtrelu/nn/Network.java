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
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;

/**
 * A network as a graph of layers in topological order, with one input and one or more outputs. A
 * network with one output of 1x1 is a {@linkplain #isClassifier classifier}: its output is the
 * logits, and the built-in loss applies to it.
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
  private final List<Integer> outputs;
  private final List<ParameterSpec> parameters;
  private final double weightScale;
  private final double biasDeviation;
  private final boolean gaussianWeights;

  private Network(
      String name,
      List<Layer> layers,
      List<Integer> outputs,
      double weightScale,
      double biasDeviation,
      boolean gaussianWeights) {
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
    this.outputs = List.copyOf(outputs);
    this.parameters = ParameterSpec.of(this.layers);
    this.weightScale = weightScale;
    this.biasDeviation = biasDeviation;
    this.gaussianWeights = gaussianWeights;
  }

  /** Name, for people. */
  public String name() {
    return name;
  }

  /** All nodes, each after its sources; the first is the input. */
  public List<Layer> layers() {
    return layers;
  }

  /** Indices of the nodes that are results, in the order in which they were asked for. */
  public List<Integer> outputs() {
    return outputs;
  }

  /** Whether it has one output, of 1x1: the logits. */
  public boolean isClassifier() {
    Extent first = layers.get(outputs.getFirst()).extent();
    return outputs.size() == 1 && first.height() == 1 && first.width() == 1;
  }

  /** Size of an input image. */
  public Extent input() {
    return layers.getFirst().extent();
  }

  /**
   * Number of logits.
   *
   * @throws IllegalStateException if it is no {@linkplain #isClassifier classifier}
   */
  public int classes() {
    if (!isClassifier()) {
      throw noClassifier("the number of classes");
    }
    return layers.get(outputs.getFirst()).extent().channels();
  }

  IllegalStateException noClassifier(String what) {
    List<String> results =
        outputs.stream().map(i -> layers.get(i).name() + " " + layers.get(i).extent()).toList();
    return new IllegalStateException(
        "network "
            + name
            + ": "
            + what
            + " is for a network with one output of 1x1, its logits; this one's outputs are "
            + String.join(", ", results)
            + ". Give the gradients of the outputs yourself, as NetworkFunction does");
  }

  /**
   * Weights and biases with their places in the arena: all weights first, then all biases; behind
   * them what batch normalisation has, scales and then running statistics.
   */
  public List<ParameterSpec> parameters() {
    return parameters;
  }

  /** Number of trainable values (without the arena's padding). */
  public long parameterCount() {
    return parameters.stream()
        .filter(p -> !p.kind().isStatistic())
        .mapToLong(p -> p.shape().elements())
        .sum();
  }

  /** Whether training makes samples of a batch depend on each other, by batch normalisation. */
  public boolean looksAtBatches() {
    return layers.stream().anyMatch(layer -> layer.exchanged() > 0);
  }

  /** Multiply-adds of the forward pass of one image. */
  public long multiplyAdds() {
    return layers.stream().mapToLong(Layer::multiplyAdds).sum();
  }

  /** Factor of the initial weights: sigma_w at the edge of chaos, else 1. */
  public double weightScale() {
    return weightScale;
  }

  /** Standard deviation of the initial biases: sigma_b at the edge of chaos, else 0. */
  public double biasDeviation() {
    return biasDeviation;
  }

  /**
   * Whether weights begin as independent Gaussian numbers, N(0, weightScale^2 / inputs), as those
   * of the networks that ours are compared with do, whose means square they keep on average; else
   * as random orthogonal matrices, which do so exactly. See {@link Initializer}.
   */
  public boolean gaussianWeights() {
    return gaussianWeights;
  }

  /** This network with Gaussian or orthogonal weights to begin with. */
  public Network withGaussianWeights(boolean gaussian) {
    return new Network(name, layers, outputs, weightScale, biasDeviation, gaussian);
  }

  /** The functions of the activation layers by name, in order of their first use. */
  public Map<String, ActivationFunction> functions() {
    Map<String, ActivationFunction> functions = new LinkedHashMap<>();
    for (Layer layer : layers) {
      if (layer instanceof ActivationLayer activation) {
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
      changed.add(layer instanceof ActivationLayer a ? a.with(change.apply(a.function())) : layer);
    }
    return new Network(name, changed, outputs, weights, biases, gaussianWeights);
  }

  /**
   * This network with another number of logits.
   *
   * @throws IllegalArgumentException if its output is not that of a fully connected layer
   */
  public Network withClasses(int classes) {
    if (!isClassifier() || !(layers.getLast() instanceof ConvolutionLayer last)) {
      throw new IllegalArgumentException(
          "network " + name + " does not end with a fully connected layer that could be replaced");
    }
    Conv2dDescriptor old = last.descriptor();
    if (old.oc() == classes) {
      return this;
    }
    List<Layer> changed = new ArrayList<>(layers);
    changed.set(
        layers.size() - 1,
        new ConvolutionLayer(
            last.name(), last.source(), Conv2dDescriptor.linear(1, old.ic(), classes)));
    return new Network(name, changed, outputs, weightScale, biasDeviation, gaussianWeights);
  }

  /** Number of activations on the longest path from the input to an output. */
  public int depth() {
    int depth = 0;
    int[] longest = new int[layers.size()];
    for (int i = 0; i < longest.length; i++) {
      for (int source : layers.get(i).sources()) {
        longest[i] = Math.max(longest[i], longest[source]);
      }
      if (layers.get(i) instanceof ActivationLayer) {
        longest[i]++;
      }
      depth = Math.max(depth, longest[i]);
    }
    return depth;
  }

  /**
   * What the network does to the kernel, for the shaping solver. Derived from the layers, for any
   * network; the keys of activations are the names of their functions. Outputs that no layer reads,
   * where there are several, count as joined by a normalised sum of equal weights.
   */
  public SignalGraph signalGraph() {
    SignalGraph.Builder graph = SignalGraph.builder();
    int[] node = new int[layers.size()];
    Set<Integer> read = new HashSet<>();
    for (int i = 0; i < node.length; i++) {
      Layer layer = layers.get(i);
      node[i] = layer.signal(graph, source -> node[source]);
      graph.label(node[i], layer.name());
      read.addAll(layer.sources());
    }
    int[] ends = outputs.stream().filter(i -> !read.contains(i)).mapToInt(i -> node[i]).toArray();
    if (ends.length == 1) {
      return graph.build(ends[0]);
    }
    double[] weights = new double[ends.length];
    Arrays.fill(weights, Math.sqrt(1.0 / ends.length));
    return graph.build(graph.label(graph.sum(weights, ends), "outputs"));
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
    return new Builder(name, new InputLayer("input", new Extent(height, width, channels)));
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

    Builder(String name, InputLayer input) {
      this.name = name;
      append(input);
    }

    /** The input node. */
    public int input() {
      return 0;
    }

    /** Size of a node's result. */
    public Extent extent(int node) {
      return layers.get(node).extent();
    }

    /**
     * Any layer; the other methods make the usual ones.
     *
     * @param layer reads nodes of this builder
     * @return the node's index
     * @throws IllegalArgumentException if its name is taken, it has no source, a source does not
     *     exist or is named twice, or sources do not fit
     */
    public int add(Layer layer) {
      String where = "layer " + layer.name() + ": ";
      if (layer.sources().isEmpty()) {
        throw new IllegalArgumentException(where + "it reads nothing; a network has one input");
      }
      List<Extent> extents = new ArrayList<>();
      Set<Integer> sources = new HashSet<>();
      for (int source : layer.sources()) {
        if (source < 0 || source >= layers.size()) {
          throw new IllegalArgumentException(where + "there is no node " + source);
        }
        if (!sources.add(source)) {
          throw new IllegalArgumentException(
              where
                  + "it reads node "
                  + layers.get(source).name()
                  + " twice; its sources must be different");
        }
        extents.add(extent(source));
      }
      layer.check(extents);
      if (layer instanceof ActivationLayer activation) {
        ActivationFunction function = activation.function().function();
        String functionName = function.activationName();
        ActivationFunction other = functions.putIfAbsent(functionName, function);
        if (other != null && !other.equals(function)) {
          throw new IllegalArgumentException(
              where
                  + "the network has another function named "
                  + functionName
                  + "; give this one a name of its own");
        }
      }
      return append(layer);
    }

    private int append(Layer layer) {
      Extent extent = layer.extent();
      if (extent.height() < 1 || extent.width() < 1 || extent.channels() < 1) {
        throw new IllegalArgumentException(
            "layer " + layer.name() + ": its result of " + extent + " is empty");
      }
      try {
        extent.batch(1);
      } catch (IllegalArgumentException tooLarge) {
        throw new IllegalArgumentException(
            "layer " + layer.name() + ": " + tooLarge.getMessage(), tooLarge);
      }
      if (!names.add(layer.name())) {
        throw new IllegalArgumentException("two layers are named " + layer.name());
      }
      layers.add(layer);
      return layers.size() - 1;
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
      return add(new ConvolutionLayer(layerName, source, descriptor.withBatch(1)));
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
          new ConvolutionLayer(
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
      return add(new ActivationLayer(layerName, source, function, extent(source)));
    }

    /**
     * w * shortcut + sqrt(1 - w^2) * branch.
     *
     * @param w shortcut weight in (0, 1)
     */
    public int normalizedSum(String layerName, int shortcut, int branch, double w) {
      return add(new NormalizedSumLayer(layerName, shortcut, branch, w, extent(branch)));
    }

    /** shortcut + branch, as ordinary residual networks have it. */
    public int sum(String layerName, int shortcut, int branch) {
      return add(new SumLayer(layerName, shortcut, branch, extent(branch)));
    }

    /** Batch normalisation with the usual epsilon of 1e-5. */
    public int batchNorm(String layerName, int source) {
      return add(
          new BatchNormLayer(layerName, source, BatchNormLayer.USUAL_EPSILON, extent(source)));
    }

    /** Max-pooling with SAME padding. */
    public int maxPool(String layerName, int source, int kernel, int stride) {
      Extent in = extent(source);
      return add(
          new MaxPoolingLayer(
              layerName,
              source,
              MaxPool2dDescriptor.same(1, in.height(), in.width(), in.channels(), kernel, stride)));
    }

    /** Mean over all locations. */
    public int globalMeanPool(String layerName, int source) {
      return add(
          new GlobalMeanPoolingLayer(
              layerName, source, new Extent(1, 1, extent(source).channels())));
    }

    /** Dropout while training. */
    public int dropout(String layerName, int source, float rate) {
      return add(new DropoutLayer(layerName, source, rate, extent(source)));
    }

    /**
     * Ends with the last node added as the output.
     *
     * @throws IllegalStateException if another node is read by nothing
     */
    public Network build() {
      return build(layers.size() - 1);
    }

    /**
     * Ends with any nodes as outputs; other layers may read them too.
     *
     * @throws IllegalArgumentException if there is no output, a node does not exist or is named
     *     twice
     * @throws IllegalStateException if a node is neither an output nor read by any layer
     */
    public Network build(int... outputs) {
      Set<Integer> wanted = new LinkedHashSet<>();
      for (int node : outputs) {
        if (node < 0 || node >= layers.size()) {
          throw new IllegalArgumentException("output " + node + ": there is no such node");
        }
        if (!wanted.add(node)) {
          throw new IllegalArgumentException(
              "layer " + layers.get(node).name() + " is named twice as an output");
        }
      }
      if (wanted.isEmpty()) {
        throw new IllegalArgumentException("a network needs an output");
      }
      Set<Integer> read = new HashSet<>(wanted);
      layers.forEach(layer -> read.addAll(layer.sources()));
      for (int i = 0; i < layers.size(); i++) {
        if (!read.contains(i)) {
          throw new IllegalStateException(
              "nothing reads layer " + layers.get(i).name() + "; leave it out");
        }
      }
      return new Network(name, layers, List.copyOf(wanted), 1, 0, false);
    }
  }

  /**
   * A weight or bias tensor, or the like, and its place in the arena.
   *
   * @param name layer name and, after a dot, the parameter's own: {@code .weights}, {@code .bias}
   * @param layer index of the layer it belongs to
   * @param kind what it is
   * @param shape KRSC for the weights of a convolution, [oc] for a bias
   * @param offset index of its first element in the arena
   */
  public record ParameterSpec(String name, int layer, Kind kind, Shape shape, long offset) {
    /** What a parameter is. */
    public enum Kind {
      /** Multiplies values; weight decay applies to it. A convolution's are KRSC. */
      WEIGHTS,
      /** Added to values, one per output channel. */
      BIAS,
      /** Multiplies normalised values, one per channel; begins at 1. */
      SCALE,
      /** A running mean, which training follows but does not learn; begins at 0. */
      MEAN,
      /** A running variance, likewise; begins at 1. */
      VARIANCE;

      /**
       * Whether it follows the batches seen in training and has no gradient: an optimiser moves it
       * by a rate of its own towards them, and its "gradient" is its distance from them.
       */
      public boolean isStatistic() {
        return this == MEAN || this == VARIANCE;
      }
    }

    /** Each parameter starts on a cache line: 16 elements of four bytes. */
    private static final int ALIGNMENT = 16;

    private static List<ParameterSpec> of(List<Layer> layers) {
      List<ParameterSpec> specs = new ArrayList<>();
      long offset = 0;
      for (Kind kind : Kind.values()) {
        for (int i = 0; i < layers.size(); i++) {
          Layer layer = layers.get(i);
          for (Layer.Parameter parameter : layer.parameters()) {
            if (parameter.kind() == kind) {
              Shape shape = parameter.shape();
              specs.add(new ParameterSpec(name(layer, parameter), i, kind, shape, offset));
              offset = specs.getLast().end();
            }
          }
        }
      }
      return List.copyOf(specs);
    }

    /** What a parameter of a layer is called in the network. */
    static String name(Layer layer, Layer.Parameter parameter) {
      return layer.name() + "." + parameter.name();
    }

    /** Meaning of the axes of the shape. */
    public Layout layout() {
      return kind == Kind.WEIGHTS && shape.rank() == 4 ? Layout.KRSC : Layout.ROW_MAJOR;
    }

    /** First element after this parameter and its padding. */
    long end() {
      return offset + Math.ceilDiv(shape.elements(), ALIGNMENT) * ALIGNMENT;
    }
  }
}
