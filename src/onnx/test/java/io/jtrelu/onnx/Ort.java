package io.jtrelu.onnx;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.OrtSession.SessionOptions;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.NodeProto;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** ONNX Runtime, the judge of what is written. */
final class Ort implements AutoCloseable {
  /** One output. */
  static final class Output {
    final String name;
    final long[] shape;
    final float[] values;

    Output(String name, long[] shape, float[] values) {
      this.name = name;
      this.shape = shape;
      this.values = values;
    }
  }

  private final OrtSession session;

  Ort(byte[] model) {
    this(model, null);
  }

  /**
   * @param optimized receives the graph that ONNX Runtime executes, or null
   */
  private Ort(byte[] model, @Nullable Path optimized) {
    try (SessionOptions options = new SessionOptions()) {
      options.setIntraOpNumThreads(1);
      options.setOptimizationLevel(SessionOptions.OptLevel.EXTENDED_OPT);
      if (optimized != null) {
        options.setOptimizedModelFilePath(optimized.toString());
      }
      session = OrtEnvironment.getEnvironment().createSession(model, options);
    } catch (OrtException failure) {
      throw new AssertionError(failure);
    }
  }

  /** The nodes of the graph that ONNX Runtime executes. */
  static List<NodeProto> optimized(byte[] model) throws IOException {
    Path file = Files.createTempFile("optimized", ".onnx");
    try {
      new Ort(model, file).close();
      return ModelProto.parseFrom(Files.readAllBytes(file)).getGraph().getNodeList();
    } finally {
      Files.delete(file);
    }
  }

  static long count(List<NodeProto> nodes, String operator) {
    return nodes.stream().filter(node -> node.getOpType().equals(operator)).count();
  }

  /** Runs on NCHW images. */
  List<Output> run(float[] images, long... shape) {
    try (OnnxTensor input =
        OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), FloatBuffer.wrap(images), shape)) {
      return run(input);
    } catch (OrtException failure) {
      throw new AssertionError(failure);
    }
  }

  /** Runs on bytes. */
  List<Output> run(byte[] images, long... shape) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(images.length).put(images).flip();
    try (OnnxTensor input =
        OnnxTensor.createTensor(
            OrtEnvironment.getEnvironment(), buffer, shape, OnnxJavaType.UINT8)) {
      return run(input);
    } catch (OrtException failure) {
      throw new AssertionError(failure);
    }
  }

  private List<Output> run(OnnxTensor input) throws OrtException {
    List<Output> outputs = new ArrayList<>();
    String name = session.getInputNames().iterator().next();
    try (OrtSession.Result result = session.run(Map.of(name, input))) {
      for (Map.Entry<String, OnnxValue> entry : result) {
        OnnxTensor tensor = (OnnxTensor) entry.getValue();
        FloatBuffer buffer = tensor.getFloatBuffer();
        float[] values = new float[buffer.remaining()];
        buffer.get(values);
        outputs.add(new Output(entry.getKey(), tensor.getInfo().getShape(), values));
      }
    }
    return outputs;
  }

  @Override
  public void close() {
    try {
      session.close();
    } catch (OrtException failure) {
      throw new AssertionError(failure);
    }
  }
}
