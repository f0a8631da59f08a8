package io.jtrelu.train;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.util.ArrayList;
import java.util.List;

/** How configurations are read: nothing is guessed, and what is missing is named. */
final class Json {
  static final ObjectMapper MAPPER =
      new ObjectMapper()
          .enable(SerializationFeature.INDENT_OUTPUT)
          .enable(DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES);

  private Json() {}

  /** A field of an object, or an error that says whose field is missing. */
  static JsonNode required(JsonNode node, String where, String field) {
    JsonNode value = node.get(field);
    if (value == null || value.isNull()) {
      throw new IllegalArgumentException(where + " lacks '" + field + "'");
    }
    return value;
  }

  static void requireFormat(JsonNode node, String where, String format) {
    String found = required(node, where, "format").asText();
    if (!found.equals(format)) {
      throw new IllegalArgumentException(
          where + " has the format '" + found + "'; this version reads '" + format + "'");
    }
  }

  static int integer(JsonNode node, String where, String field) {
    JsonNode value = required(node, where, field);
    if (!value.isInt()) {
      throw new IllegalArgumentException(where + "." + field + " must be an integer, got " + value);
    }
    return value.asInt();
  }

  static double number(JsonNode node, String where, String field) {
    JsonNode value = required(node, where, field);
    if (!value.isNumber()) {
      throw new IllegalArgumentException(where + "." + field + " must be a number, got " + value);
    }
    return value.asDouble();
  }

  static List<String> strings(JsonNode array, String where) {
    List<String> strings = new ArrayList<>();
    for (JsonNode element : requireArray(array, where)) {
      if (!element.isTextual()) {
        throw new IllegalArgumentException(where + " must hold strings, got " + element);
      }
      strings.add(element.asText());
    }
    return strings;
  }

  static double[] numbers(JsonNode array, String where) {
    double[] numbers = new double[requireArray(array, where).size()];
    for (int i = 0; i < numbers.length; i++) {
      if (!array.get(i).isNumber()) {
        throw new IllegalArgumentException(where + " must hold numbers, got " + array.get(i));
      }
      numbers[i] = array.get(i).asDouble();
    }
    return numbers;
  }

  private static JsonNode requireArray(JsonNode array, String where) {
    if (!array.isArray()) {
      throw new IllegalArgumentException(where + " must be a list, got " + array.getNodeType());
    }
    return array;
  }
}
