package io.jtrelu.onnx;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.NodeProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.onnx.schema.TypeProto;
import io.jtrelu.onnx.schema.ValueInfoProto;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * Makes a network of a graph of anybody's.
 *
 * <p>A value of the graph is scale * (a layer's result) + shift. The two numbers gather what comes
 * from scalar Mul and Add, and from sums a + b, which are r times a normalised sum; whoever reads
 * the value takes them in: weights, a rectifier's scale, an activation's input, the weights of the
 * next sum. Where nobody can, a 1x1 convolution of each channel alone does what is left.
 */
final class GraphReader {
  /** A network, and the values of its parameters in the order of {@link Network#parameters}. */
  record Result(Network network, List<float[]> parameters, List<String> notes) {}

  /**
   * A value of the graph.
   *
   * @param node index of a layer
   * @param scale factor of the layer's result
   * @param shift added to it
   * @param flat whether it is [N, c * h * w] instead of [N, c, h, w]
   * @param shared whether anything else reads the layer's result
   */
  private record Value(int node, double scale, double shift, boolean flat, boolean shared) {
    static Value of(int node, boolean flat) {
      return new Value(node, 1, 0, flat, false);
    }

    Value flat(boolean now) {
      return new Value(node, scale, shift, now, shared);
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

  /** What is refused, without file and node. */
  private static final class Refusal extends RuntimeException {
    private static final long serialVersionUID = 1;

    Refusal(String message) {
      super(message);
    }
  }

  private static final String KNOWN =
      "Conv, Gemm, MatMul, Relu, LeakyRelu, smooth activations, scalar Mul and Add, Add of two"
          + " values, MaxPool, GlobalAveragePool, ReduceMean, Flatten, Reshape to a vector,"
          + " BatchNormalization, Dropout and Identity";

  private final GraphProto graph;
  private final String name;
  private final Map<String, TensorProto> tensors = new HashMap<>();
  private final Map<String, NodeProto> producers = new HashMap<>();

  /** Nodes that are the last of an activation's. */
  private final Map<String, Pattern.Match> matches = new HashMap<>();

  /** How many nodes that count, and outputs, read a value. */
  private final Map<String, Integer> uses = new HashMap<>();

  private final Map<String, Value> values = new HashMap<>();
  private final List<Layer> layers = new ArrayList<>();
  private final Map<Integer, Weights> weights = new HashMap<>();
  private final Set<String> names = new HashSet<>();
  private final List<String> notes = new ArrayList<>();

  private GraphReader(GraphProto graph, String name) {
    this.graph = graph;
    this.name = name;
  }

  /**
   * Reads a graph.
   *
   * @param name of the network
   * @throws IllegalArgumentException naming what is refused
   */
  static Result read(GraphProto graph, String name) {
    return new GraphReader(graph, name).read();
  }

  private Result read() {
    for (TensorProto tensor : graph.getInitializerList()) {
      tensors.put(tensor.getName(), tensor);
    }
    for (NodeProto node : graph.getNodeList()) {
      if (node.getOpType().equals("Constant")) {
        constant(node);
      }
      for (String output : node.getOutputList()) {
        if (!output.isEmpty() && producers.put(output, node) != null) {
          throw new IllegalArgumentException("two nodes give the value " + output);
        }
      }
    }
    Pattern pattern = new Pattern(producers::get, this::scalar);
    for (NodeProto node : graph.getNodeList()) {
      Pattern.Match match = pattern.find(node);
      if (match != null) {
        matches.put(node.getOutput(0), match);
      }
    }
    List<NodeProto> needed = needed();
    input();
    for (NodeProto node : needed) {
      String where = "node " + nodeName(node) + " (" + node.getOpType() + "): ";
      try {
        node(node);
      } catch (Refusal | IllegalArgumentException refused) {
        throw new IllegalArgumentException(where + refused.getMessage(), refused);
      }
    }
    return network();
  }

  private static String nodeName(NodeProto node) {
    return !node.getName().isEmpty()
        ? node.getName()
        : node.getOutputCount() > 0 ? node.getOutput(0) : "without a name";
  }

  /** The nodes that outputs depend on, in order. */
  private List<NodeProto> needed() {
    if (graph.getOutputCount() == 0) {
      throw new IllegalArgumentException("the graph has no output");
    }
    Set<String> wanted = new HashSet<>();
    for (ValueInfoProto output : graph.getOutputList()) {
      wanted.add(output.getName());
      uses.merge(output.getName(), 1, Integer::sum);
    }
    List<NodeProto> nodes = graph.getNodeList();
    List<NodeProto> needed = new ArrayList<>();
    for (int i = nodes.size() - 1; i >= 0; i--) {
      NodeProto node = nodes.get(i);
      if (node.getOpType().equals("Constant")
          || node.getOutputList().stream().noneMatch(wanted::contains)) {
        continue;
      }
      needed.add(node);
      for (String input : inputs(node)) {
        wanted.add(input);
        uses.merge(input, 1, Integer::sum);
      }
    }
    return needed.reversed();
  }

  private List<String> inputs(NodeProto node) {
    Pattern.Match match = node.getOutputCount() == 0 ? null : matches.get(node.getOutput(0));
    return match != null ? List.of(match.x()) : node.getInputList();
  }

  private void constant(NodeProto node) {
    if (node.getOutputCount() != 1) {
      return;
    }
    Attributes attributes = new Attributes(node);
    TensorProto tensor = attributes.tensor("value");
    if (tensor == null) {
      TensorProto.Builder made = TensorProto.newBuilder();
      long[] integers = attributes.integers("value_ints");
      float[] reals = attributes.reals("value_floats");
      if (integers != null) {
        made.setDataType(TensorProto.DataType.INT64.getNumber()).addDims(integers.length);
        Arrays.stream(integers).forEach(made::addInt64Data);
      } else if (reals != null) {
        made.setDataType(TensorProto.DataType.FLOAT.getNumber()).addDims(reals.length);
        for (float real : reals) {
          made.addFloatData(real);
        }
      } else if (node.getAttributeCount() == 1
          && node.getAttribute(0).getName().equals("value_float")) {
        made.setDataType(TensorProto.DataType.FLOAT.getNumber())
            .addFloatData(node.getAttribute(0).getF());
      } else {
        made.setDataType(TensorProto.DataType.INT64.getNumber())
            .addInt64Data(attributes.integer("value_int", 0));
      }
      tensor = made.build();
    }
    tensors.put(node.getOutput(0), tensor);
  }

  private double scalar(String value) {
    TensorProto tensor = tensors.get(value);
    if (tensor == null || Arrays.stream(TensorReader.dims(tensor)).anyMatch(d -> d != 1)) {
      return Double.NaN;
    }
    try {
      return TensorReader.floats(tensor)[0];
    } catch (IllegalArgumentException another) {
      return Double.NaN;
    }
  }

  private void input() {
    List<ValueInfoProto> inputs =
        graph.getInputList().stream().filter(port -> !tensors.containsKey(port.getName())).toList();
    if (inputs.size() != 1) {
      throw new IllegalArgumentException(
          "the graph has " + inputs.size() + " inputs; one, of images, is read");
    }
    ValueInfoProto input = inputs.getFirst();
    TypeProto.Tensor type = input.getType().getTensorType();
    String where = "input " + input.getName() + ": ";
    if (type.getElemType() != TensorProto.DataType.FLOAT.getNumber()) {
      throw new IllegalArgumentException(
          where + "images of float32 are read; this has ONNX's type " + type.getElemType());
    }
    if (type.getShape().getDimCount() != 4) {
      throw new IllegalArgumentException(
          where
              + "images [N, channels, height, width] are read; this has "
              + type.getShape().getDimCount()
              + " dimensions");
    }
    int[] extents = new int[3];
    for (int i = 0; i < 3; i++) {
      long extent = type.getShape().getDim(i + 1).getDimValue();
      if (extent < 1 || extent > Integer.MAX_VALUE) {
        throw new IllegalArgumentException(
            where
                + "channels, height and width must be numbers; export the model for images of one"
                + " size");
      }
      extents[i] = (int) extent;
    }
    names.add("input");
    Network.Builder probe = Network.builder(name, extents[1], extents[2], extents[0]);
    layers.add(probe.build().layers().getFirst());
    put(input.getName(), Value.of(0, false));
  }

  private void put(String output, Value value) {
    boolean several = uses.getOrDefault(output, 0) > 1;
    values.put(
        output,
        new Value(value.node, value.scale, value.shift, value.flat, value.shared || several));
  }

  private Value value(NodeProto node, int input) {
    return value(name(node, input));
  }

  private Value value(String input) {
    Value value = values.get(input);
    if (value == null) {
      throw new Refusal(
          tensors.containsKey(input)
              ? "a value of the network is expected, but " + input + " is a constant"
              : "it reads " + input + ", which no node before it gives");
    }
    return value;
  }

  private static String name(NodeProto node, int input) {
    if (input >= node.getInputCount() || node.getInput(input).isEmpty()) {
      throw new Refusal("input " + input + " is missing");
    }
    return node.getInput(input);
  }

  private static boolean has(NodeProto node, int input) {
    return input < node.getInputCount() && !node.getInput(input).isEmpty();
  }

  private TensorProto tensor(NodeProto node, int input) {
    TensorProto tensor = tensors.get(name(node, input));
    if (tensor == null) {
      throw new Refusal(
          "input "
              + node.getInput(input)
              + " must be a constant of the file; fold constants when the model is exported");
    }
    return tensor;
  }

  private static float[] floats(TensorProto tensor) {
    try {
      return TensorReader.floats(tensor);
    } catch (IllegalArgumentException malformed) {
      throw new Refusal("tensor " + tensor.getName() + " " + malformed.getMessage());
    }
  }

  private long[] integers(NodeProto node, int input) {
    TensorProto tensor = tensor(node, input);
    try {
      return TensorReader.integers(tensor);
    } catch (IllegalArgumentException malformed) {
      throw new Refusal("tensor " + tensor.getName() + " " + malformed.getMessage());
    }
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) {
      throw new Refusal(otherwise);
    }
  }

  private Extent extent(Value value) {
    return layers.get(value.node).extent();
  }

  private static boolean isVector(Extent extent) {
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

  private void node(NodeProto node) {
    require(
        node.getDomain().isEmpty() || node.getDomain().equals("ai.onnx"),
        "it is of the domain "
            + node.getDomain()
            + ", which is a runtime's or a library's own; export with standard operators");
    String output = node.getOutputCount() == 0 ? "" : node.getOutput(0);
    for (int i = 1; i < node.getOutputCount(); i++) {
      require(
          uses.getOrDefault(node.getOutput(i), 0) == 0,
          "only its first output can be used, not " + node.getOutput(i));
    }
    Pattern.Match match = matches.get(output);
    if (match != null) {
      put(output, activation(node, value(match.x()), match.function(), 0));
      return;
    }
    Attributes attributes = new Attributes(node);
    Value result =
        switch (node.getOpType()) {
          case "Conv" -> convolution(node, attributes);
          case "Gemm" -> gemm(node, attributes);
          case "MatMul" -> matMul(node);
          case "Add", "Sub", "Mul", "Div" -> arithmetic(node);
          case "BatchNormalization" -> batchNormalization(node, attributes);
          case "MaxPool" -> maxPool(node, attributes);
          case "AveragePool" -> averagePool(node, attributes);
          case "GlobalAveragePool" -> mean(node, false);
          case "ReduceMean" -> reduceMean(node, attributes);
          case "Flatten" -> flatten(node, attributes);
          case "Reshape" -> reshape(node, attributes);
          case "Squeeze", "Unsqueeze" -> squeeze(node, attributes);
          case "Identity" -> value(node, 0);
          case "Dropout" -> {
            attributes.ignore("ratio");
            attributes.ignore("seed");
            yield value(node, 0);
          }
          case "Softmax", "LogSoftmax" -> softmax(node, attributes);
          default -> activation(node, attributes);
        };
    attributes.requireNoOthers();
    put(output, result);
  }

  private Value softmax(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    long axis = attributes.integer("axis", -1);
    boolean last =
        graph.getOutputList().stream().anyMatch(o -> o.getName().equals(node.getOutput(0)))
            && uses.get(node.getOutput(0)) == 1;
    require(
        last && isVector(extent(x)) && (axis == 1 || axis == -1),
        "only one over the classes, at the end, can be left out");
    notes.add(
        "the final "
            + node.getOpType()
            + " was left out: a network ends with logits, and predictions are their softmax");
    return x;
  }

  private Value activation(NodeProto node, Attributes attributes) {
    return switch (node.getOpType()) {
      case "Relu" -> activation(node, value(node, 0), Activation.RELU, 0);
      case "LeakyRelu" -> {
        float slope = attributes.real("alpha", 0.01f);
        require(slope >= 0 && slope <= 1, "alpha must lie in [0, 1], got " + slope);
        yield activation(node, value(node, 0), Activation.LEAKY_RELU, slope);
      }
      case "Elu" -> {
        float alpha = attributes.real("alpha", 1);
        require(alpha == 1, "alpha must be 1, got " + alpha);
        yield activation(node, value(node, 0), Activation.ELU, 0);
      }
      case "Selu" -> {
        double alpha = attributes.real("alpha", 1.6732632f);
        double gamma = attributes.real("gamma", 1.050701f);
        require(
            Math.abs(alpha - 1.6732632) < 1e-5 && Math.abs(gamma - 1.050701) < 1e-5,
            "alpha and gamma must be those of self-normalising networks");
        yield activation(node, value(node, 0), Activation.SELU, 0);
      }
      case "Gelu" -> {
        boolean tanh = attributes.text("approximate", "none").equals("tanh");
        yield activation(node, value(node, 0), tanh ? Activation.GELU : Activation.GELU_EXACT, 0);
      }
      default -> {
        for (Activation function : Activation.values()) {
          if (Expression.of(function) instanceof Expression.Apply apply
              && apply.operator().equals(node.getOpType())
              && apply.arguments().equals(List.of(Expression.X))) {
            yield activation(node, value(node, 0), function, 0);
          }
        }
        throw new Refusal(
            "there is no layer for it. Known are "
                + KNOWN
                + "; replace it, or export the part of the model before it");
      }
    };
  }

  private Value activation(NodeProto node, Value x, Activation function, float slope) {
    boolean homogeneous = Folding.isRectifier(function) && x.shift == 0 && x.scale > 0;
    TransformedActivation phi =
        homogeneous
            ? new TransformedActivation(function, 1, 0, x.scale, 0, slope)
            : new TransformedActivation(function, x.scale, x.shift, 1, 0, slope);
    return Value.of(
        add(new ActivationLayer(unique(nodeName(node)), x.node, phi, extent(x))), x.flat);
  }

  private Value convolution(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    TensorProto tensor = tensor(node, 1);
    long[] dims = TensorReader.dims(tensor);
    require(
        dims.length == 4 && !x.flat,
        "convolutions of images are read; its weights have " + dims.length + " dimensions");
    float[] oihw = floats(tensor);
    require(oihw.length > 0, "its weights are empty");
    int oc = (int) dims[0];
    int kh = (int) dims[2];
    int kw = (int) dims[3];
    Extent in = extent(x);
    int[] kernel = attributes.sizes("kernel_shape", 2, 0);
    require(
        (kernel[0] == 0 || kernel[0] == kh) && (kernel[1] == 0 || kernel[1] == kw),
        "kernel_shape is not that of the weights");
    int[] stride = attributes.sizes("strides", 2, 1);
    int[] dilation = attributes.sizes("dilations", 2, 1);
    int[] pads =
        pads(attributes, new int[] {in.height(), in.width()}, new int[] {kh, kw}, stride, dilation);
    long groups = attributes.integer("group", 1);
    require(
        groups >= 1 && groups <= in.channels() && dims[1] * groups == in.channels(),
        "weights of "
            + Arrays.toString(dims)
            + " in "
            + groups
            + " groups do not fit "
            + in.channels()
            + " channels");
    float[] bias = new float[oc];
    if (has(node, 2)) {
      bias = floats(tensor(node, 2));
      require(bias.length == oc, "there are " + bias.length + " biases for " + oc + " channels");
    }
    boolean padded = Arrays.stream(pads).anyMatch(p -> p != 0);
    Value source = x.shift != 0 && padded ? plain(x) : x;
    Conv2dDescriptor d =
        new Conv2dDescriptor(
            1,
            in.height(),
            in.width(),
            in.channels(),
            oc,
            kh,
            kw,
            stride[0],
            stride[1],
            pads[0],
            pads[1],
            pads[2],
            pads[3],
            dilation[0],
            dilation[1],
            (int) groups);
    return Value.of(convolution(node, source, d, oihw, bias), false);
  }

  /** Adds a convolution that takes in what its source has left. */
  private int convolution(NodeProto node, Value x, Conv2dDescriptor d, float[] oihw, float[] bias) {
    int taps = d.kh() * d.kw();
    int channels = d.ic() / d.groups();
    float[] krsc = new float[oihw.length];
    float[] shifted = bias.clone();
    for (int k = 0; k < d.oc(); k++) {
      double sum = 0;
      for (int c = 0; c < channels; c++) {
        for (int tap = 0; tap < taps; tap++) {
          float value = oihw[(k * channels + c) * taps + tap];
          krsc[(k * taps + tap) * channels + c] = (float) (x.scale * value);
          sum += value;
        }
      }
      shifted[k] = (float) (bias[k] + x.shift * sum);
    }
    int layer = add(new ConvolutionLayer(unique(nodeName(node)), x.node, d));
    weights.put(layer, new Weights(krsc, shifted));
    return layer;
  }

  /** Top, left, bottom, right. */
  private static int[] pads(
      Attributes attributes, int[] extent, int[] kernel, int[] stride, int[] dilation) {
    String auto = attributes.text("auto_pad", "NOTSET");
    int[] given = attributes.sizes("pads", 4, 0);
    return switch (auto) {
      case "NOTSET", "" -> given;
      case "VALID" -> new int[4];
      case "SAME_UPPER", "SAME_LOWER" -> {
        int[] pads = new int[4];
        for (int axis = 0; axis < 2; axis++) {
          require(stride[axis] > 0, "strides must be positive");
          long out = Math.ceilDiv(extent[axis], stride[axis]);
          long total =
              Math.max(
                  (out - 1) * stride[axis]
                      + (long) dilation[axis] * (kernel[axis] - 1)
                      + 1
                      - extent[axis],
                  0);
          require(total <= Integer.MAX_VALUE, "its padding is too large");
          int less = (int) (total / 2);
          int more = (int) (total - less);
          pads[axis] = auto.equals("SAME_UPPER") ? less : more;
          pads[axis + 2] = auto.equals("SAME_UPPER") ? more : less;
        }
        yield pads;
      }
      default -> throw new Refusal("auto_pad " + auto + " is not known");
    };
  }

  private Value gemm(NodeProto node, Attributes attributes) {
    float alpha = attributes.real("alpha", 1);
    float beta = attributes.real("beta", 1);
    require(attributes.integer("transA", 0) == 0, "transA is not read");
    Value result = linear(node, attributes.integer("transB", 0) != 0, alpha);
    if (has(node, 2)) {
      int channels = extent(result).channels();
      double[] shift = perChannel(floats(tensor(node, 2)), channels);
      for (int i = 0; i < shift.length; i++) {
        shift[i] *= beta;
      }
      return affine(node, result, new double[] {1}, shift);
    }
    return result;
  }

  private Value matMul(NodeProto node) {
    return linear(node, false, 1);
  }

  private static double[] perChannel(float[] values, int channels) {
    require(
        values.length == channels || values.length == 1,
        values.length + " values do not fit " + channels + " channels");
    double[] all = new double[values.length];
    Arrays.setAll(all, i -> values[i]);
    return all;
  }

  /** A matrix over the flattened image: a convolution whose kernel is the image. */
  private Value linear(NodeProto node, boolean transposed, double alpha) {
    Value x = value(node, 0);
    Extent in = extent(x);
    require(
        x.flat,
        "a matrix is read for vectors; flatten the images before it, or pool them to one location");
    TensorProto tensor = tensor(node, 1);
    long[] dims = TensorReader.dims(tensor);
    require(dims.length == 2, "its weights have " + dims.length + " dimensions, not 2");
    float[] given = floats(tensor);
    long inputs = transposed ? dims[1] : dims[0];
    long outputs = transposed ? dims[0] : dims[1];
    require(
        inputs == in.elements() && outputs > 0,
        "weights of " + Arrays.toString(dims) + " do not fit " + in.elements() + " values");
    float[] matrix = new float[given.length];
    for (int o = 0; o < outputs; o++) {
      for (int i = 0; i < inputs; i++) {
        int to = (int) (o * inputs + i);
        matrix[to] = (float) (alpha * given[transposed ? to : (int) (i * outputs + o)]);
      }
    }
    Conv2dDescriptor d =
        new Conv2dDescriptor(
            1,
            in.height(),
            in.width(),
            in.channels(),
            (int) outputs,
            in.height(),
            in.width(),
            1,
            1,
            0,
            0,
            0,
            0,
            1,
            1,
            1);
    return Value.of(convolution(node, x, d, matrix, new float[(int) outputs]), true);
  }

  private Value arithmetic(NodeProto node) {
    String operator = node.getOpType();
    String a = name(node, 0);
    String b = name(node, 1);
    boolean constantA = tensors.containsKey(a);
    boolean constantB = tensors.containsKey(b);
    if (!constantA && !constantB) {
      Value first = value(a);
      Value second = value(b);
      require(
          operator.equals("Add"),
          "of two values only Add is read; this is no activation that is known");
      return sum(node, first, second);
    }
    require(!constantA || !constantB, "two constants; fold constants when the model is exported");
    Value x = value(constantA ? b : a);
    double[] c = perChannel(constantA ? a : b, x);
    boolean reversed = constantA;
    double[] one = {1};
    double[] zero = {0};
    return switch (operator) {
      case "Add" -> affine(node, x, one, c);
      case "Sub" ->
          reversed
              ? affine(node, x, new double[] {-1}, c)
              : affine(node, x, one, Arrays.stream(c).map(v -> -v).toArray());
      case "Mul" -> affine(node, x, c, zero);
      default -> {
        require(!reversed, "a constant divided by a value is not read");
        yield affine(node, x, Arrays.stream(c).map(v -> 1 / v).toArray(), zero);
      }
    };
  }

  /** A constant that is broadcast over all but the channels. */
  private double[] perChannel(String constant, Value x) {
    TensorProto tensor = tensors.get(constant);
    long[] dims = TensorReader.dims(tensor);
    int channels = extent(x).channels();
    int fromEnd = x.flat ? 1 : 3;
    require(
        !x.flat || isVector(extent(x)) || Arrays.stream(dims).allMatch(d -> d == 1),
        "a constant for each value of a flattened image is not read");
    for (int i = 0; i < dims.length; i++) {
      require(
          dims[i] == 1 || (dims.length - i == fromEnd && dims[i] == channels),
          "a constant of "
              + Arrays.toString(dims)
              + " is neither a scalar nor one value for each of "
              + channels
              + " channels");
    }
    return perChannel(floats(tensor), channels);
  }

  private Value batchNormalization(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    double epsilon = attributes.real("epsilon", 1e-5f);
    attributes.ignore("momentum");
    attributes.ignore("spatial");
    require(attributes.integer("training_mode", 0) == 0, "it is in training mode");
    int channels = extent(x).channels();
    require(!x.flat || isVector(extent(x)), "it normalises a flattened image");
    double[][] p = new double[4][];
    for (int i = 0; i < 4; i++) {
      p[i] = perChannel(floats(tensor(node, i + 1)), channels);
      require(p[i].length == channels, "it has " + p[i].length + " values for each constant");
    }
    double[] scale = new double[channels];
    double[] shift = new double[channels];
    for (int c = 0; c < channels; c++) {
      scale[c] = p[0][c] / Math.sqrt(p[3][c] + epsilon);
      shift[c] = p[1][c] - p[2][c] * scale[c];
    }
    return affine(node, x, scale, shift);
  }

  /** scale * x + shift, with one value or one for each channel. */
  private Value affine(NodeProto node, Value x, double[] scale, double[] shift) {
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
    return eachChannel(nodeName(node), x, factors, summands);
  }

  private static double at(double[] values, int channel) {
    return values[values.length == 1 ? 0 : channel];
  }

  /** The value of a layer of its own, with nothing left to do. */
  private Value plain(Value x) {
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

  private Value sum(NodeProto node, Value first, Value second) {
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
    int layer = add(new NormalizedSumLayer(unique(nodeName(node)), a.node, b.node, w, extent(a)));
    return new Value(layer, norm, a.shift + b.shift, a.flat, false);
  }

  private Value maxPool(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    require(!x.flat, "it pools a vector");
    Value source = x.scale > 0 ? x : plain(x);
    Extent in = extent(source);
    int[] extent = {in.height(), in.width()};
    int[] kernel = attributes.sizes("kernel_shape", 2, 0);
    int[] stride = attributes.sizes("strides", 2, 1);
    int[] dilation = attributes.sizes("dilations", 2, 1);
    attributes.ignore("storage_order");
    int[] pads = pads(attributes, extent, kernel, stride, dilation);
    require(dilation[0] == 1 && dilation[1] == 1, "dilated pooling is not there");
    require(kernel[0] == kernel[1] && stride[0] == stride[1], "windows must be square");
    require(stride[0] > 0 && kernel[0] > 0, "windows and strides must be positive");
    if (attributes.integer("ceil_mode", 0) != 0) {
      for (int axis = 0; axis < 2; axis++) {
        long padded = (long) extent[axis] + pads[axis] + pads[axis + 2];
        long out = Math.ceilDiv(padded - kernel[axis], stride[axis]) + 1;
        if ((out - 1) * stride[axis] >= (long) extent[axis] + pads[axis]) {
          out--; // a window begins within the image
        }
        long end = (out - 1) * stride[axis] + kernel[axis] - extent[axis] - pads[axis];
        pads[axis + 2] = (int) Math.min(Math.max(end, pads[axis + 2]), Integer.MAX_VALUE);
      }
    }
    require(
        pads[0] == pads[1] && pads[2] == pads[3],
        "padding must be the same above and on the left, and below and on the right; it is "
            + Arrays.toString(pads));
    MaxPool2dDescriptor d =
        new MaxPool2dDescriptor(
            1, in.height(), in.width(), in.channels(), kernel[0], stride[0], pads[0], pads[2]);
    int layer = add(new MaxPoolingLayer(unique(nodeName(node)), source.node, d));
    return new Value(layer, source.scale, source.shift, false, false);
  }

  private Value averagePool(NodeProto node, Attributes attributes) {
    Extent in = extent(value(node, 0));
    int[] kernel = attributes.sizes("kernel_shape", 2, 0);
    int[] pads = attributes.sizes("pads", 4, 0);
    attributes.ignore("strides");
    attributes.ignore("count_include_pad");
    attributes.ignore("ceil_mode");
    require(
        kernel[0] == in.height()
            && kernel[1] == in.width()
            && Arrays.stream(pads).allMatch(p -> p == 0),
        "means over parts of an image are not there; a mean over all of it is");
    return mean(node, false);
  }

  private Value mean(NodeProto node, boolean flat) {
    Value x = value(node, 0);
    require(!x.flat, "it pools a vector");
    int layer =
        add(
            new GlobalMeanPoolingLayer(
                unique(nodeName(node)), x.node, new Extent(1, 1, extent(x).channels())));
    return new Value(layer, x.scale, x.shift, flat, false);
  }

  private Value reduceMean(NodeProto node, Attributes attributes) {
    boolean keeps = attributes.integer("keepdims", 1) != 0;
    attributes.ignore("noop_with_empty_axes");
    long[] axes = attributes.integers("axes");
    if (axes == null && has(node, 1)) {
      axes = integers(node, 1);
    }
    require(
        axes != null && Arrays.equals(sorted(axes), new long[] {2, 3}),
        "means over all locations, axes 2 and 3, are read");
    return mean(node, !keeps);
  }

  private static long[] sorted(long[] axes) {
    return Arrays.stream(axes).map(axis -> axis < 0 ? axis + 4 : axis).sorted().toArray();
  }

  private Value flatten(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    long axis = attributes.integer("axis", 1);
    require(axis == 1 || (axis == -3 && !x.flat), "images are flattened at axis 1, not " + axis);
    return x.flat(true);
  }

  private Value reshape(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    attributes.ignore("allowzero");
    long[] shape = integers(node, 1);
    Extent in = extent(x);
    boolean batch = shape.length > 0 && shape[0] >= -1 && shape[0] <= 1;
    boolean vector =
        batch
            && shape.length == 2
            && (shape[1] == in.elements() || (shape[1] == -1 && shape[0] != -1));
    boolean image =
        batch
            && shape.length == 4
            && isVector(in)
            && (shape[1] == in.channels() || (shape[1] == -1 && shape[0] != -1))
            && shape[2] == 1
            && shape[3] == 1;
    require(
        vector || image,
        "images are reshaped to vectors [N, -1]; the shape is " + Arrays.toString(shape));
    return x.flat(vector);
  }

  private Value squeeze(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    long[] axes = attributes.integers("axes");
    if (axes == null && has(node, 1)) {
      axes = integers(node, 1);
    }
    require(
        axes != null && isVector(extent(x)) && Arrays.equals(sorted(axes), new long[] {2, 3}),
        "axes 2 and 3 of images of one location are read");
    boolean squeeze = node.getOpType().equals("Squeeze");
    require(x.flat != squeeze, "its source has other axes");
    return x.flat(squeeze);
  }

  private Result network() {
    int[] outputs = new int[graph.getOutputCount()];
    for (int i = 0; i < outputs.length; i++) {
      String output = graph.getOutput(i).getName();
      Value value = values.get(output);
      if (value == null) {
        throw new IllegalArgumentException("output " + output + ": no node gives it");
      }
      if (value.flat && !isVector(extent(value))) {
        throw new IllegalArgumentException(
            "output " + output + ": flattened images are no output; end with a layer");
      }
      outputs[i] = plain(value).node;
    }
    Network.Builder builder = null;
    for (Layer layer : layers) {
      if (builder == null) {
        Extent in = layer.extent();
        builder = Network.builder(name, in.height(), in.width(), in.channels());
      } else {
        builder.add(layer);
      }
    }
    Network network = Objects.requireNonNull(builder).build(outputs);
    List<float[]> parameters = new ArrayList<>();
    for (Network.ParameterSpec spec : network.parameters()) {
      Weights w = Objects.requireNonNull(weights.get(spec.layer()));
      parameters.add(spec.kind() == Network.ParameterSpec.Kind.WEIGHTS ? w.weights : w.bias);
    }
    return new Result(network, parameters, notes);
  }
}
