package io.jtrelu.onnx;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.SplittableRandom;

/** Networks with parameters, and what this library computes with them. */
final class Cases implements AutoCloseable {
  final Backend backend = Backends.open("auto");

  /** Uniform weights that keep the mean square, and biases that are not zero. */
  Parameters parameters(Network network, long seed) {
    Parameters parameters = Parameters.allocate(network, backend);
    SplittableRandom random = new SplittableRandom(seed);
    for (int p = 0; p < network.parameters().size(); p++) {
      ParameterSpec spec = network.parameters().get(p);
      int[] dims = spec.shape().dims();
      double range =
          spec.kind() == ParameterSpec.Kind.BIAS
              ? 0.2
              : Math.sqrt(3.0 * dims[0] / spec.shape().elements());
      float[] values = new float[Math.toIntExact(spec.shape().elements())];
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) (range * (2 * random.nextDouble() - 1));
        if (spec.kind() == ParameterSpec.Kind.VARIANCE) {
          values[i] = 0.5f + Math.abs(values[i]);
        }
      }
      parameters.view(p).set(values);
    }
    return parameters;
  }

  static float[] images(Network network, int batch, long seed) {
    Random random = new Random(seed);
    float[] values = new float[Math.toIntExact(batch * network.input().elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  /** The outputs for NHWC images, NHWC. */
  List<float[]> run(Network network, Parameters parameters, float[] images, int batch) {
    List<Tensor> outputs = new ArrayList<>();
    try (NetworkFunction function =
            new NetworkFunction(
                network,
                backend,
                new NetworkFunction.Options(batch, 0, DataType.F32, false, false, 0));
        Tensor input = Tensor.allocate(network.input().batch(batch), DataType.F32, Layout.NHWC)) {
      for (int node : network.outputs()) {
        outputs.add(
            Tensor.allocate(
                network.layers().get(node).extent().batch(batch), DataType.F32, Layout.NHWC));
      }
      input.set(images);
      function.load(parameters);
      function.forward(input, outputs);
      return outputs.stream().map(Tensor::toFloatArray).toList();
    } finally {
      outputs.forEach(Tensor::close);
    }
  }

  /** NHWC to NCHW. */
  static float[] planes(float[] images, int batch, Extent extent) {
    int places = extent.height() * extent.width();
    int channels = extent.channels();
    float[] planes = new float[images.length];
    for (int n = 0; n < batch; n++) {
      for (int p = 0; p < places; p++) {
        for (int c = 0; c < channels; c++) {
          planes[(n * channels + c) * places + p] = images[(n * places + p) * channels + c];
        }
      }
    }
    return planes;
  }

  /** Holds a model's outputs against the network's. */
  void check(Network network, Parameters parameters, byte[] model, int... batches) {
    check(0.0, network, parameters, model, batches);
  }

  /**
   * As above.
   *
   * @param size that outputs count as having at least
   */
  void check(double size, Network network, Parameters parameters, byte[] model, int... batches) {
    Extent in = network.input();
    try (Ort ort = new Ort(model)) {
      for (int batch : batches) {
        float[] images = images(network, batch, 17 + batch);
        List<float[]> expected = run(network, parameters, images, batch);
        List<Ort.Output> found =
            ort.run(planes(images, batch, in), batch, in.channels(), in.height(), in.width());
        assertEquals(expected.size(), found.size());
        for (int k = 0; k < expected.size(); k++) {
          Extent extent = network.layers().get(network.outputs().get(k)).extent();
          boolean vector = extent.height() == 1 && extent.width() == 1;
          assertArrayEquals(
              vector
                  ? new long[] {batch, extent.channels()}
                  : new long[] {batch, extent.channels(), extent.height(), extent.width()},
              found.get(k).shape);
          assertClose(
              planes(expected.get(k), batch, extent),
              found.get(k).values,
              1e-4,
              size,
              network + ", output " + found.get(k).name);
        }
      }
    }
  }

  /** Within a share of the largest value. */
  static void assertClose(float[] expected, float[] found, double share, String what) {
    assertClose(expected, found, share, 0, what);
  }

  private static void assertClose(
      float[] expected, float[] found, double share, double size, String what) {
    assertEquals(expected.length, found.length, what);
    double largest = 0;
    double difference = 0;
    for (int i = 0; i < expected.length; i++) {
      assertTrue(Float.isFinite(expected[i]), what + ": not finite");
      largest = Math.max(largest, Math.abs(expected[i]));
      double d = Math.abs(expected[i] - found[i]);
      difference = d <= difference ? difference : d; // NaN stays
    }
    assertTrue(largest > 0, what + ": all zero");
    assertTrue(
        difference <= share * Math.max(largest, size),
        what + ": differs by " + difference + " of " + largest);
  }

  @Override
  public void close() {
    backend.close();
  }
}
