package io.jtrelu.onnx;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.OperatorSetIdProto;
import io.jtrelu.onnx.schema.StringStringEntryProto;
import io.jtrelu.train.Model;
import io.jtrelu.train.TrainedModel;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * Writes networks as ONNX models (IR version 8, opset 17 unless another is asked for), in F32, for
 * batches of any size N.
 *
 * <pre>
 * images   float32 [N, c, h, w]    the network's input, normalised already
 * logits   float32 [N, classes]    of a classifier; the outputs of other networks have the names of
 *                                  their layers and are [N, c, h, w], or [N, c] where they are 1x1
 * </pre>
 *
 * <p>{@link Options#withNormalization} puts what {@link io.jtrelu.inference.Predictor} does around
 * the network into the model: {@code images uint8 [N, h, w, c]}, the bytes of pictures of the
 * model's size, gray or red, green, blue; and {@code probabilities float32 [N, classes]}.
 *
 * <p>Scales of rectifiers and weights of sums become part of weights and biases, so that runtimes
 * fuse Conv and LeakyRelu; dropout is left out. What cannot move there stays as Mul and Add. The
 * model's metadata hold the network and the model as JSON, which {@link OnnxImporter} reads, and
 * for people and programs class names, shaping, functions with slope and scale, and the library's
 * version.
 *
 * <p>Differences to know: ONNX Runtime's MaxPool, where all optimisations rearrange data, forgets
 * what stood before a NaN in a window; this library's passes NaN on. And a runtime computes smooth
 * functions in F32: shaped ones whose output scale is large (TAT for gelu reaches some hundreds)
 * multiply its roundings.
 */
public final class OnnxExporter {
  static final int IR_VERSION = 8;

  /** Key of the model as JSON, {@link Model#toJson}. */
  static final String MODEL = "jtrelu.model";

  /** Key of a network without a model as JSON, {@link NetworkJson}. */
  static final String NETWORK = "jtrelu.network";

  private static final String PRODUCER = "jtrelu";

  private OnnxExporter() {}

  /**
   * What is written.
   *
   * @param opset version of ONNX's operators, 15 to 18
   * @param withNormalization whether the model takes bytes of images and gives probabilities
   */
  public record Options(int opset, boolean withNormalization) {
    /** Opset 17, logits of normalised images. */
    public static final Options DEFAULT = new Options(17, false);

    /** Least opset. */
    public static final int MIN_OPSET = 15;

    /** Greatest opset. */
    public static final int MAX_OPSET = 18;

    /**
     * @throws IllegalArgumentException if the opset is another
     */
    public Options {
      if (opset < MIN_OPSET || opset > MAX_OPSET) {
        throw new IllegalArgumentException(
            "opset " + opset + " is not written; from " + MIN_OPSET + " to " + MAX_OPSET + " are");
      }
    }
  }

  /**
   * Exports a trained model.
   *
   * @param trained folder of a run, for its last checkpoint, or a checkpoint
   * @throws IOException if it cannot be read or is not one
   * @throws OnnxException if a layer has no counterpart in ONNX, naming it
   */
  public static OnnxModel export(Path trained, Options options) throws IOException {
    try (TrainedModel read = TrainedModel.open(trained)) {
      return export(read.model(), read.parameters(), options);
    }
  }

  /**
   * Exports a model.
   *
   * @param parameters of its network, in host memory; copied
   * @throws OnnxException if a layer has no counterpart in ONNX, naming it; if a parameter is not
   *     finite; or if the file would be larger than the 2 GiB that the format allows
   */
  public static OnnxModel export(Model model, Parameters parameters, Options options) {
    return export(model.network(), model, values(model.network(), parameters), options);
  }

  /**
   * Exports a network, with any number of outputs of any size.
   *
   * @param parameters of the network, in host memory; copied
   * @throws OnnxException as above
   * @throws IllegalArgumentException if a normalisation is asked for, which only a model has
   */
  public static OnnxModel export(Network network, Parameters parameters, Options options) {
    if (options.withNormalization()) {
      throw new IllegalArgumentException(
          "a network alone has no normalisation; export a model, which has one");
    }
    return export(network, null, values(network, parameters), options);
  }

  private static IntFunction<float[]> values(Network network, Parameters parameters) {
    if (!parameters.network().parameters().equals(network.parameters())) {
      throw new IllegalArgumentException(
          "parameters of network " + parameters.network() + " do not fit " + network);
    }
    return p -> {
      float[] values = parameters.view(p).toFloatArray();
      for (float value : values) {
        if (!Float.isFinite(value)) {
          throw new OnnxException(
              "parameter "
                  + network.parameters().get(p).name()
                  + " holds a value that is not finite; the model is spoilt");
        }
      }
      return values;
    };
  }

  static OnnxModel export(
      Network network, @Nullable Model model, IntFunction<float[]> parameters, Options options) {
    long bytes = Float.BYTES * network.parameterCount();
    if (bytes > Integer.MAX_VALUE - (64L << 20)) {
      throw new OnnxException(
          "network "
              + network
              + " has "
              + bytes
              + " bytes of parameters; an ONNX file holds less than 2 GiB");
    }
    GraphProto graph =
        model != null && options.withNormalization()
            ? NetworkWriter.write(model, parameters, options.opset())
            : NetworkWriter.write(network, parameters, options.opset());
    ModelProto.Builder proto =
        ModelProto.newBuilder()
            .setIrVersion(IR_VERSION)
            .setProducerName(PRODUCER)
            .setProducerVersion(version())
            .setGraph(graph)
            .addOpsetImport(
                OperatorSetIdProto.newBuilder().setDomain("").setVersion(options.opset()));
    metadata(network, model)
        .forEach(
            (key, value) ->
                proto.addMetadataProps(
                    StringStringEntryProto.newBuilder().setKey(key).setValue(value)));
    return new OnnxModel(proto.build());
  }

  private static String version() {
    String version = OnnxExporter.class.getPackage().getImplementationVersion();
    return version == null ? "development" : version;
  }

  private static Map<String, String> metadata(Network network, @Nullable Model model) {
    Map<String, String> metadata = new LinkedHashMap<>();
    metadata.put("jtrelu.version", version());
    metadata.put("jtrelu.activations", activations(network).toString());
    if (model == null) {
      metadata.put(NETWORK, NetworkJson.write(network).toString());
      return metadata;
    }
    ArrayNode classes = JsonNodeFactory.instance.arrayNode();
    model.classes().forEach(classes::add);
    metadata.put("jtrelu.classes", classes.toString());
    if (model.shaping() != null) {
      metadata.put("jtrelu.shaping", new ObjectMapper().valueToTree(model.shaping()).toString());
    }
    metadata.put(MODEL, model.toJson());
    return metadata;
  }

  /** The different functions, as they are before scales move into weights. */
  private static ArrayNode activations(Network network) {
    Set<TransformedActivation> functions = new LinkedHashSet<>();
    for (Layer layer : network.layers()) {
      if (layer instanceof ActivationLayer activation) {
        functions.add(activation.function());
      }
    }
    ArrayNode all = JsonNodeFactory.instance.arrayNode();
    for (TransformedActivation f : functions) {
      ObjectNode one = all.addObject();
      one.put("function", f.function().activationName());
      one.put("inputScale", f.inputScale());
      one.put("inputShift", f.inputShift());
      one.put("outputScale", f.outputScale());
      one.put("outputShift", f.outputShift());
      one.put("negativeSlope", f.negativeSlope());
    }
    return all;
  }
}
