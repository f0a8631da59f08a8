package io.jtrelu.onnx;

import static io.jtrelu.onnx.Refusal.require;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.interop.KernelOrder;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * A network that is being read from a graph of anybody's, layer by layer.
 *
 * <p>A value of the graph is scale * (a layer's result) + shift. The two numbers gather what comes
 * from scalar Mul and Add, and from sums a + b, which are r times a normalised sum; whoever reads
 * the value takes them in: weights, a rectifier's scale, an activation's input, the weights of the
 * next sum. Where nobody can, a 1x1 convolution of each channel alone does what is left.
 *
 * <p>Names that are wished for are made unique.
 */
final class NetworkDraft {
  /**
   * A value of the graph.
   *
   * @param node index of a layer
   * @param scale factor of the layer's result
   * @param shift added to it
   * @param flat whether it is [N, c * h * w] instead of [N, c, h, w]
   * @param shared whether anything else reads the layer's result
   */
  record Value(int node, double scale, double shift, boolean flat, boolean shared) {
    static Value of(int node, boolean flat) {
      return new Value(node, 1, 0, flat, false);
    }

    Value flat(boolean now) {
      return new Value(node, scale, shift, now, shared);
    }

    /** The same, read by more than one. */
    Value asShared() {
      return new Value(node, scale, shift, flat, true);
    }

    boolean isPlain() {
      return scale == 1 && shift == 0;
    }
  }

  /** KRSC weights and biases. */
  private static final class Weights {
    final float[] weights;
    final float[] bias;

    Weights(float[] weights, float[] bias) {
      this.weights = weights;
      this.bias = bias;
    }
  }

  private final String name;
  private final List<Layer> layers = new ArrayList<>();
  private final Map<Integer, Weights> weights = new HashMap<>();
  private final Set<String> names = new HashSet<>();

  /** Begins with images of a size. */
  NetworkDraft(String name, Extent images) {
    this.name = name;
    names.add("input");
    layers.add(new InputLayer("input", images));
  }

  /** The images. */
  Value input() {
    return Value.of(0, false);
  }

  Extent extent(Value value) {
    return layers.get(value.node).extent();
  }

  static boolean isVector(Extent extent) {
    return extent.height() == 1 && extent.width() == 1;
  }

  private int add(Layer layer) {
    List<Extent> sources =
        layer.sources().stream().map(source -> layers.get(source).extent()).toList();
    layer.check(sources);
    layers.add(layer);
    return layers.size() - 1;
  }

  private String unique(String wish) {
    String base = wish.isEmpty() ? "layer" : wish;
    String free = base;
    for (int i = 2; !names.add(free); i++) {
      free = base + "_" + i;
    }
    return free;
  }

  /** phi(scale * x + shift), or a rectifier that takes the scale in. */
  Value activation(String wish, Value x, Activation function, float slope) {
    boolean homogeneous = Folding.isRectifier(function) && x.shift == 0 && x.scale > 0;
    TransformedActivation phi =
        homogeneous
            ? new TransformedActivation(function, 1, 0, x.scale, 0, slope)
            : new TransformedActivation(function, x.scale, x.shift, 1, 0, slope);
    return Value.of(add(new ActivationLayer(unique(wish), x.node, phi, extent(x))), x.flat);
  }

  /**
   * A convolution, which takes the scale in, and the shift where nothing is padded.
   *
   * @param kcrs weights as files have them
   */
  Value convolution(String wish, Value x, Conv2dDescriptor d, float[] kcrs, float[] bias) {
    boolean padded = d.padTop() + d.padLeft() + d.padBottom() + d.padRight() > 0;
    Value source = x.shift != 0 && padded ? plain(x) : x;
    float[] krsc = KernelOrder.toKrsc(kcrs, d.weights());
    float[] shifted = new float[d.oc()];
    int perChannel = krsc.length / d.oc();
    for (int k = 0; k < d.oc(); k++) {
      double sum = 0;
      for (int i = k * perChannel; i < (k + 1) * perChannel; i++) {
        sum += krsc[i];
        krsc[i] = (float) (source.scale * krsc[i]);
      }
      shifted[k] = (float) (bias[k] + source.shift * sum);
    }
    int layer = add(new ConvolutionLayer(unique(wish), source.node, d));
    weights.put(layer, new Weights(krsc, shifted));
    return Value.of(layer, false);
  }

  /** scale * x + shift, with one value or one for each channel. */
  Value affine(String wish, Value x, double[] scale, double[] shift) {
    for (double s : scale) {
      require(Double.isFinite(s), "a factor is not finite");
    }
    for (double s : shift) {
      require(Double.isFinite(s), "a summand is not finite");
    }
    Layer layer = layers.get(x.node);
    boolean own = !x.shared && x.isPlain();
    if (own && layer instanceof ConvolutionLayer convolution) {
      Weights old = weights.get(x.node);
      int channels = convolution.descriptor().oc();
      float[] w = new float[old.weights.length];
      float[] b = new float[channels];
      for (int i = 0; i < w.length; i++) {
        w[i] = (float) (old.weights[i] * at(scale, i / (w.length / channels)));
      }
      for (int k = 0; k < channels; k++) {
        b[k] = (float) (old.bias[k] * at(scale, k) + at(shift, k));
      }
      weights.put(x.node, new Weights(w, b));
      return x;
    }
    if (scale.length == 1 && shift.length == 1) {
      require(scale[0] != 0, "a factor of 0 leaves nothing of the value");
      if (own && layer instanceof ActivationLayer activation) {
        TransformedActivation f = activation.function();
        double factor = f.outputScale() * scale[0];
        if (factor > 0 || !Folding.isRectifier(f.function())) {
          layers.set(
              x.node,
              new ActivationLayer(
                  activation.name(),
                  activation.source(),
                  new TransformedActivation(
                      f.function(),
                      f.inputScale(),
                      f.inputShift(),
                      factor,
                      f.outputShift() + shift[0] / factor,
                      f.negativeSlope()),
                  activation.extent()));
          return x;
        }
      }
      return new Value(x.node, x.scale * scale[0], x.shift * scale[0] + shift[0], x.flat, x.shared);
    }
    int channels = extent(x).channels();
    double[] factors = new double[channels];
    double[] summands = new double[channels];
    for (int c = 0; c < channels; c++) {
      factors[c] = at(scale, c) * x.scale;
      summands[c] = at(scale, c) * x.shift + at(shift, c);
    }
    return eachChannel(wish, x, factors, summands);
  }

  private static double at(double[] values, int channel) {
    return values[values.length == 1 ? 0 : channel];
  }

  /** The value of a layer of its own, with nothing left to do. */
  Value plain(Value x) {
    if (x.isPlain()) {
      return x;
    }
    int channels = extent(x).channels();
    require(channels <= 1 << 20, "it has " + channels + " channels");
    double[] factors = new double[channels];
    double[] summands = new double[channels];
    Arrays.fill(factors, x.scale);
    Arrays.fill(summands, x.shift);
    return eachChannel(layers.get(x.node).name() + ".affine", x, factors, summands);
  }

  /** A 1x1 convolution of each channel alone. */
  private Value eachChannel(String wish, Value x, double[] factors, double[] summands) {
    Extent e = extent(x);
    int c = e.channels();
    float[] w = new float[c];
    float[] b = new float[c];
    for (int k = 0; k < c; k++) {
      w[k] = (float) factors[k];
      b[k] = (float) summands[k];
    }
    Conv2dDescriptor d =
        new Conv2dDescriptor(1, e.height(), e.width(), c, c, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, c);
    int layer = add(new ConvolutionLayer(unique(wish), x.node, d));
    weights.put(layer, new Weights(w, b));
    return Value.of(layer, x.flat);
  }

  /** The sum of two values. */
  Value sum(String wish, Value first, Value second) {
    require(
        extent(first).equals(extent(second)) && first.flat == second.flat,
        "values of "
            + extent(first)
            + " and "
            + extent(second)
            + " are added; only values of one size are");
    if (first.node == second.node) {
      double scale = first.scale + second.scale;
      require(scale != 0, "its sources cancel");
      return new Value(first.node, scale, first.shift + second.shift, first.flat, true);
    }
    Value a = first.scale > 0 ? first : plain(first);
    Value b = second.scale > 0 ? second : plain(second);
    if (layers.get(a.node) instanceof ConvolutionLayer && !a.shared && b.shared) {
      Value swap = a; // a convolution that nothing else reads is computed along with the sum
      a = b;
      b = swap;
    }
    double norm = Math.hypot(a.scale, b.scale);
    double w = Math.min(a.scale / norm, Math.nextDown(1.0));
    require(w > 0 && norm < Double.POSITIVE_INFINITY, "its sources are of too different sizes");
    int layer = add(new NormalizedSumLayer(unique(wish), a.node, b.node, w, extent(a)));
    return new Value(layer, norm, a.shift + b.shift, a.flat, false);
  }

  /** The largest value of each window. */
  Value maxPool(String wish, Value x, MaxPool2dDescriptor d) {
    Value source = x.scale > 0 ? x : plain(x);
    int layer = add(new MaxPoolingLayer(unique(wish), source.node, d));
    return new Value(layer, source.scale, source.shift, false, false);
  }

  /** The mean over all locations. */
  Value mean(String wish, Value x) {
    Extent extent = new Extent(1, 1, extent(x).channels());
    int layer = add(new GlobalMeanPoolingLayer(unique(wish), x.node, extent));
    return new Value(layer, x.scale, x.shift, false, false);
  }

  /** Ends with layers as outputs. */
  Network network(List<Value> outputs) {
    Extent in = layers.getFirst().extent();
    Network.Builder builder = Network.builder(name, in.height(), in.width(), in.channels());
    layers.stream().skip(1).forEach(builder::add);
    return builder.build(outputs.stream().mapToInt(Value::node).toArray());
  }

  /** The values of a finished network's parameters, in their order. */
  List<float[]> parameters(Network network) {
    List<float[]> parameters = new ArrayList<>();
    for (Network.ParameterSpec spec : network.parameters()) {
      Weights w = Objects.requireNonNull(weights.get(spec.layer()));
      parameters.add(spec.kind() == Network.ParameterSpec.Kind.WEIGHTS ? w.weights : w.bias);
    }
    return parameters;
  }
}
