package io.jtrelu.onnx;

import io.jtrelu.onnx.schema.AttributeProto;
import io.jtrelu.onnx.schema.NodeProto;
import io.jtrelu.onnx.schema.TensorProto;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The attributes of a node, each read once, so that what nobody read is noticed. */
final class Attributes {
  private final Map<String, AttributeProto> left = new LinkedHashMap<>();

  Attributes(NodeProto node) {
    for (AttributeProto attribute : node.getAttributeList()) {
      left.put(attribute.getName(), attribute);
    }
  }

  private @Nullable AttributeProto take(String name, AttributeProto.AttributeType type) {
    AttributeProto attribute = left.remove(name);
    if (attribute != null && attribute.hasType() && attribute.getType() != type) {
      throw new IllegalArgumentException(
          "attribute " + name + " is of type " + attribute.getType() + ", not " + type);
    }
    return attribute;
  }

  long integer(String name, long otherwise) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.INT);
    return attribute == null ? otherwise : attribute.getI();
  }

  float real(String name, float otherwise) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.FLOAT);
    return attribute == null ? otherwise : attribute.getF();
  }

  String text(String name, String otherwise) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.STRING);
    return attribute == null ? otherwise : attribute.getS().toString(StandardCharsets.UTF_8);
  }

  long @Nullable [] integers(String name) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.INTS);
    return attribute == null
        ? null
        : attribute.getIntsList().stream().mapToLong(Long::longValue).toArray();
  }

  float @Nullable [] reals(String name) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.FLOATS);
    if (attribute == null) {
      return null;
    }
    float[] values = new float[attribute.getFloatsCount()];
    for (int i = 0; i < values.length; i++) {
      values[i] = attribute.getFloats(i);
    }
    return values;
  }

  @Nullable TensorProto tensor(String name) {
    AttributeProto attribute = take(name, AttributeProto.AttributeType.TENSOR);
    return attribute == null ? null : attribute.getT();
  }

  /** As many integers as wanted, all positive or 0, or all the same otherwise. */
  int[] sizes(String name, int count, int otherwise) {
    long[] given = integers(name);
    int[] sizes = new int[count];
    if (given == null) {
      Arrays.fill(sizes, otherwise);
      return sizes;
    }
    if (given.length != count) {
      throw new IllegalArgumentException(
          "attribute " + name + " has " + given.length + " numbers; " + count + " are expected");
    }
    for (int i = 0; i < count; i++) {
      if (given[i] < 0 || given[i] > Integer.MAX_VALUE) {
        throw new IllegalArgumentException("attribute " + name + " holds " + given[i]);
      }
      sizes[i] = (int) given[i];
    }
    return sizes;
  }

  /** An attribute that changes nothing here. */
  void ignore(String name) {
    left.remove(name);
  }

  void requireNoOthers() {
    if (!left.isEmpty()) {
      throw new IllegalArgumentException(
          "attribute " + left.keySet().iterator().next() + " is not known here");
    }
  }
}
