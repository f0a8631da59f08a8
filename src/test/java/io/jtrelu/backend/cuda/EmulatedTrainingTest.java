package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.train.Model;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/** A deep plain network trained on the emulated device and on the CPU: the same losses. */
class EmulatedTrainingTest {
  private static final int STEPS = 20;

  private static Datasets data() {
    return new Datasets(images(9, Split.TRAIN, 1), images(6, Split.TEST, 2), List.of());
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

  private static List<Double> losses(Backend backend) throws IOException {
    Datasets data = data();
    TrainingConfig config =
        new TrainingConfig(
            "plain:14:6",
            Networks.Block.V2,
            0,
            ShapingConfig.DEFAULT,
            "bars",
            0,
            false,
            STEPS,
            9,
            1,
            Optimizer.Kind.SGD,
            0.03,
            0.1,
            0.9,
            0,
            1,
            0.1,
            0,
            DataType.F32,
            7);
    List<Double> losses = new ArrayList<>();
    try (Trainer trainer = Trainer.start(Model.of(config, data), data, backend, null)) {
      while (losses.size() < STEPS) {
        losses.add(trainer.step().loss());
      }
    }
    return losses;
  }

  private static double mean(List<Double> losses, int from, int to) {
    return losses.subList(from, to).stream()
        .mapToDouble(Double::doubleValue)
        .average()
        .orElseThrow();
  }

  @Test
  void sameLossesAsTheCpu() throws IOException {
    List<Double> first;
    List<Double> second;
    List<Double> oracle;
    try (Backend emulated = new EmulatedSubject().open()) {
      first = losses(emulated);
    }
    try (Backend emulated = new EmulatedSubject().open()) {
      second = losses(emulated);
    }
    try (Backend reference = Backends.open("reference")) {
      oracle = losses(reference);
    }
    assertArrayEquals(first.toArray(), second.toArray(), "the same twice, bit for bit");
    assertTrue(mean(oracle, 15, 20) < 0.95 * mean(oracle, 0, 5), "it learns: " + oracle);
    for (int step = 0; step < STEPS; step++) {
      // Rounding errors of 14 layers, growing a little with each update.
      double allowed = 1e-5 * (1 + step) * oracle.get(step);
      assertEquals(oracle.get(step), first.get(step), allowed, "step " + step);
    }
  }
}
