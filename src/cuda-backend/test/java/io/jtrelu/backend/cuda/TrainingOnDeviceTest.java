package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Tuning;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.KfacConfig;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Model;
import io.jtrelu.train.NonFiniteException;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.Function;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Deep plain networks trained on the emulated device, end to end: the same losses as on the CPU,
 * the same bits whichever way the steps are taken, and nothing between the host and the device that
 * a step does not need.
 */
class TrainingOnDeviceTest {
  private static final int STEPS = 20;
  private static final int KFAC_STEPS = 5;

  @TempDir Path folder;

  /** Ways to train: bare, and with all that differs from step to step. */
  enum Way {
    SGD(Optimizer.Kind.SGD, 0.03, 1, 0),
    SGD_DROPOUT_ACCUMULATION(Optimizer.Kind.SGD, 0.03, 2, 0.2),
    ADAM(Optimizer.Kind.ADAM, 0.003, 1, 0),
    ADAM_DROPOUT_ACCUMULATION(Optimizer.Kind.ADAM, 0.003, 2, 0.2),
    MUON(Optimizer.Kind.MUON, 0.003, 1, 0);

    private final Optimizer.Kind optimizer;
    private final double rate;
    private final int accumulate;
    private final double dropout;

    Way(Optimizer.Kind optimizer, double rate, int accumulate, double dropout) {
      this.optimizer = optimizer;
      this.rate = rate;
      this.accumulate = accumulate;
      this.dropout = dropout;
    }

    /** Batches of four, which pass at once on every backend: the dropout masks are the same. */
    Setup config(DataType type) {
      return TrainingOnDeviceTest.config(optimizer, rate, 4, accumulate, dropout, type, 1);
    }
  }

  /** A run over the bars but for its data. */
  record Setup(TrainingConfig training, double dropout) {
    Run run(Datasets data) {
      var network = new Networks.Options("plain:14:6", Networks.Block.V2, 0, (float) dropout);
      return Run.of(network, ShapingConfig.DEFAULT, training, data, "bars");
    }
  }

  private static Setup config(
      Optimizer.Kind optimizer,
      double rate,
      int batch,
      int accumulate,
      double dropout,
      DataType type,
      double clipNorm) {
    TrainingConfig training =
        TrainingConfig.builder()
            .epochs(50)
            .batch(batch)
            .accumulate(accumulate)
            .optimizer(optimizer)
            .learningRate(rate)
            .warmup(0.02)
            .weightDecay(1e-4)
            .clipNorm(clipNorm)
            .type(type)
            .seed(7)
            .build();
    return new Setup(training, dropout);
  }

  private static Datasets data(int images) {
    return new Datasets(images(images, Split.TRAIN, 1), images(6, Split.TEST, 2), List.of());
  }

