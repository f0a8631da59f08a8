package io.jtrelu.onnx;

import static io.jtrelu.onnx.GraphWriter.integer;
import static io.jtrelu.onnx.GraphWriter.integers;
import static io.jtrelu.onnx.GraphWriter.real;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.interop.KernelOrder;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.BatchNormLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.DropoutLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NormalizedSumLayer;
import io.jtrelu.nn.SumLayer;
import io.jtrelu.onnx.schema.AttributeProto;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.train.Model;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/** Writes a network as a graph. */
final class NetworkWriter {
  static final String IMAGES = "images";
  static final String LOGITS = "logits";
  static final String PROBABILITIES = "probabilities";

  private final Network network;
  private final Folding folding;

  /** Values of a parameter by its index, in our layout. */
  private final IntFunction<float[]> parameters;

  private final int opset;
  private final GraphWriter graph;

  /** The values of nodes as [N, c, h, w]; and of those of 1x1 as [N, c]. */
  private final @Nullable String[] images;

  private final @Nullable String[] vectors;

  /** The names of results, by node. */
  private final @Nullable String[] results;

  private NetworkWriter(Network network, IntFunction<float[]> parameters, int opset) {
    this.network = network;
    this.parameters = parameters;
    this.opset = opset;
    this.folding = new Folding(network);
    this.graph = new GraphWriter(network.name().isEmpty() ? "network" : network.name());
    int count = network.layers().size();
    this.images = new String[count];
    this.vectors = new String[count];
    this.results = new String[count];
  }

  /** From the network's input to its outputs. */
  static GraphProto write(Network network, IntFunction<float[]> parameters, int opset) {
    NetworkWriter writer = new NetworkWriter(network, parameters, opset);
    Extent in = network.input();
    writer.images[0] = writer.graph.name(IMAGES);
    for (int node : network.outputs()) {
      writer.results[node] =
          writer.graph.name(network.isClassifier() ? LOGITS : network.layers().get(node).name());
    }
    writer.graph.input(IMAGES, TensorProto.DataType.FLOAT, in.channels(), in.height(), in.width());
    writer.layers();
    for (int node : network.outputs()) {
      String result = Objects.requireNonNull(writer.results[node]);
      Extent extent = network.layers().get(node).extent();
      if (isVector(extent)) {
        writer.graph.output(result, extent.channels());
      } else {
        writer.graph.output(result, extent.channels(), extent.height(), extent.width());
      }
    }
    return writer.graph.build();
  }

  /** From bytes of images to probabilities. */
  static GraphProto write(Model model, IntFunction<float[]> parameters, int opset) {
    NetworkWriter writer = new NetworkWriter(model.network(), parameters, opset);
    int logits = model.network().outputs().getFirst();
    String images = writer.graph.name(IMAGES);
    String probabilities = writer.graph.name(PROBABILITIES);
    writer.results[logits] = writer.graph.name(LOGITS);
    writer.graph.input(
        images, TensorProto.DataType.UINT8, model.height(), model.width(), model.channels());
    writer.images[0] = writer.normalization(images, model.normalization());
    writer.layers();
    writer.graph.add("Softmax", probabilities, List.of(writer.vector(logits)), integer("axis", 1));
    writer.graph.output(probabilities, model.classes().size());
    return writer.graph.build();
  }

  private static boolean isVector(Extent extent) {
    return extent.height() == 1 && extent.width() == 1;
  }

  private Extent extent(int node) {
    return network.layers().get(node).extent();
  }

