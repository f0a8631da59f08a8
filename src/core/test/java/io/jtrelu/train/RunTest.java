package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Datasets;
import io.jtrelu.inference.Classification;
import io.jtrelu.inference.Predictor;
import io.jtrelu.nn.Network;
import io.jtrelu.shaping.Dks;
import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Runs of networks that nobody has named, what listeners see, and folders of the first version. */
class RunTest {
  @TempDir Path folder;

  /** Two functions and a shortcut: nothing that a name could say. */
  private static Network network() {
    Network.Builder b = Network.builder("mine", 6, 6, 2);
    int x = b.activation("a0", b.convolution("c0", b.input(), 8, 3, 1), Activation.TANH);
    for (int i = 1; i < 9; i++) {
      int y = b.convolution("c" + i, x, 8, 3, 1);
      y = b.activation("a" + i, y, i % 2 == 0 ? Activation.TANH : Activation.SOFTPLUS);
      x = i % 3 == 0 ? b.normalizedSum("s" + i, x, y, 0.6) : y;
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().shape(new Dks());
  }

  private static TrainingConfig.Builder config() {
    return TrainingConfig.builder().epochs(4).batch(6).learningRate(0.01).seed(5);
  }

  private static final class Heard implements TrainingListener {
    final List<Long> steps = new ArrayList<>();
    final List<Integer> epochs = new ArrayList<>();

    @Override
    public void step(Trainer trainer, StepMetric metric) {
      steps.add(metric.step());
    }

    @Override
    public void epoch(Trainer trainer, EpochMetric metric) {
      epochs.add(metric.epoch());
    }
  }

  @Test
  void anyNetworkTrainsIsSavedAndGoesOnBitForBit() throws IOException {
    Datasets data = TrainerTest.data(36, 12);
    Model model = Model.of(network(), data.train());
    Path whole = folder.resolve("whole");
    Path parts = folder.resolve("parts");
    Heard heard = new Heard();
    float[] expected;
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(model, config().build(), data, backend, whole)) {
      trainer.add(heard);
      assertTrue(trainer.train());
      expected = TrainerTest.parameters(trainer);
    }
    assertEquals(24, heard.steps.size());
    assertEquals(List.of(1, 2, 3, 4), heard.epochs);
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(model, config().build(), data, backend, parts)) {
      trainer.add(
          new TrainingListener() {
            @Override
            public void step(Trainer at, StepMetric metric) {
              if (metric.step() == 8) {
                at.stop();
              }
            }
          });
      assertFalse(trainer.train());
      assertEquals(8, trainer.steps());
    }
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.resume(parts, data, backend)) {
      assertEquals("mine", trainer.network().name());
      assertEquals(8, trainer.steps());
      assertTrue(trainer.train());
      assertArrayEquals(expected, TrainerTest.parameters(trainer));
      assertTrue(trainer.notes().isEmpty(), trainer.notes().toString());
    }
    assertEquals(Run.read(whole).toJson(), Run.read(parts).toJson());
  }

  /** What stops a run between an epoch's best parameters and its checkpoint. */
  @Test
  void aBestEpochThatCouldNotBeKeptIsKeptWhenTheRunGoesOn() throws IOException {
    Datasets data = TrainerTest.data(36, 12);
    Model model = Model.of(network(), data.train());
    Path best = folder.resolve(Trainer.BEST);
    Path inTheWay = Files.createDirectories(best.resolve("in the way"));
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(model, config().epochs(1).build(), data, backend, folder)) {
      String message = assertThrows(IOException.class, trainer::train).getMessage();
      assertTrue(message.contains(best.toString()), message);
    }
    Files.delete(inTheWay);
    Files.delete(best);
    String process = Long.toString(ProcessHandle.current().pid());
    Files.writeString(folder.resolve(Trainer.BEST + "." + process + "-ff.tmp"), "of a kill");
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.resume(folder, data, backend)) {
      assertTrue(trainer.train());
      try (Checkpoint kept = Checkpoint.open(best)) {
        assertEquals(1, kept.state().epoch());
      }
    }
    try (Stream<Path> files = Files.list(folder)) {
      assertEquals(List.of(), files.filter(file -> file.toString().endsWith(".tmp")).toList());
    }
  }

  @Test
  void theBestEpochIsKeptAndPatienceEnds() throws IOException {
    Datasets data = TrainerTest.data(36, 30);
    Model model = Model.of(network(), data.train());
    try (Backend backend = Backends.open("cpu");
        Trainer trainer =
            Trainer.start(model, config().epochs(60).build(), data, backend, folder)) {
      trainer.add(new EarlyStopping(2));
      assertFalse(trainer.train(), "30 images cannot improve 60 times");
      assertEquals(2, trainer.epochsSinceBest());
      EpochMetric last = Objects.requireNonNull(trainer.lastEpoch());
      assertTrue(last.epoch() < 60);
      try (Predictor predictor = Predictor.open(folder.resolve(Trainer.BEST), backend)) {
        Classification best = predictor.evaluate(data.test());
        assertEquals(trainer.bestAccuracy(), best.accuracy(), 1e-12);
      }
      try (Checkpoint best = Checkpoint.open(folder.resolve(Trainer.BEST))) {
        assertEquals(last.epoch() - 2, best.state().epoch());
      }
    }
    try (Backend backend = Backends.open("cpu");
        Trainer resumed = Trainer.resume(folder, data, backend)) {
      assertEquals(2, resumed.epochsSinceBest());
    }
    assertThrows(IllegalArgumentException.class, () -> new EarlyStopping(0));
  }

  @Test
  void aNewRunBeginsWithTheParametersOfAnEarlierOne() throws IOException {
    Datasets data = TrainerTest.data(36, 12);
    Network network = network();
    Model model = Model.of(network, data.train());
    Path first = folder.resolve("first");
    Path second = folder.resolve("second");
    try (Backend backend = Backends.open("cpu")) {
      float[] end;
      try (Trainer trainer = Trainer.start(model, config().build(), data, backend, first)) {
        trainer.train();
        end = TrainerTest.parameters(trainer);
      }
      Run more = Run.of(model, config().epochs(2).seed(99).build(), data);
      try (Trainer trainer = Trainer.start(more, data, backend, second, first)) {
        assertArrayEquals(end, TrainerTest.parameters(trainer));
        assertTrue(trainer.newParameters().isEmpty());
        assertEquals(0, trainer.steps());
      }
      Network.Builder other = Network.builder("other", 6, 6, 2);
      other.linear("out", other.globalMeanPool("pool", other.input()), 3);
      Run foreign = Run.of(Model.of(other.build(), data.train()), config().build(), data);
      Path third = folder.resolve("third");
      assertThrows(
          CheckpointException.class, () -> Trainer.start(foreign, data, backend, third, first));
      try (Stream<Path> left = Files.list(third)) {
        List<String> names = left.map(path -> path.getFileName().toString()).toList();
        assertEquals(List.of(".lock"), names, "nothing is half-written");
      }
    }
  }

  @Test
  void metricsThatAreLostOrDamagedDoNotSpoilACheckpoint() throws IOException {
    Datasets data = TrainerTest.data(36, 12);
    Model model = Model.of(network(), data.train());
    Path metrics = folder.resolve(Trainer.METRICS);
    try (Backend backend = Backends.open("cpu")) {
      try (Trainer trainer = Trainer.start(model, config().build(), data, backend, folder)) {
        while (trainer.steps() < 8) {
          trainer.step();
        }
        trainer.save();
      }
      List<String> lines = new ArrayList<>(Files.readAllLines(metrics));
      lines.set(2, "{\"kind\": \"st\u0000");
      lines.add(3, lines.get(1)); // told twice
      Files.write(metrics, lines);
      try (Trainer trainer = Trainer.resume(folder, data, backend)) {
        assertEquals(1, trainer.notes().size());
        assertTrue(trainer.notes().get(0).contains("line 3"), trainer.notes().toString());
        trainer.step();
        trainer.save();
      }
      List<StepMetric> kept = Metrics.read(metrics).steps();
      assertEquals(
          List.of(1L, 2L, 4L, 5L, 6L, 7L, 8L, 9L), kept.stream().map(StepMetric::step).toList());
      Files.delete(metrics);
      try (Trainer trainer = Trainer.resume(folder, data, backend)) {
        assertTrue(trainer.notes().get(0).contains("missing"), trainer.notes().toString());
        assertTrue(trainer.train());
      }
    }
  }

  /** Throughput is of the steps that were taken, not of those that were restored. */
  @Test
  void figuresAfterAResumeAreOfWhatWasDone() throws IOException {
    Datasets data = TrainerTest.data(600, 12);
    Model model = Model.of(network(), data.train());
    try (Backend backend = Backends.open("cpu")) {
      try (Trainer trainer = Trainer.start(model, config().build(), data, backend, folder)) {
        while (trainer.steps() < 99) {
          trainer.step();
        }
        trainer.save();
      }
      try (Trainer trainer = Trainer.resume(folder, data, backend)) {
        StepMetric last = trainer.step(); // the only one of the epoch's 100 in this process
        double told = Objects.requireNonNull(trainer.lastEpoch()).imagesPerSecond();
        assertEquals(last.imagesPerSecond(), told, 1e-9 * told);
      }
    }
  }

  private static Path firstVersion() {
    try {
      return Path.of(
              Objects.requireNonNull(RunTest.class.getResource("first-version/config.json"))
                  .toURI())
          .getParent();
    } catch (URISyntaxException impossible) {
      throw new AssertionError(impossible);
    }
  }

  @Test
  void foldersOfTheFirstVersionStillOpen() throws IOException {
    Path old = firstVersion();
    Datasets data = Datasets.open(old.toString());
    Path copy = Files.createDirectory(folder.resolve("copy"));
    for (String file : List.of(Run.FILE, Trainer.METRICS, Trainer.CHECKPOINT)) {
      Files.copy(old.resolve(file), copy.resolve(file));
    }
    Run run = Run.read(copy);
    assertEquals("plain:13:4", run.model().network().name());
    try (Backend backend = Backends.open("cpu")) {
      try (Predictor predictor = Predictor.open(copy, backend)) {
        Classification result = predictor.evaluate(data.test());
        assertEquals(4, result.correct());
        assertEquals(0.6940355963177152, result.smoothedLoss(0.1), 1e-6); // README.md beside it
      }
      try (Trainer trainer = Trainer.resume(copy, data, backend)) {
        assertTrue(trainer.finished());
        trainer.save();
      }
      Trainer.resume(copy, data, backend).close(); // of both versions, half and half
    }
  }

  @Test
  void whatIsWrongWithAConfigurationIsNamed() throws IOException {
    Files.writeString(folder.resolve(Run.FILE), "{\"format\": \"jtrelu-run-9\"}");
    IOException error = assertThrows(IOException.class, () -> Run.read(folder));
    assertTrue(error.getMessage().contains("jtrelu-run-9"), error.getMessage());
    assertTrue(error.getMessage().contains(Run.FILE), error.getMessage());
    Files.writeString(
        folder.resolve(Run.FILE),
        "{\"format\": \"jtrelu-run-2\", \"data\": \"x\", \"training\": {}}");
    error = assertThrows(IOException.class, () -> Run.read(folder));
    assertTrue(error.getMessage().contains("model"), error.getMessage());
    Files.writeString(folder.resolve(Run.FILE), "{\"training\": \"six epochs\"}");
    error = assertThrows(IOException.class, () -> Run.read(folder));
    assertTrue(error.getMessage().contains("training must be an object"), error.getMessage());
    Files.delete(folder.resolve(Run.FILE));
    error = assertThrows(IOException.class, () -> Run.read(folder));
    assertTrue(error.getMessage().contains("no folder of a training run"), error.getMessage());
  }
}