  private static ImageDataset images(int count, Split split, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    byte[][] images = new byte[count][6 * 6];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < 36; p++) {
        images[i][p] = (byte) ((p / 12 == labels[i] ? 120 : 0) + random.nextInt(100));
      }
    }
    return ImageDataset.of(
        "bars", split, 6, 6, 1, List.of("top", "middle", "bottom"), images, labels);
  }

  /** What a run leaves. */
  @SuppressWarnings("ArrayRecordComponent") // compared element by element
  private record Outcome(List<StepMetric> steps, float[] parameters) {
    List<Double> losses() {
      return steps.stream().map(StepMetric::loss).toList();
    }

    void requireSame(Outcome other, String what) {
      assertEquals(steps.size(), other.steps.size(), what);
      for (int i = 0; i < steps.size(); i++) {
        assertEquals(steps.get(i).loss(), other.steps.get(i).loss(), what + ", step " + i);
        assertEquals(
            steps.get(i).gradientNorm(), other.steps.get(i).gradientNorm(), what + ", step " + i);
        assertEquals(steps.get(i).accuracy(), other.steps.get(i).accuracy(), what + ", step " + i);
      }
      assertArrayEquals(parameters, other.parameters, what);
    }
  }

  private static float[] parameters(Backend backend, Trainer trainer) {
    Tensor arena = trainer.parameters().arena();
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(arena.shape(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, arena, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  private static Outcome run(Backend backend, Setup config, int steps) throws IOException {
    return run(backend, config, steps, 4);
  }

  private static Outcome run(Backend backend, Setup config, int steps, int stepsPerEpoch)
      throws IOException {
    int perStep = config.training().batch() * config.training().accumulate();
    Datasets data = data(stepsPerEpoch * perStep + 1);
    List<StepMetric> metrics = new ArrayList<>();
    try (Trainer trainer = Trainer.start(config.run(data), data, backend, null)) {
      while (metrics.size() < steps) {
        metrics.add(trainer.step());
      }
      return new Outcome(metrics, parameters(backend, trainer));
    }
  }

  private static Outcome emulated(Setup config, int steps) throws IOException {
    try (Backend backend = new EmulatedSubject().open()) {
      return run(backend, config, steps);
    }
  }

  private static Outcome reference(Setup config, int steps) throws IOException {
    try (Backend backend = Backends.open("reference")) {
      return run(takingWholeBatches(backend), config, steps);
    }
  }

  /** The emulated device without recordings: work that would be replayed is given anew. */
  private static Backend withoutRecordings(Backend backend) {
    return intercept(backend, "record", arguments -> new Repeated((Runnable) arguments[1]));
  }

  private record Repeated(Runnable work) implements Recording {
    @Override
    public void replay(Stream stream) {
      work.run();
    }

    @Override
    public void close() {}
  }

  /** A CPU backend that takes a batch through the network at once, as a GPU does. */
  private static Backend takingWholeBatches(Backend backend) {
    return intercept(backend, "takesWholeBatches", arguments -> true);
  }

  private static Backend intercept(
      Backend backend, String method, Function<Object[], Object> instead) {
    return intercept(Backend.class, backend, method, instead);
  }

  /** Something with another method in place of one of its own. */
  private static <T> T intercept(
      Class<T> type, T original, String method, Function<Object[], Object> instead) {
    return type.cast(
        Proxy.newProxyInstance(
            type.getClassLoader(),
            new Class<?>[] {type},
            (proxy, called, arguments) -> {
              if (called.getName().equals(method)) {
                return instead.apply(arguments);
              }
              try {
                return called.invoke(original, arguments);
              } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
              }
            }));
  }

  private static double mean(List<Double> losses, int from, int to) {
    return losses.subList(from, to).stream()
        .mapToDouble(Double::doubleValue)
        .average()
        .orElseThrow();
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void sameLossesAsTheCpuAndTheSameBitsTwice(Way way) throws IOException {
    Setup config = way.config(DataType.F32);
    Outcome first = emulated(config, STEPS);
    if (way.accumulate == 1) { // for the others see below
      emulated(config, STEPS).requireSame(first, "the same twice, bit for bit");
    }
    for (StepMetric step : first.steps()) {
      assertTrue(Double.isNaN(step.seconds()), "no time is told of the emulated device");
      assertTrue(Double.isNaN(step.imagesPerSecond()));
    }
    Outcome oracle = reference(config, STEPS);
    List<Double> losses = oracle.losses();
    if (way.dropout == 0) {
      assertTrue(mean(losses, 15, 20) < 0.95 * mean(losses, 0, 5), "it learns: " + losses);
    }
    for (int step = 0; step < STEPS; step++) {
      // Rounding errors of 14 layers, growing a little with each update. Adam divides by the root
      // of squares that begin near zero, which enlarges them.
      double growth = way.optimizer != Optimizer.Kind.SGD ? 1e-4 : 1e-5;
      double allowed = growth * (1 + step) * losses.get(step);
      assertEquals(losses.get(step), first.losses().get(step), allowed, "step " + step);
    }
  }

  /** Batch normalisation and a plain shortcut, recorded: with statistics that are followed. */
  @Test
  void normalisedOverBatchesAsOnTheCpu() throws IOException {
    Network.Builder b = Network.builder("normalised", 6, 6, 2);
    int x = b.activation("a0", b.batchNorm("n0", b.convolution("c0", b.input(), 8, 3, 2)));
    int y = b.batchNorm("n1", b.convolution("c1", x, 8, 3, 1));
    y = b.activation("a1", b.sum("sum", x, y));
    b.linear("logits", b.globalMeanPool("pool", y), 3);
    Network network = b.build().with(TransformedActivation.rectifier(0.1, 1));
    Datasets data = data(17);
    TrainingConfig training = Way.SGD.config(DataType.F32).training();
    Run run = Run.of(Model.of(network, data.train()), training, data);
    List<Outcome> outcomes = new ArrayList<>();
    for (String device : List.of("emulated", "emulated", "reference")) {
      boolean emulated = device.equals("emulated");
      try (Backend backend = emulated ? new EmulatedSubject().open() : Backends.open(device)) {
        Backend whole = emulated ? backend : takingWholeBatches(backend);
        List<StepMetric> metrics = new ArrayList<>();
        try (Trainer trainer = Trainer.start(run, data, whole, null)) {
          while (metrics.size() < 3) {
            metrics.add(trainer.step());
          }
          outcomes.add(new Outcome(metrics, parameters(backend, trainer)));
        }
      }
    }
    outcomes.get(1).requireSame(outcomes.get(0), "the same twice, bit for bit");
    Outcome oracle = outcomes.get(2);
    for (int step = 0; step < 3; step++) {
      double loss = oracle.losses().get(step);
      assertEquals(loss, outcomes.get(0).losses().get(step), 1e-4 * (1 + step) * loss);
    }
    assertArrayEquals(oracle.parameters(), outcomes.get(0).parameters(), 1e-3f);
  }

  /** Few steps of K-FAC, in which everything has a turn: plain, measured, inverted in two parts. */
  private static Setup kfac(int accumulate, DataType type, double dropout) {
    Setup config = config(Optimizer.Kind.KFAC, 0.003, 4, accumulate, dropout, type, 1);
    KfacConfig settings = new KfacConfig(0.3, 1e-3, 0.95, 2, 4, false);
    return new Setup(config.training().toBuilder().kfac(settings).build(), dropout);
  }

  @Test
  void kfacTrainsAsOnTheCpu() throws IOException {
    Setup config = kfac(1, DataType.F32, 0);
    Outcome oracle;
    Outcome first;
    try (Backend backend = Backends.open("reference")) {
      oracle = run(takingWholeBatches(backend), config, KFAC_STEPS, KFAC_STEPS + 1);
    }
    try (Backend backend = new EmulatedSubject().open()) {
      first = run(backend, config, KFAC_STEPS, KFAC_STEPS + 1);
    }
    for (int step = 0; step < KFAC_STEPS; step++) {
      // As for SGD; the inverses, of a condition of some tens, enlarge roundings.
      double allowed = 1e-4 * (1 + step) * oracle.losses().get(step);
      assertEquals(oracle.losses().get(step), first.losses().get(step), allowed, "step " + step);
    }
    Datasets data = data((KFAC_STEPS + 1) * 4 + 1);
    Path directory = folder.resolve("kfac");
    try (Backend backend = new EmulatedSubject().open()) {
      try (Trainer trainer = Trainer.start(config.run(data), data, backend, directory)) {
        while (trainer.steps() < 3) { // has measured, and not all that was measured is inverted
          trainer.advance();
        }
        trainer.save();
      }
      try (Trainer trainer = Trainer.resume(directory, data, backend)) {
        while (trainer.steps() < KFAC_STEPS) {
          trainer.advance();
        }
        trainer.settle();
        assertArrayEquals(first.parameters(), parameters(backend, trainer), "stopped and resumed");
      }
    }
  }

  @Test
  void replayedStepsOfKfacEqualThoseThatAreGivenAnew() throws IOException {
    Setup config = kfac(2, DataType.BF16, 0.2);
    try (Backend backend = new EmulatedSubject().open()) {
      int steps = 3; // the last one measures, and inverts every other layer's factors
      Outcome direct = run(withoutRecordings(backend), config, steps, steps + 1);
      run(backend, config, steps, steps + 1).requireSame(direct, "K-FAC");
    }
  }

  /** Recorded steps whose convolutions are a library's. */
  @ParameterizedTest
  @ValueSource(strings = {"cuda12 cublas,cudnn", "cuda13 cublas,cudnn", "cuda13 cudnn"})
  void librariesTrainAsTheCpuDoes(String libraries) throws IOException {
    String[] word = libraries.split(" ", -1);
    Setup config = Way.SGD.config(DataType.F32);
    List<Double> expected = reference(config, 8).losses();
    Outcome first = null;
    for (int run = 0; run < 2; run++) {
      try (Backend backend = LibrariesSubject.with(word[0], word[1], new EmulatedSubject()::open)) {
        Outcome outcome = run(backend, config, 8);
        if (first != null) {
          outcome.requireSame(first, "the same twice, bit for bit");
        }
        first = outcome;
      }
    }
    for (int step = 0; step < 8; step++) {
      double allowed = 1e-5 * (1 + step) * expected.get(step);
      assertEquals(expected.get(step), first.losses().get(step), allowed, "step " + step);
    }
  }

  /** A run keeps what was measured for it, also where this machine would choose otherwise now. */
  @Test
  void resumedRunsComputeAsTheyBegan() throws IOException {
    Setup untuned = Way.SGD.config(DataType.BF16);
    Setup tuned =
        new Setup(untuned.training().toBuilder().tuning(Tuning.ONCE).build(), untuned.dropout());
    Datasets data = data(17);
    Path kept = folder.resolve("tuning.txt");
    System.setProperty(TuningFile.PROPERTY, kept.toString());
    try (Backend backend = EmulatedSubject.openPlain()) {
      float[] expected = run(backend, tuned, 4).parameters();
      Path directory = folder.resolve("run");
      Map<String, String> choices;
      try (Trainer trainer = Trainer.start(tuned.run(data), data, backend, directory)) {
        choices = trainer.run().choices();
        trainer.step();
        trainer.step();
        trainer.save();
      }
      assertFalse(choices.isEmpty());
      assertEquals(choices, Run.read(directory).choices());
      Files.writeString(kept, Files.readString(kept).replaceAll("\t[^\n]*", "\town"));
      try (Trainer trainer = Trainer.resume(directory, data, backend)) {
        choices.forEach((problem, way) -> assertEquals(way, backend.choices().get(problem)));
        trainer.step();
        trainer.step();
        assertArrayEquals(expected, parameters(backend, trainer));
      }
    } finally {
      System.clearProperty(TuningFile.PROPERTY);
    }
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void replayedStepsEqualThoseThatAreGivenAnew(Way way) throws IOException {
    for (DataType type : List.of(DataType.F32, DataType.BF16)) {
      Setup config = way.config(type);
      try (Backend backend = new EmulatedSubject().open()) {
        Outcome direct = run(withoutRecordings(backend), config, 5);
        run(backend, config, 5).requireSame(direct, way + " " + type);
      }
    }
  }

  /**
   * BF16 activations, F32 weights: at a rate whose updates vanish in bf16, the losses follow those
   * of F32, and so does the way that the weights go. (At a larger one, two runs part where the loss
   * begins to fall.)
   */
  @Test
  void bf16FollowsF32() throws IOException {
    double rate = 5e-4;
    Setup half = config(Optimizer.Kind.SGD, rate, 4, 1, 0, DataType.BF16, 1);
    Setup single = config(Optimizer.Kind.SGD, rate, 4, 1, 0, DataType.F32, 1);
    Outcome actual = emulated(half, STEPS);
    Outcome oracle = reference(single, STEPS);
    float[] start = reference(single, 0).parameters();
    for (int step = 0; step < STEPS; step++) {
      // Two roundings to 2^-9 in each of 14 layers, adding up like a random walk.
      double allowed = 0.01 * oracle.losses().get(step);
      assertEquals(oracle.losses().get(step), actual.losses().get(step), allowed, "step " + step);
    }
    double product = 0;
    double actualSquare = 0;
    double oracleSquare = 0;
    int small = 0;
    for (int i = 0; i < start.length; i++) {
      double a = actual.parameters()[i] - start[i];
      double o = oracle.parameters()[i] - start[i];
      product += a * o;
      actualSquare += a * a;
      oracleSquare += o * o;
      small += a != 0 && Math.abs(a) < Math.abs(start[i]) * 0x1p-9 ? 1 : 0;
    }
    double cosine = product / Math.sqrt(actualSquare * oracleSquare);
    assertTrue(cosine > 0.9, "cosine of the ways is " + cosine);
    assertTrue(Math.abs(Math.sqrt(actualSquare / oracleSquare) - 1) < 0.05, "lengths of the ways");
    assertTrue(small > start.length / 10, small + " weights moved by less than bf16 can hold");
  }

  /** Parameters after steps that are given to a device ahead of their figures. */
  private static float[] ahead(Backend backend, int steps) throws IOException {
    Setup config = Way.ADAM_DROPOUT_ACCUMULATION.config(DataType.F32);
    Datasets data = data(33);
    try (Trainer trainer = Trainer.start(config.run(data), data, backend, null)) {
      while (trainer.steps() < steps) {
        trainer.advance();
      }
      trainer.settle();
      return parameters(backend, trainer);
    }
  }

  private static float[] atOnce(int steps) throws IOException {
    try (Backend backend = EmulatedSubject.inOrder(0)) {
      return ahead(backend, steps);
    }
  }

  /** The same bits whenever the device does its work: as late as it may, or in any other order. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void theOrderOfADevicesWorkChangesNothing(long delay) throws IOException {
    float[] expected = atOnce(7);
    try (Backend backend = EmulatedSubject.inOrder(delay)) {
      assertArrayEquals(expected, ahead(backend, 7));
    }
  }

  /**
   * What a step waits for, it needs: on a device that works late, a wait left out shows. (How it is
   * named, on any device: {@link PlantedRacesTest}.)
   */
  @ParameterizedTest
  @ValueSource(strings = {"await", "synchronize"})
  void aWaitLeftOutShows(String wait) throws IOException {
    float[] expected = atOnce(7);
    try (Backend backend = EmulatedSubject.openPlain()) {
      Backend forgetful =
          intercept(
              backend,
              "newEvent",
              none -> intercept(Event.class, backend.newEvent(), wait, ignored -> null));
      EmulatorControl.delay(0);
      assertArrayEquals(expected, ahead(forgetful, 7), "a device that works at once hides it");
      EmulatorControl.delay(1);
      float[] actual;
      try {
        actual = ahead(forgetful, 7);
      } catch (NonFiniteException | IllegalStateException shows) {
        return;
      } finally {
        EmulatorControl.clear();
      }
      assertFalse(Arrays.equals(expected, actual), wait + " was left out, and nothing shows it");
    }
  }

  /** Steps whose figures are looked at one step late are the same steps. */
  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void stepsAheadEqualStepsOneByOne(int accumulate) throws IOException {
    Setup config = config(Optimizer.Kind.ADAM, 0.003, 4, accumulate, 0.2, DataType.F32, 1);
    Outcome oneByOne = emulated(config, 10); // an epoch has 4 steps
    Datasets data = data(16 * accumulate + 1);
    Path ahead = folder.resolve("ahead");
    try (Backend backend = new EmulatedSubject().open();
        Trainer trainer = Trainer.start(config.run(data), data, backend, ahead)) {
      for (int step = 1; step <= 6; step++) {
        trainer.advance();
        assertEquals(step, trainer.steps());
        StepMetric last = trainer.lastStep();
        int known = last == null ? 0 : (int) last.step();
        assertEquals(step == 4 ? 4 : step - 1, known, "settled at the end of an epoch only");
      }
      trainer.save();
      assertEquals(6, Metrics.read(ahead.resolve(Trainer.METRICS)).steps().size());
    }
    try (Backend backend = new EmulatedSubject().open();
        Trainer trainer = Trainer.resume(ahead, data, backend)) {
      while (trainer.steps() < 10) {
        trainer.advance();
      }
      trainer.settle();
      List<StepMetric> steps = Metrics.read(ahead.resolve(Trainer.METRICS)).steps();
      new Outcome(steps, parameters(backend, trainer)).requireSame(oneByOne, "stopped and resumed");
    }
  }

  /** One launch, one copy there and one back for each pass; no allocation, one look at figures. */
  @ParameterizedTest
  @ValueSource(ints = {1, 2})
  void aStepCostsTheHostOneLaunch(int accumulate) throws IOException {
    for (DataType type : List.of(DataType.F32, DataType.BF16)) {
      Setup config = config(Optimizer.Kind.ADAM, 0.003, 2, accumulate, 0.2, type, 1);
      Datasets data = data(50 * accumulate);
      try (Backend backend = EmulatedSubject.openPlain();
          Trainer trainer = Trainer.start(config.run(data), data, backend, null)) {
        for (int i = 0; i < 3; i++) {
          trainer.advance(); // records
        }
        long allocations = backend.memory().allocations();
        EmulatorControl.clearCounters();
        int steps = 8;
        for (int i = 0; i < steps; i++) {
          trainer.advance();
        }
        JsonNode calls = EmulatorControl.calls();
        int passes = steps * accumulate;
        for (Iterator<String> names = calls.fieldNames(); names.hasNext(); ) {
          String name = names.next();
          int expected =
              switch (name) {
                case "cuGraphLaunch",
                    "cuMemcpyHtoDAsync",
                    "cuMemcpyDtoHAsync",
                    "cuStreamWaitEvent",
                    "cuEventSynchronize" ->
                    passes;
                case "cuEventRecord", "cuEventRecordWithFlags" -> 2 * passes;
                default -> 0;
              };
          assertEquals(expected, calls.get(name).asInt(), name + " in " + calls);
        }
        assertEquals(passes, calls.get("cuGraphLaunch").asInt());
        assertEquals(allocations, backend.memory().allocations(), "device allocations");
        trainer.settle();
        assertEquals(0, EmulatorControl.errors(), EmulatorControl.report());
      }
    }
  }

  /**
   * A rate that breaks the run. Whichever step is found bad, one ahead or not, the parameters are
   * those of the good steps before it, and the checkpoint can be read.
   */
  @Test
  void aStepThatIsNotFiniteChangesNothing() throws IOException {
    for (Optimizer.Kind optimizer : List.of(Optimizer.Kind.SGD, Optimizer.Kind.ADAM)) {
      double rate = optimizer == Optimizer.Kind.SGD ? 1e5 : 9e5;
      Setup wild = config(optimizer, rate, 4, 1, 0, DataType.F32, Double.POSITIVE_INFINITY);
      Datasets data = data(400);
      Run run = wild.run(data);
      Path files = folder.resolve("wild-" + optimizer);
      try (Backend backend = new EmulatedSubject().open();
          Trainer trainer = Trainer.start(run, data, backend, files)) {
        NonFiniteException bad =
            assertThrows(
                NonFiniteException.class,
                () -> {
                  while (!trainer.finished()) {
                    trainer.advance();
                  }
                });
        long good = trainer.steps();
        assertTrue(good > 0 && good < 100, good + " good steps");
        for (String part : new String[] {"step " + (good + 1), "layer", "--learning-rate"}) {
          assertTrue(bad.getMessage().contains(part), part + " not in: " + bad.getMessage());
        }
        assertEquals(good, Metrics.read(files.resolve(Trainer.METRICS)).steps().size());
        float[] left = parameters(backend, trainer);
        try (Trainer again = Trainer.start(run, data, backend, null)) {
          while (again.steps() < good) {
            again.step();
          }
          assertArrayEquals(parameters(backend, again), left);
          NonFiniteException same = assertThrows(NonFiniteException.class, again::step);
          assertTrue(same.getMessage().contains("step " + (good + 1)), same.getMessage());
          assertEquals(good, again.steps());
          assertArrayEquals(left, parameters(backend, again));
        }
        for (float value : left) {
          assertTrue(Float.isFinite(value));
        }
      }
      try (Checkpoint checkpoint = Checkpoint.open(files.resolve(Trainer.CHECKPOINT))) {
        assertEquals(0, checkpoint.state().step()); // no epoch has ended
      }
    }
  }

  /** A network that does not fit is refused with the sizes, and the process goes on. */
  @Test
  void aDeviceThatIsTooSmall() throws IOException {
    Setup config = Way.SGD.config(DataType.F32);
    Datasets data = data(17);
    Run run = config.run(data);
    try (Backend backend = EmulatedSubject.openPlain()) {
      EmulatorControl.memory(1 << 16);
      try {
        OutOfMemoryException full =
            assertThrows(
                OutOfMemoryException.class, () -> Trainer.start(run, data, backend, null).close());
        assertTrue(full.getMessage().contains("smaller batch"), full.getMessage());
        assertEquals(0, backend.memory().inUse(), "all was given back");
      } finally {
        EmulatorControl.memory(4L << 30);
      }
      try (Trainer trainer = Trainer.start(run, data, backend, null)) {
        assertNotNull(trainer.step());
      }
      assertEquals(0, backend.memory().inUse());
    }
  }

  /** The device is lost in mid-run: the error says so, and what was saved is good. */
  @Test
  void aDeviceThatIsLost() throws IOException {
    Setup config = Way.SGD.config(DataType.F32);
    Datasets data = data(17);
    Run run = config.run(data);
    try (Backend backend = EmulatedSubject.openPlain()) {
      EmulatorControl.clear();
      try (Trainer trainer = Trainer.start(run, data, backend, folder)) {
        for (int i = 0; i < 5; i++) {
          trainer.advance(); // an epoch of 4 steps, and one
        }
        EmulatorControl.failLaunch(10, 719);
        CudaException lost =
            assertThrows(
                CudaException.class,
                () -> {
                  trainer.advance();
                  trainer.settle();
                });
        assertTrue(lost.isDeviceLost() && lost.getMessage().contains("resume"), lost.getMessage());
        EmulatorControl.clear(); // only so that all can be closed
      }
      try (Checkpoint checkpoint = Checkpoint.open(folder.resolve(Trainer.CHECKPOINT));
          Trainer resumed = Trainer.resume(folder, data, backend)) {
        assertEquals(4, checkpoint.state().step());
        assertEquals(5, resumed.step().step());
      }
    }
  }
}