  /** {@link PerLocationNormalization} of bytes [N, h, w, c]. */
  private String normalization(String bytes, PerLocationNormalization pln) {
    int c = pln.channels();
    float[] zero = new float[c];
    float[] unit = new float[c];
    for (int k = 0; k < c; k++) {
      zero[k] = (float) (255 * pln.mean()[k]);
      unit[k] = (float) (1 / (255 * pln.std()[k]));
    }
    long[] perChannel = {1, c, 1, 1};
    String planes = step("Transpose", "planes", List.of(bytes), integers("perm", 0, 3, 1, 2));
    String values =
        step(
            "Cast",
            "values",
            List.of(planes),
            integer("to", TensorProto.DataType.FLOAT.getNumber()));
    String centred = step("Sub", "centred", values, graph.tensor("mean", perChannel, zero));
    String x = step("Mul", "standardised", centred, graph.tensor("inverse_std", perChannel, unit));
    if (pln.homogeneous() == Homogeneous.NONE) {
      return x;
    }
    String squares = step("Mul", "squares", x, x);
    String appended = graph.scalar(1); // the square of the homogeneous channel
    if (pln.homogeneous() == Homogeneous.IMAGE_RMS) {
      String mean = mean("image_mean_square", squares, 1, 2, 3);
      String isZero = step("Equal", "image_is_zero", mean, graph.scalar(0));
      appended = step("Where", "appended", List.of(isZero, graph.scalar(1), mean));
    }
    // The mean square over c + 1 channels, of those over c and the one that is appended.
    String meanSquare =
        step(
            "Add",
            "mean_square",
            step(
                "Mul",
                "mean_square_part",
                mean("location_mean_square", squares, 1),
                graph.scalar(c / (c + 1.0))),
            step("Mul", "appended_part", appended, graph.scalar(1 / (c + 1.0))));
    String normalized =
        step("Div", "normalised", x, step("Sqrt", "root_mean_square", List.of(meanSquare)));
    String homogeneous =
        step(
            "Sqrt",
            "homogeneous",
            List.of(step("Div", "homogeneous_square", appended, meanSquare)));
    return step(
        "Concat", "normalised_images", List.of(normalized, homogeneous), integer("axis", 1));
  }

  /** Axes are an attribute up to opset 17, an input from 18. */
  private String mean(String name, String source, long... axes) {
    return opset < 18
        ? step("ReduceMean", name, List.of(source), integers("axes", axes), integer("keepdims", 1))
        : step(
            "ReduceMean",
            name,
            List.of(source, graph.tensor(name + ".axes", axes)),
            integer("keepdims", 1));
  }

  private String step(String operator, String name, String a, String b) {
    return step(operator, name, List.of(a, b));
  }

  private String step(
      String operator, String name, List<String> inputs, AttributeProto... attributes) {
    return graph.add(operator, graph.name(name), inputs, attributes);
  }

  private void layers() {
    List<Layer> layers = network.layers();
    for (int i = 0; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      switch (layer) {
        case ConvolutionLayer convolution -> convolution(i, convolution);
        case ActivationLayer activation -> activation(i, activation);
        case NormalizedSumLayer sum -> sum(i, sum);
        case SumLayer sum -> sum(i, sum);
        case BatchNormLayer norm -> batchNorm(i, norm);
        case MaxPoolingLayer pool -> maxPool(i, pool);
        case GlobalMeanPoolingLayer pool ->
            image(i, name -> graph.add("GlobalAveragePool", name, List.of(image(pool.source()))));
        case DropoutLayer dropout -> alias(i, dropout.source());
        default -> {
          if (i > 0) {
            throw new OnnxException(
                "layer "
                    + layer.name()
                    + ": a layer of kind "
                    + layer.kind()
                    + " is not known to the ONNX exporter; leave it out, or build it of known ones");
          }
          if (results[0] != null) { // a result that is the input
            alias(0, 0);
          }
        }
      }
    }
  }

  private interface Node {
    void write(String name);
  }

  /** Writes what computes a node's value as [N, c, h, w]. */
  private void image(int node, Node writer) {
    String result = results[node];
    boolean direct = result != null && !isVector(extent(node));
    String name = direct ? result : graph.name(network.layers().get(node).name());
    writer.write(name);
    images[node] = name;
    if (result != null && !direct) {
      vectors[node] = graph.add("Flatten", result, List.of(name));
    }
  }

  /** Writes what computes a node's value as [N, c]. */
  private void vector(int node, Node writer) {
    String result = results[node];
    String name = result != null ? result : graph.name(network.layers().get(node).name());
    writer.write(name);
    vectors[node] = name;
  }

