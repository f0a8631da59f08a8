package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Networks;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class TrainerTest {
  @TempDir Path folder;

  /** Three classes told apart by where an image is bright. */
  static Datasets data(int train, int test) {
    return new Datasets(images(train, Split.TRAIN, 1), images(test, Split.TEST, 2), List.of());
  }

  private static ImageDataset images(int count, Split split, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    byte[][] images = new byte[count][6 * 6];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < 36; p++) {
        int bright = p / 12 == labels[i] ? 120 : 0;
        images[i][p] = (byte) (bright + random.nextInt(100));
      }
    }
    List<String> classes = List.of("top", "middle", "bottom");
    return ImageDataset.of("bars", split, 6, 6, 1, classes, images, labels);
  }

  private static TrainingConfig config(Optimizer.Kind optimizer, double rate, int accumulate) {
    return TrainingConfig.builder()
        .epochs(3)
        .batch(4)
        .accumulate(accumulate)
        .optimizer(optimizer)
        .learningRate(rate)
        .weightDecay(1e-4)
        .cropPadding(1)
        .flip(true)
        .seed(7)
        .kfac(new KfacConfig(0.3, 1e-3, 0.95, 2, 6, false)) // inversions in turns, within an epoch
        .build();
  }

  /** A plain chain over the bars, with dropout. */
  private static Run run(TrainingConfig config, Datasets data) {
    return run(ShapingConfig.DEFAULT, 0.2f, config, data);
  }

  private static Run run(
      ShapingConfig shaping, float dropout, TrainingConfig config, Datasets data) {
    Networks.Options network = new Networks.Options("plain:14:6", Networks.Block.V2, 0, dropout);
    return Run.of(network, shaping, config, data, "bars");
  }

  /** Without dropout and augmentation. */
  static Run withoutChance(int microBatch, Datasets data) {
    TrainingConfig config =
        TrainingConfig.builder().epochs(4).batch(4).microBatch(microBatch).seed(7).build();
    return run(ShapingConfig.DEFAULT, 0, config, data);
  }

  static float[] parameters(Trainer trainer) {
    return trainer.parameters().arena().toFloatArray();
  }

  @ParameterizedTest
  @EnumSource(Optimizer.Kind.class)
  void resumedRunEqualsOneThatNeverStoppedBitForBit(Optimizer.Kind optimizer) throws IOException {
    Datasets data = data(37, 9);
    Run run = run(config(optimizer, 0.01, 2), data);
    float[] whole;
    Metrics expected;
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(run, data, backend, folder.resolve("whole"))) {
      assertEquals(4, trainer.stepsPerEpoch()); // 37 images in steps of 2 * 4; 5 are passed over
      while (!trainer.finished()) {
        trainer.step();
      }
      whole = parameters(trainer);
      expected = Metrics.read(folder.resolve("whole/metrics.jsonl"));
    }
    // Stopped in mid-epoch and at the end of an epoch.
    Path parts = folder.resolve("parts");
    float[] resumed = null;
    for (int stop : new int[] {3, 8, 12}) {
      try (Backend backend = Backends.open("cpu");
          Trainer trainer =
              Files.exists(parts)
                  ? Trainer.resume(parts, data, backend)
                  : Trainer.start(run, data, backend, parts)) {
        while (trainer.steps() < stop) {
          trainer.step();
        }
        trainer.save();
        resumed = parameters(trainer);
      }
    }
    assertArrayEquals(whole, resumed);
    Metrics actual = Metrics.read(parts.resolve("metrics.jsonl"));
    assertEquals(expected.steps().size(), actual.steps().size());
    for (int i = 0; i < actual.steps().size(); i++) {
      assertEquals(expected.steps().get(i).loss(), actual.steps().get(i).loss());
      assertEquals(expected.steps().get(i).gradientNorm(), actual.steps().get(i).gradientNorm());
    }
    assertEquals(3, actual.epochs().size());
    for (int i = 0; i < 3; i++) {
      assertEquals(expected.epochs().get(i).testLoss(), actual.epochs().get(i).testLoss());
      assertEquals(expected.epochs().get(i).trainLoss(), actual.epochs().get(i).trainLoss(), 1e-12);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "cpu"})
  void learnsToTellThreeBarsApart(String device) throws IOException {
    Datasets data = data(60, 30);
    try (Backend backend = Backends.open(device);
        Trainer trainer = Trainer.start(withoutChance(0, data), data, backend, null)) {
      while (!trainer.finished()) {
        trainer.step();
      }
      assertTrue(trainer.bestAccuracy() >= 0.9, "accuracy " + trainer.bestAccuracy());
    }
  }

  @Test
  void stopsAtANonFiniteLossAndLeavesTheLastCheckpoint() throws IOException {
    Datasets data = data(40, 9);
    TrainingConfig wild =
        TrainingConfig.builder()
            .epochs(50)
            .batch(4)
            .learningRate(1e5)
            .warmup(0)
            .clipNorm(Double.POSITIVE_INFINITY)
            .labelSmoothing(0)
            .build();
    try (Backend backend = Backends.open("cpu");
        Trainer trainer =
            Trainer.start(run(ShapingConfig.DEFAULT, 0, wild, data), data, backend, folder)) {
      NonFiniteException error =
          assertThrows(
              NonFiniteException.class,
              () -> {
                while (!trainer.finished()) {
                  trainer.step();
                }
              });
      assertTrue(error.getMessage().contains("--learning-rate"), error.getMessage());
      assertTrue(error.getMessage().contains("step"), error.getMessage());
    }
    try (Checkpoint checkpoint = Checkpoint.open(folder.resolve(Trainer.CHECKPOINT));
        Backend backend = Backends.open("cpu");
        io.jtrelu.nn.Parameters parameters =
            io.jtrelu.nn.Parameters.allocate(Model.read(folder).network(), backend)) {
      Trainer.restoreParameters(checkpoint, backend, parameters);
      for (float value : parameters.arena().toFloatArray()) {
        assertTrue(Float.isFinite(value));
      }
    }
  }

  @Test
  void refusesToOverwriteARun() throws IOException {
    Datasets data = data(20, 9);
    Run run = run(config(Optimizer.Kind.SGD, 0.01, 1), data);
    try (Backend backend = Backends.open("cpu")) {
      Trainer.start(run, data, backend, folder).close();
      IOException error =
          assertThrows(IOException.class, () -> Trainer.start(run, data, backend, folder));
      assertTrue(error.getMessage().contains("already holds a run"), error.getMessage());
    }
  }

  @Test
  void refusesTheCheckpointOfARunThatDiffersInItsActivationOnly() throws IOException {
    Datasets data = data(20, 9);
    TrainingConfig config = config(Optimizer.Kind.SGD, 0.01, 1);
    Path one = folder.resolve("tat");
    Path other = folder.resolve("he");
    try (Backend backend = Backends.open("cpu")) {
      Trainer.start(run(config, data), data, backend, one).close();
      Trainer.start(run(ShapingConfig.HE, 0.2f, config, data), data, backend, other).close();
      Files.delete(one.resolve(Trainer.CHECKPOINT));
      Files.copy(other.resolve(Trainer.CHECKPOINT), one.resolve(Trainer.CHECKPOINT));
      CheckpointException error =
          assertThrows(CheckpointException.class, () -> Trainer.resume(one, data, backend));
      assertTrue(error.getMessage().contains("another run"), error.getMessage());
    }
  }

  @Test
  void refusesABatchLargerThanTheData() throws IOException {
    Datasets data = data(3, 9);
    Run run = run(config(Optimizer.Kind.SGD, 0.01, 1), data);
    try (Backend backend = Backends.open("cpu")) {
      IllegalArgumentException error =
          assertThrows(
              IllegalArgumentException.class, () -> Trainer.start(run, data, backend, null));
      assertTrue(error.getMessage().contains("3 training images"), error.getMessage());
    }
  }

  @Test
  void closesAllItsMemory() throws IOException {
    Datasets data = data(20, 9);
    try (Backend backend = Backends.open("cpu")) {
      Run run = run(config(Optimizer.Kind.ADAM, 0.01, 1), data);
      try (Trainer trainer = Trainer.start(run, data, backend, null)) {
        trainer.step();
        assertNotEquals(0, backend.memory().inUse());
      }
      assertEquals(0, backend.memory().inUse());
    }
  }
}
