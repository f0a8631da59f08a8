package io.jtrelu.onnx;

import static io.jtrelu.onnx.Refusal.require;

import io.jtrelu.activation.Activation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.onnx.NetworkDraft.Value;
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
import java.util.Set;

/**
 * Makes a network of a graph of anybody's: what each operator of ONNX means, and what of it is not
 * read. {@link NetworkDraft} makes layers of it.
 */
final class GraphReader {
  /** A network, and the values of its parameters in the order of {@link Network#parameters}. */
  record Result(Network network, List<float[]> parameters, List<String> notes) {}

  private static final String KNOWN =
      "Conv, Gemm, MatMul, Relu, LeakyRelu, smooth activations, scalar Mul and Add, Add of two"
          + " values, MaxPool, GlobalAveragePool, ReduceMean, Flatten, Reshape to a vector,"
          + " BatchNormalization, Dropout and Identity";

  private final GraphProto graph;
  private final Map<String, TensorProto> tensors = new HashMap<>();
  private final Map<String, NodeProto> producers = new HashMap<>();

  /** Nodes that are the last of an activation's. */
  private final Map<String, Pattern.Match> matches = new HashMap<>();

  /** How many nodes that count, and outputs, read a value. */
  private final Map<String, Integer> uses = new HashMap<>();

  private final Map<String, Value> values = new HashMap<>();
  private final List<String> notes = new ArrayList<>();

  /** What has been read so far. */
  private final NetworkDraft draft;

  /** The nodes that outputs depend on, in order. */
  private final List<NodeProto> needed;

  private GraphReader(GraphProto graph, String name) {
    this.graph = graph;
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
    needed = needed();
    draft = begin(name);
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

  /** Begins the network with the graph's input. */
  private NetworkDraft begin(String name) {
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
    NetworkDraft begun = new NetworkDraft(name, new Extent(extents[1], extents[2], extents[0]));
    put(input.getName(), begun.input());
    return begun;
  }

  private void put(String output, Value value) {
    boolean several = uses.getOrDefault(output, 0) > 1;
    values.put(output, several ? value.asShared() : value);
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
      put(output, draft.activation(nodeName(node), value(match.x()), match.function(), 0));
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
        last && NetworkDraft.isVector(draft.extent(x)) && (axis == 1 || axis == -1),
        "only one over the classes, at the end, can be left out");
    notes.add(
        "the final "
            + node.getOpType()
            + " was left out: a network ends with logits, and predictions are their softmax");
    return x;
  }

  private Value activation(NodeProto node, Attributes attributes) {
    return switch (node.getOpType()) {
      case "Relu" -> draft.activation(nodeName(node), value(node, 0), Activation.RELU, 0);
      case "LeakyRelu" -> {
        float slope = attributes.real("alpha", 0.01f);
        require(slope >= 0 && slope <= 1, "alpha must lie in [0, 1], got " + slope);
        yield draft.activation(nodeName(node), value(node, 0), Activation.LEAKY_RELU, slope);
      }
      case "Elu" -> {
        float alpha = attributes.real("alpha", 1);
        require(alpha == 1, "alpha must be 1, got " + alpha);
        yield draft.activation(nodeName(node), value(node, 0), Activation.ELU, 0);
      }
      case "Selu" -> {
        double alpha = attributes.real("alpha", 1.6732632f);
        double gamma = attributes.real("gamma", 1.050701f);
        require(
            Math.abs(alpha - 1.6732632) < 1e-5 && Math.abs(gamma - 1.050701) < 1e-5,
            "alpha and gamma must be those of self-normalising networks");
        yield draft.activation(nodeName(node), value(node, 0), Activation.SELU, 0);
      }
      case "Gelu" -> {
        boolean tanh = attributes.text("approximate", "none").equals("tanh");
        yield draft.activation(
            nodeName(node), value(node, 0), tanh ? Activation.GELU : Activation.GELU_EXACT, 0);
      }
      default -> {
        for (Activation function : Activation.values()) {
          if (Expression.of(function) instanceof Expression.Apply apply
              && apply.operator().equals(node.getOpType())
              && apply.arguments().equals(List.of(Expression.X))) {
            yield draft.activation(nodeName(node), value(node, 0), function, 0);
          }
        }
        throw new Refusal(
            "there is no layer for it. Known are "
                + KNOWN
                + "; replace it, or export the part of the model before it");
      }
    };
  }

