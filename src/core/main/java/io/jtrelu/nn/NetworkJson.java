package io.jtrelu.nn;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.nn.Layer.Extent;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The JSON form of a network: everything but the values of its parameters.
 *
 * <pre>{@code
 * {
 *   "format": "jtrelu-network-1",
 *   "name": "small",
 *   "layers": [
 *     {"name": "input", "kind": "input", "attributes": {"height": 8, "width": 8, "channels": 3}},
 *     {"name": "conv", "kind": "convolution", "sources": ["input"], "attributes": {
 *       "channels": 16, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1],
 *       "dilation": [1, 1], "groups": 1}},
 *     {"name": "phi", "kind": "activation", "sources": ["conv"], "attributes": {
 *       "function": "leaky_relu", "inputScale": 1.0, "inputShift": 0.0, "outputScale": 1.2,
 *       "outputShift": 0.0, "negativeSlope": 0.4}},
 *     {"name": "pool", "kind": "global-mean-pooling", "sources": ["phi"], "attributes": {}}
 *   ],
 *   "outputs": ["pool"],
 *   "weightScale": 1.0,
 *   "biasDeviation": 0.0
 * }
 * }</pre>
 *
 * <p>{@code "gaussianWeights": true} is there for networks that begin so.
 *
 * <p>Layers come after their sources, the input first. Padding is top, left, bottom, right for a
 * convolution and begin, end for a pooling. The numbers of an activation are those of {@link
 * io.jtrelu.activation.TransformedActivation}. They keep all their digits: what was written is read
 * back equal.
 */
public final class NetworkJson {
  /** Name and version of the form. */
  public static final String FORMAT = "jtrelu-network-1";

  private interface Kind {
    Layer read(LayerDescription description);
  }

  private static final Map<String, Kind> KINDS = new LinkedHashMap<>();

  static {
    KINDS.put(InputLayer.KIND, InputLayer::read);
    KINDS.put(ConvolutionLayer.KIND, ConvolutionLayer::read);
    KINDS.put(ActivationLayer.KIND, ActivationLayer::read);
    KINDS.put(NormalizedSumLayer.KIND, NormalizedSumLayer::read);
    KINDS.put(SumLayer.KIND, SumLayer::read);
    KINDS.put(BatchNormLayer.KIND, BatchNormLayer::read);
    KINDS.put(MaxPoolingLayer.KIND, MaxPoolingLayer::read);
    KINDS.put(GlobalMeanPoolingLayer.KIND, GlobalMeanPoolingLayer::read);
    KINDS.put(DropoutLayer.KIND, DropoutLayer::read);
  }

  private static final Set<String> NETWORK_FIELDS =
      Set.of(
          "format", "name", "layers", "outputs", "weightScale", "biasDeviation", "gaussianWeights");
  private static final Set<String> LAYER_FIELDS = Set.of("name", "kind", "sources", "attributes");

  private NetworkJson() {}

  /**
   * Describes a network.
   *
   * @throws IllegalArgumentException if it could not be read back: a function of the caller has the
   *     name of one of the library's
   */
  public static ObjectNode write(Network network) {
    network
        .functions()
        .forEach(
            (name, function) -> {
              if (!(function instanceof Activation) && Activation.names().contains(name)) {
                throw new IllegalArgumentException(
                    "network "
                        + network
                        + ": a function of your own is named "
                        + name
                        + " like one of the library's; give it a name of its own");
              }
            });
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("format", FORMAT);
    json.put("name", network.name());
    ArrayNode layers = json.putArray("layers");
    for (Layer layer : network.layers()) {
      ObjectNode described = layers.addObject();
      described.put("name", layer.name());
      described.put("kind", layer.kind());
      if (!layer.sources().isEmpty()) {
        ArrayNode sources = described.putArray("sources");
        layer.sources().forEach(source -> sources.add(network.layers().get(source).name()));
      }
      layer.describe(described.putObject("attributes"));
    }
    ArrayNode outputs = json.putArray("outputs");
    network.outputs().forEach(output -> outputs.add(network.layers().get(output).name()));
    json.put("weightScale", network.weightScale());
    json.put("biasDeviation", network.biasDeviation());
    if (network.gaussianWeights()) {
      json.put("gaussianWeights", true);
    }
    return json;
  }

  /**
   * Reads a network whose functions are the library's.
   *
   * @throws NetworkFormatException if it is malformed, of another version, or describes no network
   */
  public static Network read(JsonNode json) {
    return read(json, List.of());
  }

