package io.jtrelu.benchmarks.peers;

import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network.ParameterSpec;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * A workload's network as an ONNX model (opset 17) in protobuf's wire format, after onnx.proto. The
 * scale of the rectifier is multiplied into the weights that follow it, so that ONNX Runtime can
 * fuse Conv and LeakyRelu.
 */
final class OnnxModel {
  private static final int FLOAT = 1;
  private static final int OPSET = 17;
  private static final int IR = 8;

  private OnnxModel() {}

  /** One message being written. */
  private static final class Message {
    private final ByteArrayOutputStream out = new ByteArrayOutputStream();

    private void varint(long value) {
      long rest = value;
      while ((rest & ~0x7FL) != 0) {
        out.write((int) (rest & 0x7F | 0x80));
        rest >>>= 7;
      }
      out.write((int) rest);
    }

    Message integer(int field, long value) {
      varint((long) field << 3);
      varint(value);
      return this;
    }

    Message real(int field, float value) {
      varint((long) field << 3 | 5);
      out.writeBytes(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putFloat(value).array());
      return this;
    }

    Message bytes(int field, byte[] value) {
      varint((long) field << 3 | 2);
      varint(value.length);
      out.writeBytes(value);
      return this;
    }

    Message text(int field, String value) {
      return bytes(field, value.getBytes(StandardCharsets.UTF_8));
    }

    Message message(int field, Message value) {
      return bytes(field, value.out.toByteArray());
    }
  }

  /** The model; input "images" is NCHW, output "logits" is [batch, classes]. */
  static byte[] of(Workload workload) {
    Message graph = new Message();
    List<Layer> layers = workload.network().layers();
    boolean[] scaled = new boolean[layers.size()];
    for (int i = 1; i < layers.size(); i++) {
      Message node = new Message();
      for (int source : layers.get(i).sources()) {
        node.text(1, value(workload, source));
      }
      switch (layers.get(i)) {
        case ConvolutionLayer layer -> {
          node.text(1, "w" + i).text(1, "b" + i);
          Conv2dDescriptor d = layer.descriptor();
          float factor = scaled[layer.source()] ? workload.rectifier().scale() : 1;
          boolean linear = d.h() == 1 && d.w() == 1;
          graph.message(5, weights(workload, i, factor, linear)).message(5, bias(workload, i));
          if (linear) {
            node.text(4, "Gemm").message(5, integer("transB", 1));
          } else {
            node.text(4, "Conv")
                .message(5, integers("kernel_shape", d.kh(), d.kw()))
                .message(5, integers("strides", d.strideH(), d.strideW()))
                .message(5, integers("dilations", d.dilationH(), d.dilationW()))
                .message(5, integers("pads", d.padTop(), d.padLeft(), d.padBottom(), d.padRight()));
          }
        }
        case ActivationLayer layer -> {
          scaled[i] = true;
          node.text(4, "LeakyRelu")
              .message(
                  5,
                  new Message()
                      .text(1, "alpha")
                      .real(2, workload.rectifier().slope())
                      .integer(20, 1));
        }
        case GlobalMeanPoolingLayer layer -> {
          scaled[i] = scaled[layer.source()];
          node.text(4, "ReduceMean")
              .message(5, integers("axes", 2, 3))
              .message(5, integer("keepdims", 0));
        }
        default -> throw new IllegalArgumentException("chains only, not " + layers.get(i));
      }
      node.text(2, value(workload, i));
      graph.message(1, node);
    }
    var in = workload.network().input();
    graph
        .text(2, "network")
        .message(11, port("images", workload.batch(), in.channels(), in.height(), in.width()))
        .message(12, port("logits", workload.batch(), workload.network().classes()));
    return new Message()
        .integer(1, IR)
        .message(7, graph)
        .message(8, new Message().text(1, "").integer(2, OPSET))
        .out
        .toByteArray();
  }

  private static String value(Workload workload, int layer) {
    return layer == 0
        ? "images"
        : layer == workload.network().layers().size() - 1 ? "logits" : "v" + layer;
  }

  private static Message integer(String name, long value) {
    return new Message().text(1, name).integer(3, value).integer(20, 2);
  }

  private static Message integers(String name, long... values) {
    Message attribute = new Message().text(1, name);
    for (long value : values) {
      attribute.integer(8, value);
    }
    return attribute.integer(20, 7);
  }

  private static Message port(String name, long... dims) {
    Message shape = new Message();
    for (long dim : dims) {
      shape.message(1, new Message().integer(1, dim));
    }
    Message tensor = new Message().integer(1, FLOAT).message(2, shape);
    return new Message().text(1, name).message(2, new Message().message(1, tensor));
  }

  private static ParameterSpec spec(Workload workload, int layer, ParameterSpec.Kind kind) {
    return workload.network().parameters().stream()
        .filter(s -> s.layer() == layer && s.kind() == kind)
        .findFirst()
        .orElseThrow();
  }

  private static Message bias(Workload workload, int layer) {
    ParameterSpec spec = spec(workload, layer, ParameterSpec.Kind.BIAS);
    int count = Math.toIntExact(spec.shape().elements());
    ByteBuffer data = ByteBuffer.allocate(4 * count).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < count; i++) {
      data.putFloat(workload.parameters()[Math.toIntExact(spec.offset()) + i]);
    }
    return new Message()
        .integer(1, count)
        .integer(2, FLOAT)
        .text(8, "b" + layer)
        .bytes(9, data.array());
  }

  private static Message weights(Workload workload, int layer, float factor, boolean linear) {
    ParameterSpec spec = spec(workload, layer, ParameterSpec.Kind.WEIGHTS);
    int[] d = spec.shape().dims(); // K R S C
    ByteBuffer data =
        ByteBuffer.allocate(Math.toIntExact(4 * spec.shape().elements()))
            .order(ByteOrder.LITTLE_ENDIAN);
    for (int k = 0; k < d[0]; k++) {
      for (int c = 0; c < d[3]; c++) {
        for (int tap = 0; tap < d[1] * d[2]; tap++) {
          int at = Math.toIntExact(spec.offset()) + (k * d[1] * d[2] + tap) * d[3] + c;
          data.putFloat(factor * workload.parameters()[at]);
        }
      }
    }
    Message tensor = new Message().integer(1, d[0]).integer(1, d[3]);
    if (!linear) {
      tensor.integer(1, d[1]).integer(1, d[2]);
    }
    return tensor.integer(2, FLOAT).text(8, "w" + layer).bytes(9, data.array());
  }
}
