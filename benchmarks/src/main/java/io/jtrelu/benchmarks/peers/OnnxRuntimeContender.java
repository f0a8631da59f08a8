package io.jtrelu.benchmarks.peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
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
      session = environment.createSession(OnnxModel.of(workload), options);
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
