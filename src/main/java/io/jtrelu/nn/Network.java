package io.jtrelu.nn;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.tensor.Shape;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * A network as a graph of layers in topological order, with one input and one output (the logits).
 * Immutable; holds no values.
 */
public final class Network {
  private final String name;
  private final List<Layer> layers;
  private final List<ParameterSpec> parameters;

  private Network(String name, List<Layer> layers) {
    this.name = name;
    this.layers = List.copyOf(layers);
    this.parameters = ParameterSpec.of(this.layers);
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
   * everything else keeps cosines. Derived from the layers, for any network.
   */
  public SignalGraph signalGraph() {
    SignalGraph.Builder graph = SignalGraph.builder();
    int[] node = new int[layers.size()];
    for (int i = 0; i < node.length; i++) {
      Layer layer = layers.get(i);
      node[i] =
          switch (layer) {
            case Layer.Input input -> graph.input();
            case Layer.Activation activation -> graph.activation(node[activation.source()]);
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

    /** The network's nonlinearity. */
    public int activation(String layerName, int source) {
      return add(new Layer.Activation(layerName, source, extent(source)));
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
      return new Network(name, layers);
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
