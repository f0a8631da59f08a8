package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.Reading;
import io.jtrelu.data.Reading.OnBadImage;
import io.jtrelu.data.Reading.Place;
import io.jtrelu.nn.Networks;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Runs on images that are read from disk as they are needed. */
class StreamedTrainingTest {
  @TempDir Path folder;
  private Path data;

  @BeforeEach
  void write() throws IOException {
    data = folder.resolve("data");
    SplittableRandom random = new SplittableRandom(1);
    for (String part : List.of("train/a", "train/b", "test/a", "test/b")) {
      Path in = Files.createDirectories(data.resolve(part));
      for (int i = 0; i < 10; i++) {
        BufferedImage image = new BufferedImage(12, 12, BufferedImage.TYPE_BYTE_GRAY);
        for (int p = 0; p < 144; p++) {
          int bright = part.endsWith(p < 72 ? "a" : "b") ? 120 : 0;
          image.getRaster().setSample(p % 12, p / 12, 0, bright + random.nextInt(100));
        }
        ImageIO.write(image, "png", in.resolve(i + ".png").toFile());
      }
    }
  }

  private Datasets open(OnBadImage onBadImage, int threads) {
    return Datasets.open(
        data.toString(),
        Datasets.Options.size(8, 8, 1).reading(new Reading(Place.STREAM, onBadImage, threads)));
  }

  private static Run run(Datasets images) {
    TrainingConfig config =
        TrainingConfig.builder().epochs(2).batch(4).cropArea(0.4).flip(true).seed(3).build();
    return Run.of(
        new Networks.Options("plain:13:4", Networks.Block.V2, 0, 0),
        ShapingConfig.DEFAULT,
        config,
        images,
        "images");
  }

  private byte[] model(String run) throws IOException {
    return Files.readAllBytes(folder.resolve(run).resolve(Trainer.CHECKPOINT));
  }

  @Test
  void goesOnBitForBitFromAnyStepWithAnyThreads() throws IOException {
    try (Backend backend = Backends.open("cpu:1")) {
      Datasets images = open(OnBadImage.STOP, 1);
      Run run = run(images);
      assertTrue(run.isStreamed());
      try (Trainer trainer = Trainer.start(run, images, backend, folder.resolve("whole"))) {
        assertTrue(trainer.train());
        assertEquals(10, trainer.totalSteps());
        assertTrue(trainer.waitedShare() >= 0, "" + trainer.waitedShare());
      }
      Path parts = folder.resolve("parts");
      try (Trainer trainer = Trainer.start(run, open(OnBadImage.STOP, 2), backend, parts)) {
        for (int i = 0; i < 3; i++) {
          trainer.step();
        }
        trainer.save();
      }
      for (int until : new int[] {7, 10}) {
        try (Trainer trainer = Trainer.resume(parts, open(OnBadImage.SKIP, 5), backend)) {
          while (trainer.steps() < until) {
            trainer.step();
          }
          trainer.save();
        }
      }
      assertArrayEquals(model("whole"), model("parts"));
    }
  }

  /** An image that goes bad stops the run where it can go on without it. */
  @Test
  void savesBeforeABadImageAndGoesOnWithoutIt() throws IOException {
    Path out = folder.resolve("run");
    try (Backend backend = Backends.open("cpu:1")) {
      Datasets images = open(OnBadImage.STOP, 1);
      try (Trainer trainer = Trainer.start(run(images), images, backend, out)) {
        trainer.step();
        for (String each : List.of("train/a/3.png", "train/b/8.png")) {
          byte[] bytes = Files.readAllBytes(data.resolve(each));
          bytes[bytes.length / 2] ^= 1;
          Files.write(data.resolve(each), bytes);
        }
        IllegalStateException e = assertThrows(IllegalStateException.class, trainer::train);
        assertInstanceOf(DataException.Malformed.class, e.getCause());
        assertTrue(e.getMessage().contains(".png"), e.getMessage());
        assertFalse(trainer.finished());
      }
      Datasets skipping = open(OnBadImage.SKIP, 2);
      try (Trainer trainer = Trainer.resume(out, skipping, backend)) {
        assertTrue(trainer.steps() >= 1);
        assertTrue(trainer.train());
        assertEquals(2, skipping.train().skipped().size());
      }
    }
  }

  /** A test image that goes bad costs no epoch: it is measured again when the run goes on. */
  @Test
  void anEpochThatCouldNotBeMeasuredIsMeasuredLater() throws IOException {
    try (Backend backend = Backends.open("cpu:1")) {
      Datasets images = open(OnBadImage.STOP, 1);
      Run run = run(images);
      Path bad = data.resolve("test/b/4.png");
      byte[] bytes = Files.readAllBytes(bad);
      bytes[bytes.length / 2] ^= 1;
      Path out = folder.resolve("run");
      try (Trainer trainer = Trainer.start(run, images, backend, out)) {
        trainer.step();
        Files.write(bad, bytes);
        assertThrows(IllegalStateException.class, trainer::train);
        assertEquals(5, trainer.steps());
      }
      assertThrows(DataException.Malformed.class, () -> open(OnBadImage.STOP, 1));
      Datasets skipping = open(OnBadImage.SKIP, 2);
      try (Trainer trainer = Trainer.resume(out, skipping, backend)) {
        EpochMetric epoch = trainer.lastEpoch();
        assertTrue(epoch != null && epoch.epoch() == 1 && epoch.step() == 5, "" + epoch);
        assertTrue(Double.isFinite(epoch.trainLoss()) && Double.isFinite(epoch.testLoss()));
        assertEquals(Math.rint(19 * epoch.testAccuracy()), 19 * epoch.testAccuracy(), 1e-9);
        assertTrue(trainer.train());
      }
      Path whole = folder.resolve("whole");
      try (Trainer trainer = Trainer.start(run, open(OnBadImage.SKIP, 1), backend, whole)) {
        assertTrue(trainer.train());
      }
      assertArrayEquals(model("whole"), model("run"));
      Metrics expected = Metrics.read(whole.resolve(Trainer.METRICS));
      Metrics actual = Metrics.read(out.resolve(Trainer.METRICS));
      assertEquals(
          expected.epochs().stream().map(EpochMetric::testLoss).toList(),
          actual.epochs().stream().map(EpochMetric::testLoss).toList());
      assertEquals(
          expected.epochs().stream().map(EpochMetric::trainLoss).toList(),
          actual.epochs().stream().map(EpochMetric::trainLoss).toList());
    }
  }
}
