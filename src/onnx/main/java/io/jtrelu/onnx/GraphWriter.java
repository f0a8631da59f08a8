package io.jtrelu.onnx;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.jtrelu.onnx.schema.AttributeProto;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.NodeProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.onnx.schema.TensorShapeProto;
import io.jtrelu.onnx.schema.TypeProto;
import io.jtrelu.onnx.schema.ValueInfoProto;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Builds a graph node by node. Names are made unique. */
final class GraphWriter {
  /** The extent of the batch. */
  static final String BATCH = "N";

  private final GraphProto.Builder graph = GraphProto.newBuilder();
  private final Set<String> names = new HashSet<>();
  private final Map<Integer, String> scalars = new HashMap<>();

  GraphWriter(String name) {
    graph.setName(name);
  }

  GraphProto build() {
    return graph.build();
  }

  /** A name that nothing has: the one wished for, or with a number. */
  String name(String wish) {
    String free = wish.isEmpty() ? "value" : wish;
    for (int i = 2; !names.add(free); i++) {
      free = wish + "_" + i;
    }
    return free;
  }

  /** An operator with one result. */
  String add(String operator, String output, List<String> inputs, AttributeProto... attributes) {
    graph.addNode(
        NodeProto.newBuilder()
            .addAllInput(inputs)
            .addOutput(output)
            .setName(output)
            .setOpType(operator)
            .addAllAttribute(List.of(attributes)));
    return output;
  }

  static AttributeProto integer(String name, long value) {
    return AttributeProto.newBuilder()
        .setName(name)
        .setI(value)
        .setType(AttributeProto.AttributeType.INT)
        .build();
  }

  static AttributeProto real(String name, float value) {
    return AttributeProto.newBuilder()
        .setName(name)
        .setF(value)
        .setType(AttributeProto.AttributeType.FLOAT)
        .build();
  }

  static AttributeProto integers(String name, long... values) {
    AttributeProto.Builder attribute =
        AttributeProto.newBuilder().setName(name).setType(AttributeProto.AttributeType.INTS);
    for (long value : values) {
      attribute.addInts(value);
    }
    return attribute.build();
  }

  /** A scalar; equal ones are one. */
  String scalar(double value) {
    return scalars.computeIfAbsent(
        Float.floatToRawIntBits((float) value),
        bits -> tensor("constant", new long[0], new float[] {(float) value}));
  }

  /** A tensor of the file. */
  String tensor(String wish, long[] dims, float[] values) {
    byte[] bytes = new byte[Math.multiplyExact(values.length, Float.BYTES)];
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values);
    return tensor(wish, dims, TensorProto.DataType.FLOAT, bytes);
  }

  String tensor(String wish, long[] values) {
    byte[] bytes = new byte[Math.multiplyExact(values.length, Long.BYTES)];
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().put(values);
    return tensor(wish, new long[] {values.length}, TensorProto.DataType.INT64, bytes);
  }

  private String tensor(String wish, long[] dims, TensorProto.DataType type, byte[] bytes) {
    String name = name(wish);
    ByteString data = UnsafeByteOperations.unsafeWrap(bytes); // nobody else has the array
    TensorProto.Builder tensor =
        TensorProto.newBuilder().setName(name).setDataType(type.getNumber()).setRawData(data);
    for (long dim : dims) {
      tensor.addDims(dim);
    }
    graph.addInitializer(tensor);
    return name;
  }

  void input(String name, TensorProto.DataType type, int... dims) {
    graph.addInput(port(name, type, dims));
  }

  void output(String name, int... dims) {
    graph.addOutput(port(name, TensorProto.DataType.FLOAT, dims));
  }

  private static ValueInfoProto port(String name, TensorProto.DataType type, int[] dims) {
    TensorShapeProto.Builder shape = TensorShapeProto.newBuilder();
    shape.addDimBuilder().setDimParam(BATCH);
    for (int dim : dims) {
      shape.addDimBuilder().setDimValue(dim);
    }
    return ValueInfoProto.newBuilder()
        .setName(name)
        .setType(
            TypeProto.newBuilder()
                .setTensorType(
                    TypeProto.Tensor.newBuilder().setElemType(type.getNumber()).setShape(shape)))
        .build();
  }
}