  /** Gives a node's value another name; and a node of its own, where it is a result. */
  private void alias(int node, int source) {
    String result = results[node];
    if (result == null) {
      images[node] = images[source];
      vectors[node] = vectors[source];
    } else if (isVector(extent(node))) {
      vectors[node] = graph.add("Identity", result, List.of(vector(source)));
    } else {
      images[node] = graph.add("Identity", result, List.of(image(source)));
    }
  }

  /** A node's value as [N, c, h, w]. */
  private String image(int node) {
    String name = images[node];
    if (name == null) {
      String vector = Objects.requireNonNull(vectors[node]);
      name = step("Unsqueeze", vector + ".image", vector, graph.tensor("axes", new long[] {2, 3}));
      images[node] = name;
    }
    return name;
  }

  /** A node's value as [N, c]. */
  private String vector(int node) {
    String name = vectors[node];
    if (name == null) {
      String image = Objects.requireNonNull(images[node]);
      name = step("Flatten", image + ".vector", List.of(image));
      vectors[node] = name;
    }
    return name;
  }

  private void convolution(int node, ConvolutionLayer layer) {
    Conv2dDescriptor d = layer.descriptor();
    int weights = parameter(node, ParameterSpec.Kind.WEIGHTS);
    int bias = parameter(node, ParameterSpec.Kind.BIAS);
    String b =
        graph.tensor(network.parameters().get(bias).name(), new long[] {d.oc()}, bias(node, bias));
    String w =
        graph.tensor(
            network.parameters().get(weights).name(),
            d.isLinear()
                ? new long[] {d.oc(), d.ic()}
                : new long[] {d.oc(), d.ic() / d.groups(), d.kh(), d.kw()},
            weights(node, weights, d));
    if (d.isLinear()) {
      vector(
          node,
          name ->
              graph.add("Gemm", name, List.of(vector(layer.source()), w, b), integer("transB", 1)));
      return;
    }
    image(
        node,
        name ->
            graph.add(
                "Conv",
                name,
                List.of(image(layer.source()), w, b),
                integers("kernel_shape", d.kh(), d.kw()),
                integers("strides", d.strideH(), d.strideW()),
                integers("pads", d.padTop(), d.padLeft(), d.padBottom(), d.padRight()),
                integers("dilations", d.dilationH(), d.dilationW()),
                integer("group", d.groups())));
  }

  private int parameter(int node, ParameterSpec.Kind kind) {
    List<ParameterSpec> specs = network.parameters();
    for (int p = 0; p < specs.size(); p++) {
      if (specs.get(p).layer() == node && specs.get(p).kind() == kind) {
        return p;
      }
    }
    throw new IllegalStateException("layer " + network.layers().get(node).name() + ": no " + kind);
  }

  private float[] bias(int node, int parameter) {
    float[] values = parameters.apply(parameter);
    float[] folded = new float[values.length];
    for (int i = 0; i < folded.length; i++) {
      folded[i] = folding.bias(node, values[i]);
    }
    return folded;
  }

  /** KRSC to OIHW, folded. */
  private float[] weights(int node, int parameter, Conv2dDescriptor d) {
    float[] values = parameters.apply(parameter);
    float[] folded = new float[values.length];
    for (int i = 0; i < folded.length; i++) {
      folded[i] = folding.weight(node, values[i]);
    }
    return KernelOrder.toKcrs(folded, d.weights());
  }

  private void maxPool(int node, MaxPoolingLayer layer) {
    MaxPool2dDescriptor d = layer.descriptor();
    image(
        node,
        name ->
            graph.add(
                "MaxPool",
                name,
                List.of(image(layer.source())),
                integers("kernel_shape", d.kernel(), d.kernel()),
                integers("strides", d.stride(), d.stride()),
                integers("pads", d.padBegin(), d.padBegin(), d.padEnd(), d.padEnd())));
  }

