package io.jtrelu.endurance;

import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Run;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/**
 * A training run of a second or less, by the command line: a chain of 13 layers, 4 channels wide,
 * on images of 8x8, and what must hold of its folder.
 *
 * @param data folder of the images
 * @param device as {@code jtrelu train --device} takes it
 * @param epochs passes over the images
 */
record SmallRun(Path data, String device, int epochs) {
  private static final int EXTENT = 8;
  private static final int BATCH = 4;

  /** All that a run may leave in its folder. */
  private static final Set<String> FILES =
      Set.of(Run.FILE, Trainer.METRICS, Trainer.CHECKPOINT, Trainer.BEST, "report.html", ".lock");

  /**
   * Writes images of two classes, bright in the upper or the lower half, as IDX files.
   *
   * @param folder created
   * @param steps training steps that they are for in each epoch
   */
  static SmallRun on(Path folder, String device, int epochs, int steps) throws IOException {
    Files.createDirectories(folder);
    writeImages(folder, "train", steps * BATCH, 1);
    writeImages(folder, "t10k", 9, 2);
    return new SmallRun(folder, device, epochs);
  }

  private static void writeImages(Path folder, String prefix, int count, long seed)
      throws IOException {
    SplittableRandom random = new SplittableRandom(seed);
    ByteBuffer images = ByteBuffer.allocate(16 + count * EXTENT * EXTENT);
    images.putInt(0x803).putInt(count).putInt(EXTENT).putInt(EXTENT);
    ByteBuffer labels = ByteBuffer.allocate(8 + count).putInt(0x801).putInt(count);
    for (int i = 0; i < count; i++) {
      labels.put((byte) (i % 2));
      for (int p = 0; p < EXTENT * EXTENT; p++) {
        int bright = p / (EXTENT * EXTENT / 2) == i % 2 ? 60 : 0;
        images.put((byte) (bright + random.nextInt(190)));
      }
    }
    Files.write(folder.resolve(prefix + "-images-idx3-ubyte"), images.array());
    Files.write(folder.resolve(prefix + "-labels-idx1-ubyte"), labels.array());
  }

  /** The arguments that begin the run in a folder, or go on with what is there. */
  List<String> arguments(Path out) {
    List<String> arguments = new ArrayList<>(List.of("train", "--device", device));
    if (Files.exists(out.resolve(Trainer.CHECKPOINT))) {
      arguments.addAll(List.of("--resume", out.toString()));
    } else {
      arguments.addAll(
          List.of("--network", "plain:13:4", "--batch", "" + BATCH, "--epochs", "" + epochs));
      arguments.addAll(List.of("--data", data.toString(), "--out", out.toString()));
    }
    return arguments;
  }

  /**
   * Steps of the checkpoint in a folder; -1 where there is none.
   *
   * @throws IOException if it cannot be read, or is not whole
   * @throws RuntimeException likewise
   */
  static long steps(Path out) throws IOException {
    if (Files.exists(out.resolve(Trainer.BEST))) {
      Checkpoint.open(out.resolve(Trainer.BEST)).close();
    }
    if (!Files.exists(out.resolve(Trainer.CHECKPOINT))) {
      return -1;
    }
    Run.read(out);
    try (Checkpoint checkpoint = Checkpoint.open(out.resolve(Trainer.CHECKPOINT))) {
      return checkpoint.state().step();
    }
  }

  /** What a finished run's folder differs in from that of a run that nothing disturbed. */
  static List<String> differences(Path out, Path undisturbed) throws IOException {
    List<String> differences = new ArrayList<>();
    for (String file : List.of(Trainer.CHECKPOINT, Trainer.BEST, Run.FILE)) {
      if (!Files.exists(out.resolve(file))) {
        differences.add(file + " is missing");
      } else if (!Arrays.equals(
          Files.readAllBytes(out.resolve(file)), Files.readAllBytes(undisturbed.resolve(file)))) {
        differences.add(file + " differs");
      }
    }
    if (!figures(out).equals(figures(undisturbed))) {
      differences.add(Trainer.METRICS + " differs, in more than times");
    }
    return differences;
  }

  /** The metrics but for what is measured with a clock. */
  private static List<List<Object>> figures(Path out) throws IOException {
    Metrics metrics = Metrics.read(out.resolve(Trainer.METRICS));
    List<List<Object>> figures = new ArrayList<>();
    for (StepMetric step : metrics.steps()) {
      figures.add(
          List.of(step.step(), step.epoch(), step.loss(), step.accuracy(), step.gradientNorm()));
    }
    for (EpochMetric epoch : metrics.epochs()) {
      figures.add(
          List.of(
              epoch.epoch(),
              epoch.step(),
              epoch.trainLoss(),
              epoch.trainAccuracy(),
              epoch.testLoss(),
              epoch.testAccuracy()));
    }
    return figures;
  }

  /** Files in a run's folder that are not of a run, such as temporary ones. */
  static List<String> leftovers(Path out) throws IOException {
    try (Stream<Path> files = Files.list(out)) {
      return files
          .map(file -> file.getFileName().toString())
          .filter(name -> !FILES.contains(name))
          .sorted()
          .toList();
    }
  }
}
