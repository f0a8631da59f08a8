package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.text.MessageFormat;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Recorded steps on the emulated device, against steps on the CPU: batches that change in size, and
 * passes that are not finite with others queued behind them.
 */
class RecordedStepsTest {
  private static final int EXTENT = 4;
  private static final int CLASSES = 3;

  private static Network network() {
    Network.Builder b = Network.builder("small", EXTENT, EXTENT, 2);
    int x = b.convolution("c1", b.input(), 5, 3, 1);
    x = b.activation("a1", x);
    x = b.convolution("c2", x, 6, 3, 2);
    x = b.activation("a2", x);
    x = b.globalMeanPool("pool", x);
    x = b.dropout("drop", x, 0.2f);
    b.linear("logits", x, CLASSES);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  private static TrainingConfig config(Optimizer.Kind optimizer) {
    return TrainingConfig.builder()
        .batch(6)
        .optimizer(optimizer)
        .learningRate(0.05)
        .weightDecay(1e-3)
        // Plain steps, those that measure, and inversions of all factors and by turns.
        .kfac(new KfacConfig(0.1, 1e-3, 0.9, 2, 4, false))
        .build();
  }

  /** A network in training on a backend, with steps of one pass. */
  private static final class Bench implements AutoCloseable {
    final Backend backend;
    final Network network = network();
    final Parameters parameters;
    final Parameters gradients;
    final Optimizer optimizer;
    final Steps steps;
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private int number;

    Bench(Backend backend, Optimizer.Kind kind, int batch, boolean recorded) {
      this(backend, kind, batch, recorded, DataType.F32, null);
    }

    Bench(
        Backend backend,
        Optimizer.Kind kind,
        int batch,
        boolean recorded,
        DataType type,
        LocationNorm.@Nullable Settings normalization) {
      this.backend = own(backend);
      parameters = own(Parameters.allocate(network, backend));
      gradients = own(Parameters.allocate(network, backend));
      optimizer = own(new Optimizer(network, backend, config(kind)));
      Program.Options options = new Program.Options(type, 0.1f, true, 5);
      steps =
          own(
              recorded
                  ? new RecordedSteps(
                      network,
                      backend,
                      batch,
                      1,
                      options,
                      parameters,
                      gradients,
                      optimizer,
                      normalization)
                  : new LaneSteps(
                      network, backend, batch, 0, 1, options, parameters, gradients, optimizer));
      Initializer.delta(9).fill(backend, parameters);
      steps.load();
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    void submit(float[] images) {
      int batch = images.length / (EXTENT * EXTENT * 2);
      Shape shape = Shape.of(batch, EXTENT, EXTENT, 2);
      submit(own(Tensor.allocate(shape, DataType.F32, Layout.NHWC)).set(images));
    }

    void submit(Tensor src) {
      int batch = src.shape().dim(0);
      float[] labels = new float[batch];
      for (int i = 0; i < batch; i++) {
        labels[i] = i % CLASSES;
      }
      Tensor label = own(Tensor.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR));
      number++;
      // A sequence number beyond 32 bits.
      Steps.Pass pass = new Steps.Pass(true, true, (1L << 40) + number, 0.05, number);
      steps.submit(src, label.set(labels), pass);
    }

    Steps.Figures step(float[] images) {
      submit(images);
      return steps.take();
    }

    float[] read(Tensor tensor) {
      try (Stream stream = backend.newStream();
          Tensor host = Tensor.allocate(tensor.shape(), DataType.F32, Layout.ROW_MAJOR)) {
        backend.copy(stream, tensor, host);
        stream.synchronize();
        return host.toFloatArray();
      }
    }

    /** What the optimiser would save. */
    Map<String, float[]> state() {
      Map<String, float[]> state = new TreeMap<>();
      optimizer.state().forEach((name, tensor) -> state.put(name, read(tensor)));
      return state;
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new AssertionError(failure);
        }
      }
    }
  }

  private static float[] images(int batch, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] images = new float[batch * EXTENT * EXTENT * 2];
    for (int i = 0; i < images.length; i++) {
      images[i] = (float) random.nextGaussian();
    }
    return images;
  }

  private static Bench emulated(Optimizer.Kind kind, int batch) {
    return new Bench(new EmulatedSubject().open(), kind, batch, true);
  }

  /** The CPU backend takes whole batches here, so that the dropout masks are the same. */
  private static Bench cpu(Optimizer.Kind kind, int batch) {
    return new Bench(Backends.open("reference"), kind, batch, true);
  }

  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "KFAC") // whose batches are of one size
  void aChangedBatchIsRecordedAnew(Optimizer.Kind kind) {
    try (Bench device = emulated(kind, 6);
        Bench oracle = cpu(kind, 6)) {
      int seed = 0;
      for (int batch : new int[] {6, 6, 6, 2, 2, 2, 7, 6, 6, 6}) {
        float[] images = images(batch, seed++);
        Steps.Figures expected = oracle.step(images);
        Steps.Figures actual = device.step(images);
        assertEquals(expected.loss(), actual.loss(), 1e-4 * batch, "loss of pass " + seed);
        assertEquals(expected.correct(), actual.correct(), "hits of pass " + seed);
        assertEquals(expected.norm(), actual.norm(), 1e-3 * expected.norm(), "pass " + seed);
      }
      assertArrayEquals(
          oracle.read(oracle.parameters.arena()), device.read(device.parameters.arena()), 1e-3f);
    }
  }

  /** Without dropout masks in common, a first step all the same: lanes and recordings agree. */
  @Test
  void lanesAndRecordingsAgree() {
    try (Bench lanes = new Bench(Backends.open("cpu"), Optimizer.Kind.SGD, 1, false);
        Bench device = emulated(Optimizer.Kind.SGD, 1)) {
      for (int i = 0; i < 5; i++) {
        float[] images = images(1, i);
        Steps.Figures expected = lanes.step(images);
        Steps.Figures actual = device.step(images);
        assertEquals(expected.loss(), actual.loss(), 1e-4);
        assertEquals(expected.norm(), actual.norm(), 1e-3 * expected.norm());
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void aPassThatIsNotFiniteAndThoseBehindItChangeNothing(Optimizer.Kind kind) {
    for (boolean recorded : new boolean[] {true, false}) {
      try (Bench bench =
              recorded ? emulated(kind, 6) : new Bench(Backends.open("cpu"), kind, 6, false);
          Bench other =
              recorded ? emulated(kind, 6) : new Bench(Backends.open("cpu"), kind, 6, false)) {
        bench.step(images(6, 1));
        other.step(images(6, 1));
        for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY, 3e38f}) {
          float[] before = bench.read(bench.parameters.arena());
          Map<String, float[]> state = bench.state();
          float[] images = images(6, 2);
          images[17] = bad;
          bench.submit(images);
          for (int behind = 0; behind < bench.steps.ahead(); behind++) {
            bench.submit(images(6, 3));
          }
          Steps.Figures figures = bench.steps.take();
          boolean loss = Double.isFinite(figures.loss());
          assertTrue(!(loss && Float.isFinite(figures.norm())), figures.toString());
          String layer = bench.steps.firstNonFiniteLayer();
          assertNotNull(layer, bad + " is found in a layer");
          assertTrue(layer.matches("c1|a1|c2|a2"), layer);
          bench.steps.forgive();
          assertArrayEquals(before, bench.read(bench.parameters.arena()));
          Map<String, float[]> after = bench.state();
          state.forEach((name, values) -> assertArrayEquals(values, after.get(name), name));
        }
        // And on as if nothing had been, in numbers and masks as well.
        bench.number = other.number;
        Steps.Figures next = bench.step(images(6, 4));
        assertEquals(other.step(images(6, 4)), next);
        assertArrayEquals(
            other.read(other.parameters.arena()), bench.read(bench.parameters.arena()));
        assertNull(bench.steps.firstNonFiniteLayer());
      }
    }
  }

  /** Bytes that the device normalises train as values do that the host has normalised. */
  @ParameterizedTest
  @EnumSource(
      value = DataType.class,
      names = {"F32", "BF16"})
  void bytesGiveTheBitsOfValues(DataType type) {
    double[] mean = {0.3456789};
    double[] std = {0.2345678};
    PerLocationNormalization onHost =
        new PerLocationNormalization(mean, std, PerLocationNormalization.Homogeneous.ONE);
    LocationNorm.Settings onDevice =
        new LocationNorm.Settings(
            List.of(mean[0]), List.of(std[0]), LocationNorm.Homogeneous.ONE, 1);
    Optimizer.Kind kind = Optimizer.Kind.SGD;
    try (Bench values = new Bench(new EmulatedSubject().open(), kind, 5, true, type, null);
        Bench bytes = new Bench(new EmulatedSubject().open(), kind, 5, true, type, onDevice)) {
      assertTrue(bytes.steps.takesBytes() && !values.steps.takesBytes());
      SplittableRandom random = new SplittableRandom(7);
      for (int step = 0; step < 4; step++) {
        int batch = step == 2 ? 3 : 5;
        Shape shape = Shape.of(batch, EXTENT, EXTENT, 1);
        Tensor pixels = bytes.own(Tensor.allocate(shape, DataType.U8, Layout.NHWC));
        for (int i = 0; i < shape.elements(); i++) {
          pixels.put(i, random.nextInt(256));
        }
        Shape normalized = Shape.of(batch, EXTENT, EXTENT, 2);
        Tensor images = values.own(Tensor.allocate(normalized, DataType.F32, Layout.NHWC));
        onHost.apply(pixels, images);
        values.submit(images);
        bytes.submit(pixels);
        assertEquals(values.steps.take(), bytes.steps.take(), "step " + step);
      }
      assertArrayEquals(
          values.read(values.parameters.arena()), bytes.read(bytes.parameters.arena()));
    }
  }

  @Test
  void wrongUse() {
    try (Bench bench = emulated(Optimizer.Kind.SGD, 6)) {
      assertThrows(IllegalStateException.class, bench.steps::take);
      bench.submit(images(6, 1));
      bench.submit(images(6, 2));
      assertThrows(IllegalStateException.class, () -> bench.submit(images(6, 3)));
      bench.steps.take();
      IllegalStateException early =
          assertThrows(IllegalStateException.class, () -> bench.submit(images(4, 3)));
      assertTrue(early.getMessage().contains("batches of 6"), early.getMessage());
      bench.steps.take();
      Steps.Pass pass = new Steps.Pass(true, true, 0, 0.1, 1);
      try (Tensor images = Tensor.allocate(Shape.of(6, 4, 4, 3), DataType.F32, Layout.NHWC);
          Tensor labels = Tensor.allocate(Shape.of(6), DataType.I32, Layout.ROW_MAJOR)) {
        OperandException refused =
            assertThrows(OperandException.class, () -> bench.steps.submit(images, labels, pass));
        assertTrue(refused.getMessage().contains("[6, 4, 4, 2]"), refused.getMessage());
      }
    }
  }

  /** The same labels are drawn, so factors and inverses differ by roundings alone. */
  @Test
  void kfacStepsAreThoseOfTheCpu() {
    try (Bench device = emulated(Optimizer.Kind.KFAC, 6);
        Bench oracle = cpu(Optimizer.Kind.KFAC, 6)) {
      for (int step = 1; step <= 7; step++) { // all phases
        float[] images = images(6, step);
        Steps.Figures expected = oracle.step(images);
        Steps.Figures actual = device.step(images);
        assertEquals(expected.loss(), actual.loss(), 1e-5 * step * 6, "loss of step " + step);
        assertEquals(expected.norm(), actual.norm(), 1e-4 * step * expected.norm());
        Map<String, float[]> state = device.state();
        oracle
            .state()
            .forEach(
                (name, values) -> {
                  float largest = 0;
                  for (float value : values) {
                    largest = Math.max(largest, Math.abs(value));
                  }
                  // Inverses enlarge roundings by their condition, of some hundreds here.
                  assertArrayEquals(values, state.get(name), 1e-4f * largest, name);
                });
      }
      OperandException refused =
          assertThrows(OperandException.class, () -> device.submit(images(4, 2)));
      assertTrue(refused.getMessage().contains("batches of 6"), refused.getMessage());
    }
  }

  /** A factor without an inverse is told with the step's figures; the inverse before stays. */
  @Test
  void whatKfacCannotInvertIsTold() {
    List<String> told = new ArrayList<>();
    Handler handler =
        new Handler() {
          @Override
          public void publish(LogRecord logged) {
            told.add(MessageFormat.format(logged.getMessage(), logged.getParameters()));
          }

          @Override
          public void flush() {}

          @Override
          public void close() {}
        };
    Logger logger = Logger.getLogger("io.jtrelu.train");
    logger.addHandler(handler);
    try (Bench bench = emulated(Optimizer.Kind.KFAC, 6)) {
      bench.step(images(6, 1));
      assertEquals(List.of(), told);
      float[] inverses = bench.state().get("inverses");
      Tensor factors = bench.optimizer.state().get("factors");
      try (Stream stream = bench.backend.newStream()) {
        Tensor first = factors.slice(0, Shape.of(1), Layout.ROW_MAJOR);
        bench.backend.fill(stream, first, Float.NaN);
      }
      bench.step(images(6, 2)); // plain
      assertEquals(List.of(), told);
      bench.submit(images(6, 3)); // inverts the factors of the first and the third layer
      bench.submit(images(6, 4));
      assertEquals(List.of(), told, "not looked at yet");
      bench.steps.take();
      assertEquals(1, told.size(), told.toString());
      assertTrue(told.getFirst().contains("step 3, layer c1, input factor"), told.getFirst());
      bench.steps.take();
      assertEquals(1, told.size(), told.toString());
      float[] after = bench.state().get("inverses");
      for (int i = 0; i < 19 * 19; i++) {
        assertEquals(inverses[i], after[i], "the inverse before");
      }
      for (float value : bench.read(bench.parameters.arena())) {
        assertTrue(Float.isFinite(value));
      }
    } finally {
      logger.removeHandler(handler);
    }
  }
}
