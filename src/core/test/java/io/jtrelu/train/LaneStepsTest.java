package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.WithLanes;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Steps that lanes share: four parts of a batch, three slices of the gradient. */
class LaneStepsTest {
  private static final int EXTENT = 6;
  private static final int BATCH = 16;
  private static final int CLASSES = 3;
  private static final double RATE = 0.05;
  private static final double CLIP = 0.125;
  private static final double MOMENTUM = 0.9;
  private static final double DECAY = 0.25;

  private static Network network() {
    Network.Builder b = Network.builder("lanes", EXTENT, EXTENT, 2);
    int x = b.input();
    for (int i = 0; i < 5; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 32, 3, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), CLASSES);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  private static TrainingConfig config(Optimizer.Kind optimizer) {
    return TrainingConfig.builder()
        .batch(BATCH)
        .optimizer(optimizer)
        .learningRate(RATE)
        .momentum(MOMENTUM)
        .weightDecay(DECAY)
        .clipNorm(CLIP)
        .build();
  }

  /** A network in training, with steps of one pass. */
  private static final class Run implements AutoCloseable {
    final Network network = network();
    final Parameters parameters;
    final Parameters gradients;
    final Optimizer optimizer;
    final LaneSteps steps;
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private int number;

    Run(String device, int lanes, Optimizer.Kind kind) {
      Backend backend = own(WithLanes.of(Backends.open(device), lanes));
      parameters = own(Parameters.allocate(network, backend));
      gradients = own(Parameters.allocate(network, backend));
      optimizer = own(new Optimizer(network, backend, config(kind)));
      Program.Options options = new Program.Options(DataType.F32, 0.1f, true, 5);
      steps =
          own(
              new LaneSteps(
                  network, backend, BATCH, 0, 1, options, parameters, gradients, optimizer));
      Initializer.delta(9).fill(backend, parameters);
      steps.load();
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    /** A step over images whose first value is replaced. */
    Steps.Figures step(float first) {
      SplittableRandom random = new SplittableRandom(number);
      Shape shape = Shape.of(BATCH, EXTENT, EXTENT, 2);
      Tensor images = own(Tensor.allocate(shape, DataType.F32, Layout.NHWC));
      Tensor labels = own(Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR));
      for (long i = 0; i < shape.elements(); i++) {
        images.put(i, (float) random.nextGaussian());
      }
      images.put(0, first);
      for (int i = 0; i < BATCH; i++) {
        labels.put(i, i % CLASSES);
      }
      number++;
      steps.submit(images, labels, new Steps.Pass(true, true, number, RATE, number));
      return steps.take();
    }

    /** Parameters and the optimiser's state. */
    List<float[]> state() {
      List<float[]> state = new ArrayList<>(List.of(parameters.arena().toFloatArray()));
      optimizer.state().values().forEach(tensor -> state.add(tensor.toFloatArray()));
      return state;
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException(failure);
        }
      }
    }
  }

  private static void requireEqual(List<float[]> expected, List<float[]> actual) {
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), actual.get(i), "state " + i);
    }
  }

  static Stream<Arguments> devicesAndOptimizers() {
    return Stream.of("reference", "cpu")
        .flatMap(
            device -> Stream.of(Optimizer.Kind.values()).map(kind -> Arguments.of(device, kind)));
  }

  static Stream<Arguments> devicesAndOptimizersThatClip() {
    Set<Object> others = Set.of(Optimizer.Kind.KFAC, Optimizer.Kind.MUON);
    return devicesAndOptimizers().filter(way -> !others.contains(way.get()[1]));
  }

  @ParameterizedTest
  @MethodSource("devicesAndOptimizers")
  void resultsDoNotDependOnTheNumberOfLanes(String device, Optimizer.Kind kind) {
    try (Run one = new Run(device, 1, kind)) {
      List<Steps.Figures> figures = List.of(one.step(0), one.step(0));
      for (int lanes : new int[] {2, 3, 64}) {
        try (Run many = new Run(device, lanes, kind)) {
          assertEquals(figures, List.of(many.step(0), many.step(0)), lanes + " lanes");
          requireEqual(one.state(), many.state());
        }
      }
    }
  }

  /** The first step, worked out in binary64 from its gradient. ({@link KfacTest} has K-FAC's.) */
  @ParameterizedTest
  @MethodSource("devicesAndOptimizersThatClip")
  void clipsByTheNormAndUpdates(String device, Optimizer.Kind kind) {
    try (Run run = new Run(device, 2, kind)) {
      float[] before = run.parameters.arena().toFloatArray();
      float norm = run.step(0).norm();
      float[] gradient = run.gradients.arena().toFloatArray();
      double squares = 0;
      for (float g : gradient) {
        squares += (double) g * g;
      }
      double expectedNorm = Math.sqrt(squares);
      assertEquals(expectedNorm, norm, 1e-6 * expectedNorm);
      assertTrue(norm > CLIP, "nothing is clipped: norm " + norm);
      assertTrue(gradient.length > 2 << 14, "one slice proves nothing");
      float[] after = run.parameters.arena().toFloatArray();
      for (ParameterSpec spec : run.network.parameters()) {
        double decay = spec.kind() == ParameterSpec.Kind.WEIGHTS ? DECAY : 0;
        for (int i = (int) spec.offset(); i < spec.offset() + spec.shape().elements(); i++) {
          double g = CLIP / expectedNorm * gradient[i];
          double direction =
              kind == Optimizer.Kind.SGD
                  ? (1 + MOMENTUM) * (g + decay * before[i])
                  : g / (Math.abs(g) + 1e-8) + decay * before[i];
          double expected = before[i] - RATE * direction;
          assertEquals(
              expected,
              after[i],
              1e-6 * (Math.abs(before[i]) + RATE * Math.abs(direction)),
              spec.name() + ", element " + i);
        }
      }
    }
  }

  /** Neither a step that is not finite nor those behind it leave a trace. */
  @ParameterizedTest
  @EnumSource(Optimizer.Kind.class)
  void nothingIsUpdatedAfterAStepThatIsNotFinite(Optimizer.Kind kind) {
    for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
      try (Run run = new Run("cpu", 2, kind);
          Run good = new Run("cpu", 2, kind)) {
        List<float[]> before = run.state();
        assertFalse(Float.isFinite(run.step(bad).norm()));
        requireEqual(before, run.state());
        assertTrue(Float.isFinite(run.step(0).norm()));
        requireEqual(before, run.state());
        run.steps.forgive();
        run.number = 0;
        assertEquals(good.step(0), run.step(0));
        requireEqual(good.state(), run.state());
      }
    }
  }
}
