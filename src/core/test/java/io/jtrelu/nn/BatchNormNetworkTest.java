package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.WithLanes;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import io.jtrelu.shaping.UnsuitableNetworkException;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Networks with batch normalisation and plain shortcuts. */
class BatchNormNetworkTest {
  private static final int EXTENT = 4;
  private static final int BATCH = 6;
  private static final int CLASSES = 3;

  /** A stem, a block of two convolutions with its shortcut, and the logits. */
  private static Network network(TransformedActivation function) {
    Network.Builder b = Network.builder("normalised", EXTENT, EXTENT, 2);
    int x = b.activation("a0", b.batchNorm("n0", b.convolution("c0", b.input(), 5, 3, 1)));
    int y = b.activation("a1", b.batchNorm("n1", b.convolution("c1", x, 5, 3, 1)));
    y = b.batchNorm("n2", b.convolution("c2", y, 5, 3, 1));
    y = b.activation("a2", b.sum("sum", x, y));
    b.linear("logits", b.globalMeanPool("pool", y), CLASSES);
    return b.build().with(function).withGaussianWeights(true);
  }

  private static Network network() {
    return network(TransformedActivation.rectifier(0.9, 1.1));
  }

  /** Images and labels of a batch. */
  private record Data(Tensor images, Tensor labels) implements AutoCloseable {
    static Data of(int images) {
      SplittableRandom random = new SplittableRandom(3);
      Shape shape = Shape.of(images, EXTENT, EXTENT, 2);
      Data data =
          new Data(
              Tensor.allocate(shape, DataType.F32, Layout.NHWC),
              Tensor.allocate(Shape.of(images), DataType.I32, Layout.ROW_MAJOR));
      for (long i = 0; i < shape.elements(); i++) {
        data.images.put(i, (float) (1 + 2 * random.nextGaussian()));
      }
      for (int i = 0; i < images; i++) {
        data.labels.put(i, i % CLASSES);
      }
      return data;
    }

    @Override
    public void close() {
      images.close();
      labels.close();
    }
  }

  private static BatchExecutor executor(
      Network network, Backend backend, int batch, boolean train) {
    Program.Options options = new Program.Options(DataType.F32, 0, train, 1);
    return new BatchExecutor(network, backend, batch, batch, options);
  }

  private static final class Setup implements AutoCloseable {
    final Backend backend;
    final Parameters parameters;
    final Parameters gradients;
    final BatchExecutor executor;
    final Data data = Data.of(BATCH);

    Setup(Network network, String device, int lanes) {
      backend = WithLanes.of(Backends.open(device), lanes);
      parameters = Parameters.allocate(network, backend);
      gradients = Parameters.allocate(network, backend);
      executor = executor(network, backend, BATCH, true);
      Initializer.delta(9).fill(backend, parameters);
    }

    double loss() {
      executor.load(parameters);
      return executor
          .forwardBackward(data.images, data.labels, gradients, Write.OVERWRITE, 1, 0)
          .loss();
    }

    @Override
    public void close() {
      data.close();
      executor.close();
      gradients.close();
      parameters.close();
      backend.close();
    }
  }

  /** The gradient of what depends on all of the batch, through statistics and shortcut. */
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void gradientsAreThoseOfTheLoss(boolean fused) {
    Network network = fused ? network() : network(TransformedActivation.unchanged(Activation.TANH));
    try (Setup run = new Setup(network, "reference", 1)) {
      run.loss();
      float[] gradients = run.gradients.arena().toFloatArray();
      SplittableRandom random = new SplittableRandom(5);
      float h = 0x1p-7f;
      double largest = 0;
      for (ParameterSpec spec : network.parameters()) {
        if (spec.kind().isStatistic() || spec.name().matches("c..bias")) {
          continue; // no gradients; and a bias before a normalisation has no effect
        }
        for (int i = 0; i < 3; i++) {
          long at = spec.offset() + random.nextInt(Math.toIntExact(spec.shape().elements()));
          Tensor arena = run.parameters.arena();
          float value = arena.get(at);
          arena.put(at, value + h);
          double above = run.loss();
          arena.put(at, value - h);
          double below = run.loss();
          arena.put(at, value);
          double expected = (above - below) / (2 * (double) h);
          largest = Math.max(largest, Math.abs(expected));
          assertEquals(
              expected, gradients[(int) at], 0.02 * (0.1 + Math.abs(expected)), spec.name());
        }
      }
      assertTrue(largest > 0.1, "gradients are too small to tell: " + largest);
    }
  }

