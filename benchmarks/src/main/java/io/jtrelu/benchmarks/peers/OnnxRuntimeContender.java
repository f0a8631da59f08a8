package io.jtrelu.benchmarks.peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.OnnxExporter;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;

/** ONNX Runtime, inference only: all graph optimisations, one thread per core. */
public final class OnnxRuntimeContender implements Contender {
  private final Workload workload;
  private final OrtSession session;
  private final OnnxTensor images;

  /** Loads the workload's network. */
  public OnnxRuntimeContender(Workload workload) {
    this.workload = workload;
    OrtEnvironment environment = OrtEnvironment.getEnvironment();
    try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
      options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
      options.setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL);
      options.setIntraOpNumThreads(Runtime.getRuntime().availableProcessors());
      session = environment.createSession(model(workload), options);
      var in = workload.network().input();
      int pixels = in.height() * in.width();
      int channels = in.channels();
      FloatBuffer nchw =
          ByteBuffer.allocateDirect(workload.images().length * Float.BYTES)
              .order(ByteOrder.nativeOrder())
              .asFloatBuffer();
      for (int i = 0; i < workload.images().length; i++) {
        int image = i / (channels * pixels);
        int channel = i / pixels % channels;
        nchw.put(workload.images()[(image * pixels + i % pixels) * channels + channel]);
      }
      images =
          OnnxTensor.createTensor(
              environment,
              nchw.flip(),
              new long[] {workload.batch(), channels, in.height(), in.width()});
    } catch (OrtException failure) {
      throw new IllegalStateException(failure);
    }
  }

  /** The network as it is exported: the scale of the rectifier lies in the weights. */
  private static byte[] model(Workload workload) {
    Network network = workload.network();
    Shape shape = Shape.of(workload.parameters().length);
    try (Tensor arena = Tensor.allocate(shape, DataType.F32, Layout.ROW_MAJOR)) {
      arena.set(workload.parameters());
      return OnnxExporter.export(
              network, Parameters.over(network, arena), OnnxExporter.Options.DEFAULT)
          .toByteArray();
    }
  }

  @Override
  public float[] forward() {
    try (OrtSession.Result result = session.run(Map.of("images", images))) {
      float[] logits = new float[workload.batch() * workload.network().classes()];
      ((OnnxTensor) result.get(0)).getFloatBuffer().get(logits);
      return logits;
    } catch (OrtException failure) {
      throw new IllegalStateException(failure);
    }
  }

  @Override
  public float step() {
    throw new UnsupportedOperationException("ONNX Runtime for Java does not train");
  }

  @Override
  public Gradients gradients() {
    throw new UnsupportedOperationException("ONNX Runtime for Java does not train");
  }

  @Override
  public long activationBytes() {
    throw new UnsupportedOperationException("ONNX Runtime for Java does not train");
  }

  @Override
  public void close() {
    try {
      images.close();
      session.close();
    } catch (OrtException failure) {
      throw new IllegalStateException(failure);
    }
  }
}
