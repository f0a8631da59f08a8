package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.cuda.EmulatedMemory;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.backend.cuda.HopperSubject;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The plan of a device's memory, against what training on the emulated device takes. */
class TrainingMemoryTest {
  @TempDir Path folder;

  @AfterEach
  void wholeDevice() {
    EmulatedMemory.limit(4L << 30);
  }

  private static ImageDataset images(int count, Split split) {
    SplittableRandom random = new SplittableRandom(count);
    byte[][] images = new byte[count][16 * 16 * 3];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      random.nextBytes(images[i]);
      labels[i] = i % 3;
    }
    return ImageDataset.of(
        "noise", split, 16, 16, 3, List.of("first", "second", "third"), images, labels);
  }

  private static Datasets data() {
    return new Datasets(images(33, Split.TRAIN), images(3, Split.TEST), List.of());
  }

  private static Run run(Optimizer.Kind kind, DataType type, int batch, int accumulate) {
    return run(kind, type, batch, accumulate, FisherRows.Form.REDUCE);
  }

  private static Run run(
      Optimizer.Kind kind, DataType type, int batch, int accumulate, FisherRows.Form form) {
    TrainingConfig training =
        TrainingConfig.builder()
            .epochs(2)
            .batch(batch)
            .accumulate(accumulate)
            .optimizer(kind)
            .type(type)
            .kfac(new KfacConfig(0.3, 1e-3, 0.95, 1, 2, false, form))
            .seed(7)
            .build();
    String small = kind == Optimizer.Kind.KFAC ? "plain:14:8" : "plain:14:32";
    Networks.Options network = new Networks.Options(small, Networks.Block.V2, 0, 0.1f);
    return Run.of(network, ShapingConfig.DEFAULT, training, data(), "noise");
  }

  @ParameterizedTest
  @CsvSource({
    "SGD, F32, 16, 1, REDUCE",
    "SGD, BF16, 16, 1, REDUCE",
    "ADAM, BF16, 4, 3, REDUCE",
    "KFAC, BF16, 8, 2, REDUCE",
    "KFAC, BF16, 4, 1, EXPAND",
    "MUON, BF16, 4, 1, REDUCE"
  })
  void theMostThatIsTaken(
      Optimizer.Kind kind, DataType type, int batch, int accumulate, FisherRows.Form form)
      throws IOException {
    requireFits(run(kind, type, batch, accumulate, form));
  }

  /** Shards hold a gradient each. */
  @Test
  void theMostThatShardsTake() throws IOException {
    TrainingConfig shards =
        TrainingConfig.builder()
            .epochs(1)
            .batch(8)
            .shards(4)
            .optimizer(Optimizer.Kind.ADAM)
            .build();
    Networks.Options network = new Networks.Options("plain:14:8", Networks.Block.V2, 0, 0.1f);
    requireFits(Run.of(network, ShapingConfig.DEFAULT, shards, data(), "noise"));
  }

  /** Kernels of compute capability 9.0 split weight gradients in their own way. */
  @Test
  void theMostThatIsTakenOnHopper() throws IOException {
    Backend hopper = HopperSubject.taking("_128x64", "_window_64x64");
    requireFits(run(Optimizer.Kind.SGD, DataType.BF16, 4, 1), hopper);
  }

  private static void requireFits(Run run) throws IOException {
    requireFits(run, EmulatedSubject.openForOthers());
  }

  private static void requireFits(Run run, Backend opened) throws IOException {
    try (Backend backend = opened) {
      TrainingMemory plan = TrainingMemory.of(run, backend, run.training().batch());
      assertEquals(0, backend.memory().allocations(), "a plan allocates nothing");
      try (Trainer trainer = Trainer.start(run, data(), backend, null)) {
        while (!trainer.finished()) {
          trainer.step();
        }
      }
      MemoryStatistics taken = backend.memory();
      assertTrue(taken.peak() <= plan.total(), taken.peak() + " of " + plan);
      assertTrue(plan.total() <= 1.25 * taken.peak(), taken.peak() + " of " + plan);
    }
  }

  @Test
  void largerBatchesTakeMore() {
    Run run = run(Optimizer.Kind.SGD, DataType.BF16, 16, 1);
    try (Backend backend = EmulatedSubject.openForOthers()) {
      long before = 0;
      for (int batch : new int[] {1, 2, 5, 16, 100, 1 << 20}) {
        long total = TrainingMemory.of(run, backend, batch).total();
        assertTrue(total >= before, "batch " + batch);
        before = total;
      }
      assertTrue(before > 1L << 32, "beyond 32 bits: " + before);
    }
  }

  /** A batch for which there is no room is refused with the largest that fits, which does. */
  @Test
  void noRoom() throws IOException {
    try (Backend backend = EmulatedSubject.openForOthers()) {
      Run wanted = run(Optimizer.Kind.SGD, DataType.F32, 32, 1);
      long room =
          (TrainingMemory.of(wanted, backend, 1).total()
                  + TrainingMemory.of(wanted, backend, 32).total())
              / 2;
      EmulatedMemory.limit(EmulatedMemory.used() + room);
      Path directory = folder.resolve("run");
      long allocations = backend.memory().allocations();
      OutOfMemoryException full =
          assertThrows(
              OutOfMemoryException.class,
              () -> Trainer.start(wanted, data(), backend, directory).close());
      assertEquals(allocations, backend.memory().allocations(), "refused before anything is taken");
      assertFalse(Files.exists(directory), "or written");
      Matcher fits = Pattern.compile("--batch (\\d+) fits").matcher(full.getMessage());
      assertTrue(fits.find(), full.getMessage());
      int batch = Integer.parseInt(fits.group(1));
      assertTrue(batch > 1 && batch < 32, full.getMessage());
      assertTrue(TrainingMemory.of(wanted, backend, batch).total() <= room);
      assertTrue(TrainingMemory.of(wanted, backend, batch + 1).total() > room);
      Run smaller = run(Optimizer.Kind.SGD, DataType.F32, batch, 1);
      try (Trainer trainer = Trainer.start(smaller, data(), backend, directory)) {
        trainer.step();
      }
    }
  }
}
