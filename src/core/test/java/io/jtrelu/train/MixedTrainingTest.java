package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Subject;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.shaping.Dks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** A network of four activation functions, shaped by DKS, learns alike on every backend. */
class MixedTrainingTest {
  private static final int BATCH = 6;
  private static final int STEPS = 25;
  private static final Activation[] FUNCTIONS = {
    Activation.TANH, Activation.LEAKY_RELU, Activation.GELU, Activation.SOFTPLUS
  };

  private static Network network() {
    Network.Builder b = Network.builder("mixed", 5, 5, 2);
    int x = b.input();
    for (int i = 0; i < 12; i++) {
      x = b.convolution("layer" + i, x, 6, 3, 1);
      x = b.activation("layer" + i + ".activation", x, FUNCTIONS[i % FUNCTIONS.length]);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().shape(new Dks());
  }

  private static double[] losses(Backend backend) {
    Network network = network();
    double[] losses = new double[STEPS];
    Shape shape = Shape.of(BATCH, 5, 5, 2);
    float[] pixels = new float[Math.toIntExact(shape.elements())];
    SplittableRandom random = new SplittableRandom(4);
    for (int i = 0; i < pixels.length; i++) {
      int label = i / 50 % 3;
      pixels[i] = (float) (random.nextGaussian() * 0.3 + (i % 50 / 17 == label ? 1 : 0));
    }
    try (Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Stream stream = backend.newStream();
        Tensor images = Tensor.allocate(shape, DataType.F32, Layout.NHWC).set(pixels);
        Tensor labels = Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR);
        var sgd = backend.sgd(parameters.arena().shape().elements(), 0.9f, true, 0);
        Tensor velocity =
            backend.allocate(parameters.arena().shape(), DataType.F32, Layout.ROW_MAJOR);
        Tensor rate = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
        Tensor one = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
        BatchExecutor executor =
            new BatchExecutor(
                network, backend, BATCH, BATCH, new Program.Options(DataType.F32, 0, true, 1))) {
      for (int i = 0; i < BATCH; i++) {
        labels.put(i, i % 3);
      }
      backend.fill(stream, rate, 0.01f);
      backend.fill(stream, one, 1);
      Initializer.delta(5).fill(backend, parameters);
      for (int step = 0; step < STEPS; step++) {
        executor.load(parameters);
        losses[step] =
            executor
                    .forwardBackward(images, labels, gradients, Write.OVERWRITE, 1f / BATCH, step)
                    .loss()
                / BATCH;
        sgd.step(stream, parameters.arena(), gradients.arena(), velocity, rate, one);
        stream.synchronize();
      }
    }
    return losses;
  }

  static java.util.stream.Stream<Subject> subjects() {
    return Subject.all();
  }

  @ParameterizedTest
  @MethodSource("subjects")
  void learns(Subject subject) {
    double[] oracle;
    double[] actual;
    try (Backend reference = Backends.open("reference")) {
      oracle = losses(reference);
    }
    try (Backend backend = subject.open()) {
      actual = losses(backend);
    }
    assertTrue(oracle[STEPS - 1] < 0.5 * oracle[0], oracle[0] + " to " + oracle[STEPS - 1]);
    for (int step = 0; step < STEPS; step++) {
      // Rounding errors of 12 layers, growing with each update.
      double allowed = 2e-5 * (1 + step) * Math.max(0.1, oracle[step]);
      assertEquals(oracle[step], actual[step], allowed, subject.name() + ", step " + step);
    }
  }
}