  /**
   * Reads a network.
   *
   * @param custom functions of the caller, found by their names before the library's
   * @throws NetworkFormatException if it is malformed, of another version, or describes no network
   * @throws IllegalArgumentException if two of the functions have one name
   */
  public static Network read(JsonNode json, List<ActivationFunction> custom) {
    Map<String, ActivationFunction> functions = new HashMap<>();
    for (ActivationFunction function : custom) {
      if (functions.putIfAbsent(function.activationName(), function) != null) {
        throw new IllegalArgumentException(
            "two functions are named " + function.activationName() + "; names must differ");
      }
    }
    requireObject("network", json);
    String format = text("format", json.get("format"));
    if (!format.equals(FORMAT)) {
      throw new NetworkFormatException(
          "format: expected \""
              + FORMAT
              + "\", which is all this version reads, found \""
              + format
              + "\"");
    }
    requireFields("network", json, NETWORK_FIELDS);
    String name = text("name", json.get("name"));
    JsonNode layers = array("layers", json.get("layers"));
    Map<String, Integer> nodes = new HashMap<>();
    Network.Builder builder = null;
    for (int i = 0; i < layers.size(); i++) {
      String where = "layers[" + i + "]";
      JsonNode described = layers.get(i);
      requireObject(where, described);
      String layerName = text(where + ".name", described.get("name"));
      where += " (" + layerName + ")";
      requireFields(where, described, LAYER_FIELDS);
      String kind = text(where + ": kind", described.get("kind"));
      Kind reader = KINDS.get(kind);
      if (reader == null) {
        throw new NetworkFormatException(
            where
                + ": unknown kind '"
                + kind
                + "'; known are "
                + String.join(", ", KINDS.keySet()));
      }
      if (kind.equals(InputLayer.KIND) != (i == 0)) {
        throw new NetworkFormatException(
            where
                + ": a network has one input, and it is the first layer; found kind '"
                + kind
                + "'");
      }
      List<Integer> sources = new ArrayList<>();
      List<Extent> extents = new ArrayList<>();
      JsonNode sourceNames = described.get("sources");
      if (sourceNames != null) {
        array(where + ": sources", sourceNames);
        for (int s = 0; s < sourceNames.size(); s++) {
          String place = where + ": sources[" + s + "]";
          int source = find(place, sourceNames.get(s), nodes);
          sources.add(source);
          extents.add(builder == null ? new Extent(0, 0, 0) : builder.extent(source));
        }
      }
      JsonNode attributes = described.get("attributes");
      requireObject(where + ": attributes", attributes);
      try {
        LayerDescription description =
            new LayerDescription(where, layerName, sources, extents, attributes, functions);
        Layer layer = reader.read(description);
        description.requireNoOthers();
        if (builder == null) {
          builder = new Network.Builder(name, (InputLayer) layer);
          nodes.put(layerName, 0);
        } else {
          nodes.put(layerName, builder.add(layer));
        }
      } catch (IllegalArgumentException refused) {
        String same = "layer " + layerName + ": ";
        String why = String.valueOf(refused.getMessage());
        throw new NetworkFormatException(
            where + ": " + (why.startsWith(same) ? why.substring(same.length()) : why), refused);
      }
    }
    if (builder == null) {
      throw new NetworkFormatException("layers: expected an input and what follows, found none");
    }
    return finish(builder, json, nodes);
  }

  private static Network finish(
      Network.Builder builder, JsonNode json, Map<String, Integer> nodes) {
    JsonNode names = array("outputs", json.get("outputs"));
    int[] outputs = new int[names.size()];
    for (int i = 0; i < outputs.length; i++) {
      outputs[i] = find("outputs[" + i + "]", names.get(i), nodes);
    }
    double weightScale = number("weightScale", json.get("weightScale"));
    double biasDeviation = number("biasDeviation", json.get("biasDeviation"));
    JsonNode gaussian = json.path("gaussianWeights");
    if (!gaussian.isMissingNode() && !gaussian.isBoolean()) {
      throw unexpected("gaussianWeights", "true or false", gaussian);
    }
    try {
      return builder
          .build(outputs)
          .with(function -> function, weightScale, biasDeviation)
          .withGaussianWeights(gaussian.booleanValue());
    } catch (IllegalArgumentException | IllegalStateException refused) {
      throw new NetworkFormatException("network: " + refused.getMessage(), refused);
    }
  }

  private static int find(String where, JsonNode name, Map<String, Integer> nodes) {
    Integer node = nodes.get(text(where, name));
    if (node == null) {
      throw new NetworkFormatException(
          where + ": there is no layer '" + name.textValue() + "' before it");
    }
    return node;
  }

  private static String text(String where, @Nullable JsonNode value) {
    if (value == null || !value.isTextual()) {
      throw unexpected(where, "a string", value);
    }
    return value.textValue();
  }

  private static double number(String where, @Nullable JsonNode value) {
    if (value == null || !value.isNumber()) {
      throw unexpected(where, "a number", value);
    }
    return value.doubleValue();
  }

  private static JsonNode array(String where, @Nullable JsonNode value) {
    if (value == null || !value.isArray()) {
      throw unexpected(where, "an array", value);
    }
    return value;
  }

  private static void requireObject(String where, @Nullable JsonNode value) {
    if (value == null || !value.isObject()) {
      throw unexpected(where, "an object", value);
    }
  }

  private static void requireFields(String where, JsonNode object, Set<String> known) {
    object
        .fieldNames()
        .forEachRemaining(
            field -> {
              if (!known.contains(field)) {
                throw new NetworkFormatException(
                    where
                        + ": unknown field '"
                        + field
                        + "'; known are "
                        + String.join(", ", known.stream().sorted().toList()));
              }
            });
  }

  /** Says what was found in a few words: a file may hold anything. */
  static NetworkFormatException unexpected(
      String where, String expected, @Nullable JsonNode found) {
    String text = found == null ? "nothing" : found.toString();
    return new NetworkFormatException(
        where
            + ": expected "
            + expected
            + ", found "
            + (text.length() <= 60 ? text : text.substring(0, 60) + "..."));
  }
}