  @Test
  void resultsDependNeitherOnLanesNorMuchOnTheBackend() {
    Network network = network();
    List<float[]> results = new ArrayList<>();
    for (int lanes : new int[] {1, 2, 3, 8}) {
      try (Setup run = new Setup(network, "cpu", lanes)) {
        run.loss();
        results.add(run.gradients.arena().toFloatArray());
      }
    }
    results.forEach(gradients -> assertArrayEquals(results.getFirst(), gradients));
    try (Setup reference = new Setup(network, "reference", 1);
        Setup cpu = new Setup(network, "cpu", 1)) {
      // The two draw other weights: those of one are given to the other.
      cpu.parameters.arena().set(reference.parameters.arena().toFloatArray());
      assertEquals(reference.loss(), cpu.loss(), 1e-4);
      assertArrayEquals(
          reference.gradients.arena().toFloatArray(), cpu.gradients.arena().toFloatArray(), 1e-3f);
    }
  }

  /** What the optimiser takes running statistics by, of a layer that sees the images themselves. */
  @Test
  void statisticsAreThoseOfTheWholeBatch() {
    Network.Builder b = Network.builder("first", EXTENT, EXTENT, 2);
    b.linear("logits", b.globalMeanPool("pool", b.batchNorm("n", b.input())), CLASSES);
    try (Setup run = new Setup(b.build(), "cpu", 2)) {
      run.loss();
      float[] x = run.data.images.toFloatArray();
      List<ParameterSpec> specs = run.parameters.network().parameters();
      for (int c = 0; c < 2; c++) {
        double mean = 0;
        for (int i = c; i < x.length; i += 2) {
          mean += x[i] / (x.length / 2.0);
        }
        double unbiased = 0;
        for (int i = c; i < x.length; i += 2) {
          unbiased += (x[i] - mean) * (x[i] - mean) / (x.length / 2.0 - 1);
        }
        for (int p = 0; p < specs.size(); p++) {
          float distance = run.gradients.view(p).get(c);
          switch (specs.get(p).kind()) {
            case MEAN -> assertEquals(0 - mean, distance, 1e-5); // begins at 0
            case VARIANCE -> assertEquals(1 - unbiased, distance, 1e-4); // and at 1
            default -> {}
          }
        }
      }
    }
  }

  /** Outside of training a sample's logits do not depend on those beside it. */
  @Test
  void evaluationUsesRunningStatistics() {
    Network network = network();
    try (Setup run = new Setup(network, "cpu", 2);
        BatchExecutor one = executor(network, run.backend, 1, false);
        BatchExecutor all = executor(network, run.backend, BATCH, false)) {
      for (int p = 0; p < network.parameters().size(); p++) {
        if (network.parameters().get(p).kind() == ParameterSpec.Kind.VARIANCE) {
          run.parameters.view(p).put(0, 7);
        }
      }
      one.load(run.parameters);
      all.load(run.parameters);
      double sum = 0;
      for (int i = 0; i < BATCH; i++) {
        Tensor image =
            run.data.images.slice(
                i * (long) EXTENT * EXTENT * 2, Shape.of(1, EXTENT, EXTENT, 2), Layout.NHWC);
        Tensor label = run.data.labels.slice(i, Shape.of(1), Layout.ROW_MAJOR);
        sum += one.evaluate(image, label).loss();
      }
      assertEquals(sum, all.evaluate(run.data.images, run.data.labels).loss(), 1e-4);
      assertTrue(Math.abs(sum - run.loss()) > 1e-3, "and differs from training's");
    }
  }

  @Test
  void whatCannotBeIsRefused() {
    Network network = network();
    try (Backend backend = Backends.open("cpu")) {
      Program.Options options = new Program.Options(DataType.F32, 0, true, 1);
      IllegalArgumentException micro =
          assertThrows(
              IllegalArgumentException.class,
              () -> new BatchExecutor(network, backend, 8, 4, options).close());
      assertTrue(micro.getMessage().contains("leave micro-batches out"), micro.getMessage());
      UnsupportedException function =
          assertThrows(
              UnsupportedException.class,
              () ->
                  new NetworkFunction(
                          network,
                          backend,
                          new NetworkFunction.Options(8, 0, DataType.F32, true, false, 1))
                      .close());
      assertTrue(function.getMessage().contains("Trainer"), function.getMessage());
      UnsupportedException fisher =
          assertThrows(
              UnsupportedException.class, () -> new FisherSamples(network, backend, 8).close());
      assertTrue(fisher.getMessage().contains("SGD, Adam or Muon"), fisher.getMessage());
    }
    try (Setup run = new Setup(network, "cpu", 1);
        Data few = Data.of(BATCH - 1)) {
      OperandException smaller =
          assertThrows(
              OperandException.class,
              () ->
                  run.executor.forwardBackward(
                      few.images(), few.labels(), run.gradients, Write.OVERWRITE, 1, 0));
      assertTrue(smaller.getMessage().contains("padding"), smaller.getMessage());
    }
  }