  /** By the running statistics. */
  private void batchNorm(int node, BatchNormLayer layer) {
    boolean asVector = images[layer.source()] == null;
    Node norm =
        name -> {
          List<String> inputs = new ArrayList<>();
          inputs.add(asVector ? vector(layer.source()) : image(layer.source()));
          for (ParameterSpec.Kind kind :
              List.of(
                  ParameterSpec.Kind.SCALE,
                  ParameterSpec.Kind.BIAS,
                  ParameterSpec.Kind.MEAN,
                  ParameterSpec.Kind.VARIANCE)) {
            int p = parameter(node, kind);
            ParameterSpec spec = network.parameters().get(p);
            long[] channels = {spec.shape().elements()};
            inputs.add(graph.tensor(spec.name(), channels, parameters.apply(p)));
          }
          graph.add("BatchNormalization", name, inputs, real("epsilon", layer.epsilon()));
        };
    if (asVector) {
      vector(node, norm);
    } else {
      image(node, norm);
    }
  }

  private void sum(int node, Layer layer) {
    boolean asVectors = layer.sources().stream().anyMatch(source -> images[source] == null);
    Node sum =
        name -> {
          String[] sources = new String[2];
          for (int k = 0; k < 2; k++) {
            int source = layer.sources().get(k);
            String value = asVectors ? vector(source) : image(source);
            sources[k] = affine(value, layer.name(), folding.weight(node, k), 0);
          }
          graph.add("Add", name, List.of(sources));
        };
    if (asVectors) {
      vector(node, sum);
    } else {
      image(node, sum);
    }
  }

  /** scale * x + shift. */
  private String affine(String x, String layer, double scale, double shift) {
    String scaled = scale == 1 ? x : step("Mul", layer + ".scaled", x, graph.scalar(scale));
    return shift == 0 ? scaled : step("Add", layer + ".shifted", scaled, graph.scalar(shift));
  }

  private void activation(int node, ActivationLayer layer) {
    boolean asVector = images[layer.source()] == null;
    Node activation =
        name -> {
          double postScale = folding.postScale(node);
          double postShift = folding.postShift(node);
          String x =
              affine(
                  asVector ? vector(layer.source()) : image(layer.source()),
                  layer.name(),
                  folding.preScale(node),
                  folding.preShift(node));
          if (postScale == 1 && postShift == 0) {
            function(layer, x, name);
            return;
          }
          String phi = graph.name(layer.name() + ".function");
          function(layer, x, phi);
          if (postShift == 0) {
            graph.add("Mul", name, List.of(phi, graph.scalar(postScale)));
          } else {
            String scaled =
                postScale == 1
                    ? phi
                    : step("Mul", layer.name() + ".product", phi, graph.scalar(postScale));
            graph.add("Add", name, List.of(scaled, graph.scalar(postShift)));
          }
        };
    if (asVector) {
      vector(node, activation);
    } else {
      image(node, activation);
    }
  }

  /** phi(x). */
  private void function(ActivationLayer layer, String x, String name) {
    TransformedActivation f = layer.function();
    if (f.function() == Activation.RELU) {
      graph.add("Relu", name, List.of(x));
    } else if (f.function() == Activation.LEAKY_RELU) {
      graph.add("LeakyRelu", name, List.of(x), real("alpha", (float) f.negativeSlope()));
    } else if (f.function() instanceof Activation known
        && Expression.of(known) instanceof Expression.Apply apply) {
      apply(layer, apply, x, name);
    } else {
      throw new OnnxException(
          "layer "
              + layer.name()
              + ": ONNX has no operator for the function "
              + f.function().activationName()
              + "; functions that can be exported are "
              + String.join(", ", Activation.names()));
    }
  }

  private void apply(ActivationLayer layer, Expression.Apply apply, String x, String name) {
    String[] arguments = new String[apply.arguments().size()];
    Arrays.setAll(
        arguments,
        i ->
            switch (apply.arguments().get(i)) {
              case Expression.Input ignored -> x;
              case Expression.Constant constant -> graph.scalar(constant.value());
              case Expression.Apply inner -> {
                String part = graph.name(layer.name() + "." + inner.operator());
                apply(layer, inner, x, part);
                yield part;
              }
            });
    graph.add(apply.operator(), name, List.of(arguments));
  }
}
