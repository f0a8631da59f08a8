package io.jtrelu.nn;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.nn.Layer.Extent;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * One layer in a network's JSON form, while it is read. Whatever is not as asked for is a {@link
 * NetworkFormatException} that names the place.
 */
final class LayerDescription {
  private final String where;
  private final String name;
  private final List<Integer> sources;
  private final List<Extent> extents;
  private final JsonNode attributes;
  private final Map<String, ActivationFunction> custom;
  private final Set<String> known = new LinkedHashSet<>();

  /**
   * @param where the layer's place, for messages
   * @param extents sizes of the sources
   * @param custom the caller's functions by name
   */
  LayerDescription(
      String where,
      String name,
      List<Integer> sources,
      List<Extent> extents,
      JsonNode attributes,
      Map<String, ActivationFunction> custom) {
    this.where = where;
    this.name = name;
    this.sources = sources;
    this.extents = extents;
    this.attributes = attributes;
    this.custom = custom;
  }

  String name() {
    return name;
  }

  /** Indices of the sources, which must be so many. */
  List<Integer> sources(int count) {
    if (sources.size() != count) {
      throw new NetworkFormatException(
          where + ": expected " + count + " sources, found " + sources.size());
    }
    return sources;
  }

  /** Size of a source. */
  Extent source(int index) {
    if (index >= extents.size()) {
      throw new NetworkFormatException(
          where + ": expected " + (index + 1) + " sources or more, found " + extents.size());
    }
    return extents.get(index);
  }

  int integer(String attribute) {
    return integer(attribute, attribute(attribute));
  }

  private int integer(String attribute, JsonNode value) {
    if (!value.isIntegralNumber() || !value.canConvertToInt()) {
      throw unexpected(attribute, "an integer of 32 bits", value);
    }
    return value.intValue();
  }

  int[] integers(String attribute, int count) {
    JsonNode value = attribute(attribute);
    if (!value.isArray() || value.size() != count) {
      throw unexpected(attribute, "an array of " + count + " integers", value);
    }
    int[] integers = new int[count];
    for (int i = 0; i < count; i++) {
      integers[i] = integer(attribute + "[" + i + "]", value.get(i));
    }
    return integers;
  }

  double number(String attribute) {
    JsonNode value = attribute(attribute);
    if (!value.isNumber() || !Double.isFinite(value.doubleValue())) {
      throw unexpected(attribute, "a finite number", value);
    }
    return value.doubleValue();
  }

  float single(String attribute) {
    return (float) number(attribute);
  }

  ActivationFunction function(String attribute) {
    JsonNode value = attribute(attribute);
    if (!value.isTextual()) {
      throw unexpected(attribute, "the name of an activation function", value);
    }
    String function = value.textValue();
    if (custom.containsKey(function)) {
      return custom.get(function);
    }
    if (Activation.names().contains(function)) {
      return Activation.named(function);
    }
    throw new NetworkFormatException(
        where
            + ": there is no activation function '"
            + function
            + "'; known are "
            + String.join(", ", Activation.names())
            + ". A function of your own must be given to the reader");
  }

  private JsonNode attribute(String attribute) {
    known.add(attribute);
    JsonNode value = attributes.get(attribute);
    if (value == null) {
      throw new NetworkFormatException(where + ": the attribute '" + attribute + "' is missing");
    }
    return value;
  }

  private NetworkFormatException unexpected(String attribute, String expected, JsonNode found) {
    return NetworkJson.unexpected(where + ": " + attribute, expected, found);
  }

  /** Refuses attributes that the layer did not ask for. */
  void requireNoOthers() {
    attributes
        .fieldNames()
        .forEachRemaining(
            attribute -> {
              if (!known.contains(attribute)) {
                throw new NetworkFormatException(
                    where
                        + ": unknown attribute '"
                        + attribute
                        + "'; known are "
                        + String.join(", ", known));
              }
            });
  }
}