  private Value convolution(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    TensorProto tensor = tensor(node, 1);
    long[] dims = TensorReader.dims(tensor);
    require(
        dims.length == 4 && !x.flat(),
        "convolutions of images are read; its weights have " + dims.length + " dimensions");
    float[] kcrs = floats(tensor);
    require(kcrs.length > 0, "its weights are empty");
    int oc = (int) dims[0];
    int kh = (int) dims[2];
    int kw = (int) dims[3];
    Extent in = draft.extent(x);
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
    return draft.convolution(nodeName(node), x, d, kcrs, bias);
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
      int channels = draft.extent(result).channels();
      double[] shift = perChannel(floats(tensor(node, 2)), channels);
      for (int i = 0; i < shift.length; i++) {
        shift[i] *= beta;
      }
      return draft.affine(nodeName(node), result, new double[] {1}, shift);
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
    Extent in = draft.extent(x);
    require(
        x.flat(),
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
    return draft.convolution(nodeName(node), x, d, matrix, new float[(int) outputs]).flat(true);
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
      return draft.sum(nodeName(node), first, second);
    }
    require(!constantA || !constantB, "two constants; fold constants when the model is exported");
    Value x = value(constantA ? b : a);
    double[] c = perChannel(constantA ? a : b, x);
    boolean reversed = constantA;
    double[] one = {1};
    double[] zero = {0};
    return switch (operator) {
      case "Add" -> draft.affine(nodeName(node), x, one, c);
      case "Sub" ->
          reversed
              ? draft.affine(nodeName(node), x, new double[] {-1}, c)
              : draft.affine(nodeName(node), x, one, Arrays.stream(c).map(v -> -v).toArray());
      case "Mul" -> draft.affine(nodeName(node), x, c, zero);
      default -> {
        require(!reversed, "a constant divided by a value is not read");
        yield draft.affine(nodeName(node), x, Arrays.stream(c).map(v -> 1 / v).toArray(), zero);
      }
    };
  }

  /** A constant that is broadcast over all but the channels. */
  private double[] perChannel(String constant, Value x) {
    TensorProto tensor = tensors.get(constant);
    long[] dims = TensorReader.dims(tensor);
    int channels = draft.extent(x).channels();
    int fromEnd = x.flat() ? 1 : 3;
    require(
        !x.flat()
            || NetworkDraft.isVector(draft.extent(x))
            || Arrays.stream(dims).allMatch(d -> d == 1),
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
    int channels = draft.extent(x).channels();
    require(!x.flat() || NetworkDraft.isVector(draft.extent(x)), "it normalises a flattened image");
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
    return draft.affine(nodeName(node), x, scale, shift);
  }

  private Value maxPool(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    require(!x.flat(), "it pools a vector");
    Extent in = draft.extent(x);
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
    return draft.maxPool(nodeName(node), x, d);
  }

  private Value averagePool(NodeProto node, Attributes attributes) {
    Extent in = draft.extent(value(node, 0));
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
    require(!x.flat(), "it pools a vector");
    return draft.mean(nodeName(node), x).flat(flat);
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
    require(axis == 1 || (axis == -3 && !x.flat()), "images are flattened at axis 1, not " + axis);
    return x.flat(true);
  }

  private Value reshape(NodeProto node, Attributes attributes) {
    Value x = value(node, 0);
    attributes.ignore("allowzero");
    long[] shape = integers(node, 1);
    Extent in = draft.extent(x);
    boolean batch = shape.length > 0 && shape[0] >= -1 && shape[0] <= 1;
    boolean vector =
        batch
            && shape.length == 2
            && (shape[1] == in.elements() || (shape[1] == -1 && shape[0] != -1));
    boolean image =
        batch
            && shape.length == 4
            && NetworkDraft.isVector(in)
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
        axes != null
            && NetworkDraft.isVector(draft.extent(x))
            && Arrays.equals(sorted(axes), new long[] {2, 3}),
        "axes 2 and 3 of images of one location are read");
    boolean squeeze = node.getOpType().equals("Squeeze");
    require(x.flat() != squeeze, "its source has other axes");
    return x.flat(squeeze);
  }

  private Result network() {
    List<Value> outputs = new ArrayList<>();
    for (ValueInfoProto output : graph.getOutputList()) {
      Value value = values.get(output.getName());
      if (value == null) {
        throw new IllegalArgumentException("output " + output.getName() + ": no node gives it");
      }
      if (value.flat() && !NetworkDraft.isVector(draft.extent(value))) {
        throw new IllegalArgumentException(
            "output " + output.getName() + ": flattened images are no output; end with a layer");
      }
      outputs.add(draft.plain(value));
    }
    Network network = draft.network(outputs);
    return new Result(network, draft.parameters(network), notes);
  }
}
