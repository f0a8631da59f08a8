package io.jtrelu.onnx;

import io.jtrelu.onnx.schema.AttributeProto;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.NodeProto;
import io.jtrelu.onnx.schema.OperatorSetIdProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.onnx.schema.TensorShapeProto;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import java.util.function.Consumer;

/** Models of somebody else's, node by node. */
final class Graphs {
  private final ModelProto.Builder model =
      ModelProto.newBuilder()
          .setIrVersion(8)
          .setProducerName("somebody")
          .addOpsetImport(OperatorSetIdProto.newBuilder().setDomain("").setVersion(17));

  private final Random random = new Random(3);

  /** Images "x" of a size; the batch is N. */
  Graphs(int channels, int height, int width) {
    model.getGraphBuilder().setName("theirs");
    port(model.getGraphBuilder().addInputBuilder().setName("x"), channels, height, width);
  }

  private static void port(io.jtrelu.onnx.schema.ValueInfoProto.Builder port, int... dims) {
    TensorShapeProto.Builder shape =
        port.getTypeBuilder()
            .getTensorTypeBuilder()
            .setElemType(TensorProto.DataType.FLOAT.getNumber())
            .getShapeBuilder();
    shape.addDimBuilder().setDimParam("N");
    for (int dim : dims) {
      shape.addDimBuilder().setDimValue(dim);
    }
  }

  /** A node; a space separates names of inputs, the node is named as its output. */
  @SuppressWarnings("StringSplitter") // no name is empty
  Graphs node(String operator, String inputs, String output, AttributeProto... attributes) {
    NodeProto.Builder node =
        model.getGraphBuilder().addNodeBuilder().setOpType(operator).setName(output);
    if (!inputs.isEmpty()) {
      for (String input : inputs.split(" ")) {
        node.addInput(input);
      }
    }
    node.addOutput(output);
    for (AttributeProto attribute : attributes) {
      node.addAttribute(attribute);
    }
    return this;
  }

  /** A tensor of random values. */
  Graphs random(String name, long... dims) {
    TensorProto.Builder tensor = tensor(name, dims);
    long fan = 1;
    long count = 1;
    for (int i = 0; i < dims.length; i++) {
      count *= dims[i];
      fan *= i == 0 ? 1 : dims[i];
    }
    for (long i = 0; i < count; i++) {
      tensor.addFloatData((float) (random.nextGaussian() / Math.sqrt((double) fan)));
    }
    return this;
  }

  Graphs constant(String name, long[] dims, double... values) {
    TensorProto.Builder tensor = tensor(name, dims);
    for (double value : values) {
      tensor.addFloatData((float) value);
    }
    return this;
  }

  Graphs scalar(String name, double value) {
    return constant(name, new long[0], value);
  }

  Graphs integers(String name, long... values) {
    TensorProto.Builder tensor = tensor(name, values.length);
    tensor.setDataType(TensorProto.DataType.INT64.getNumber());
    for (long value : values) {
      tensor.addInt64Data(value);
    }
    return this;
  }

  private TensorProto.Builder tensor(String name, long... dims) {
    TensorProto.Builder tensor =
        model
            .getGraphBuilder()
            .addInitializerBuilder()
            .setName(name)
            .setDataType(TensorProto.DataType.FLOAT.getNumber());
    for (long dim : dims) {
      tensor.addDims(dim);
    }
    return tensor;
  }

  Graphs output(String name, int... dims) {
    port(model.getGraphBuilder().addOutputBuilder().setName(name), dims);
    return this;
  }

  Graphs change(Consumer<ModelProto.Builder> change) {
    change.accept(model);
    return this;
  }

  byte[] bytes() {
    return model.build().toByteArray();
  }

  static AttributeProto text(String name, String value) {
    return AttributeProto.newBuilder()
        .setName(name)
        .setType(AttributeProto.AttributeType.STRING)
        .setS(com.google.protobuf.ByteString.copyFrom(value, StandardCharsets.UTF_8))
        .build();
  }
}