  @Test
  void shapingIsRefusedAndSaysWhy() {
    Network network = network(TransformedActivation.unchanged(Activation.TANH));
    for (ShapingMethod method : List.of(new Tat(), new Dks(), new Eoc(0.05))) {
      UnsuitableNetworkException refused =
          assertThrows(UnsuitableNetworkException.class, () -> network.shape(method));
      assertEquals("n0", refused.layer());
      assertTrue(refused.getMessage().contains("batch normalisation"), refused.getMessage());
    }
    assertEquals(network.functions(), network.shape(new Unshaped()).functions());
    Network.Builder b = Network.builder("sum", 2, 2, 2);
    int x = b.activation("a", b.convolution("c", b.input(), 3, 3, 1));
    b.sum("sum", x, b.activation("b", b.convolution("d", x, 3, 3, 1)));
    Network sum = b.build();
    UnsuitableNetworkException refused =
        assertThrows(UnsuitableNetworkException.class, () -> sum.shape(new Tat()));
    assertTrue(refused.getMessage().contains("normalised sum"), refused.getMessage());
  }

  @ParameterizedTest
  @CsvSource({"18, 17", "34, 33", "50, 49", "101, 100", "152, 151", "200, 199"})
  void namesHaveTheirDepth(int depth, int activations) {
    for (Block block : Block.values()) {
      Network network = build("bnresnet" + depth, block, new Extent(64, 64, 4));
      assertEquals(activations, network.depth());
      assertTrue(network.looksAtBatches() && network.gaussianWeights());
    }
  }

  private static Network build(String name, Block block, Extent input) {
    return Networks.build(new Networks.Options(name, block, 0, 0), input, 1000);
  }

  @Test
  void bnresnet50HasThePublishedParameters() {
    // torchvision's ResNet-50: 25,557,032, without the biases of 53 convolutions (26,560).
    Network network = build("bnresnet50", Block.V1, new Extent(224, 224, 3));
    assertEquals(25_557_032 + 26_560, network.parameterCount());
  }

  @ParameterizedTest
  @EnumSource(Block.class)
  void theSmallOneHasPlain50sConvolutions(Block block) {
    Network plain = build("plain50", block, new Extent(28, 28, 2));
    Network small = build("bnresnet50-small", block, new Extent(28, 28, 2));
    assertEquals(plain.depth(), small.depth());
    double cost = (double) small.multiplyAdds() / plain.multiplyAdds();
    assertTrue(cost > 0.97 && cost < 1.03, "cost " + cost);
    assertEquals(small.layers(), NetworkJson.read(NetworkJson.write(small)).layers());
    assertTrue(NetworkJson.read(NetworkJson.write(small)).gaussianWeights());
  }

  /** He's weights: N(0, 2 / inputs), to five standard errors of mean and variance. */
  @Test
  void gaussianWeightsHaveTheirVariance() {
    Network.Builder b = Network.builder("wide", 2, 2, 64);
    b.convolution("c", b.input(), 64, 3, 1);
    Network network =
        b.build()
            .with(TransformedActivation.unchanged(Activation.RELU), Math.sqrt(2), 0)
            .withGaussianWeights(true);
    try (Backend backend = Backends.open("cpu");
        Stream stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend)) {
      Initializer.delta(4).fill(backend, parameters);
      stream.synchronize();
      double mean = 0;
      double square = 0;
      float[] weights = parameters.view(0).toFloatArray();
      for (float weight : weights) {
        mean += weight / weights.length;
        square += (double) weight * weight / weights.length;
      }
      double variance = 2.0 / (9 * 64);
      double error = 5 / Math.sqrt(weights.length);
      assertEquals(0, mean, error * Math.sqrt(variance));
      assertEquals(variance, square, error * Math.sqrt(2) * variance);
    }
  }
}
