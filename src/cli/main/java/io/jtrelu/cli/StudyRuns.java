package io.jtrelu.cli;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.data.Datasets;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.NonFiniteException;
import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The runs of a study: which there are, which are done, and the making of those that are not. A run
 * is a folder of its own, as {@code jtrelu train} leaves it, shared by all recipes that need it.
 */
final class StudyRuns {
  /** In the folder of a run that ended early: why. */
  private static final String DIVERGED = "diverged.txt";

  /** Steps that tell what a step takes; half of them warm up. */
  private static final int MEASURED = 16;

  private final Path folder;
  private final StudyScale scale;
  private final Datasets data;
  private final String dataName;
  private final Backend backend;

  StudyRuns(Path folder, StudyScale scale, Datasets data, String dataName, Backend backend) {
    this.folder = folder;
    this.scale = scale;
    this.data = data;
    this.dataName = dataName;
    this.backend = backend;
  }

  /** A run that a study needs. */
  record Trial(Contender contender, double rate, long seed) {
    Path in(Path folder, StudyScale scale) {
      return folder
          .resolve("runs")
          .resolve(contender.folder() + "-" + scale.epochs() + "epochs")
          .resolve(String.format(Locale.ROOT, "rate%s-seed%d", rate, seed));
    }

    @Override
    public String toString() {
      return String.format(Locale.ROOT, "%s, rate %s, seed %d", contender.name(), rate, seed);
    }
  }

  /**
   * How a run ended.
   *
   * @param epochs what was measured
   * @param diverged why it ended early; null where it did not
   */
  record Outcome(List<EpochMetric> epochs, @Nullable String diverged) {
    /** By which rates are compared: data that it was trained on, never the test data. */
    double trainingLoss() {
      return diverged != null || epochs.isEmpty()
          ? Double.POSITIVE_INFINITY
          : epochs.getLast().trainLoss();
    }

    double accuracy() {
      return diverged != null || epochs.isEmpty() ? Double.NaN : epochs.getLast().testAccuracy();
    }
  }

  /** The runs in which a contender's rate is found. */
  List<Trial> tuning(Contender contender) {
    return contender.rates(scale).stream().map(rate -> new Trial(contender, rate, 1)).toList();
  }

  /** A contender's runs with the best of its rates; the first of them was made for tuning. */
  List<Trial> seeds(Contender contender) throws IOException {
    double best = bestRate(contender);
    List<Trial> keys = new ArrayList<>();
    for (long seed = 1; seed <= scale.seeds(); seed++) {
      keys.add(new Trial(contender, best, seed));
    }
    return keys;
  }

  /** The rate of least training loss at the end; all must have been tried. */
  double bestRate(Contender contender) throws IOException {
    Map<Double, Double> losses = new LinkedHashMap<>();
    for (double rate : contender.rates(scale)) {
      Outcome outcome = outcome(new Trial(contender, rate, 1));
      losses.put(rate, outcome == null ? Double.POSITIVE_INFINITY : outcome.trainingLoss());
    }
    return losses.entrySet().stream()
        .min(Comparator.comparingDouble(Map.Entry::getValue))
        .orElseThrow()
        .getKey();
  }

  /** How a run ended; null for one that has not. */
  @Nullable Outcome outcome(Trial key) throws IOException {
    Path of = key.in(folder, scale);
    Path file = of.resolve(Trainer.METRICS);
    Metrics metrics = Files.exists(file) ? Metrics.read(file) : new Metrics(List.of(), List.of());
    if (Files.exists(of.resolve(DIVERGED))) { // which may be before anything was measured
      return new Outcome(metrics.epochs(), Files.readString(of.resolve(DIVERGED)).strip());
    }
    boolean ended = metrics.epochs().stream().anyMatch(epoch -> epoch.epoch() == scale.epochs());
    return ended ? new Outcome(metrics.epochs(), null) : null;
  }

  /** Looks on while a run is made. */
  interface Watcher {
    /**
     * After each step.
     *
     * @return false to stop: the run is saved, and goes on from there another time
     */
    boolean step(Trainer trainer);
  }

  /**
   * Makes a run, or what is left of it.
   *
   * @return how it ended; null where the watcher stopped it
   */
  @Nullable Outcome make(Trial key, Watcher watcher) throws IOException {
    Path of = key.in(folder, scale);
    Run run = key.contender().run(scale, key.rate(), key.seed(), data, dataName);
    boolean begun = Files.exists(of.resolve(Trainer.CHECKPOINT));
    if (begun && !sameSettings(Run.read(of), run)) {
      throw new IOException(
          of + " holds a run of other settings or data: give the study another --out");
    }
    try (Trainer trainer =
        begun ? Trainer.resume(of, data, backend) : Trainer.start(run, data, backend, of)) {
      while (!trainer.finished()) {
        if (!watcher.step(trainer)) {
          trainer.save();
          return null;
        }
        trainer.step();
      }
    } catch (NonFiniteException failure) {
      AtomicFile.writeString(of.resolve(DIVERGED), failure.getMessage() + "\n");
    }
    return outcome(key);
  }

  private static boolean sameSettings(Run one, Run other) {
    return one.training().equals(other.training())
        && one.data().equals(other.data())
        && Objects.equals(one.dataDigest(), other.dataDigest());
  }

  private Run any(Contender contender) {
    return contender.run(scale, contender.rates(scale).getFirst(), 1, data, dataName);
  }

  /**
   * Work of a run, in an arbitrary unit: products of the network, weighed by what rides on them.
   */
  double work(Contender contender) {
    Run run = any(contender);
    Network network = run.model().network();
    double products = 0;
    for (Layer layer : network.layers()) {
      if (layer instanceof ConvolutionLayer convolution) {
        Conv2dDescriptor d = convolution.descriptor();
        products += (double) d.multiplyAdds() / Math.max(1, d.n());
      }
    }
    double optimizer =
        switch (contender.optimizer()) {
          case KFAC -> 1.15;
          case MUON -> 1.1;
          default -> 1;
        };
    double factor = optimizer * (contender.isNormalized() ? 1.2 : 1);
    return products * factor * data.train().size() * scale.epochs();
  }

  /** Seconds for a unit of {@link #work}, by a few steps of a run that leaves nothing behind. */
  double secondsPerWork(Contender contender) throws IOException {
    try (Trainer trainer = Trainer.start(any(contender), data, backend, null)) {
      long steps = Math.min(MEASURED, trainer.totalSteps());
      long begun = System.nanoTime();
      for (long i = 0; i < steps; i++) {
        if (i == steps / 2) { // warmed up
          begun = System.nanoTime();
        }
        trainer.step();
      }
      double perStep = (System.nanoTime() - begun) / 1e9 / (steps - steps / 2);
      double evaluation = 1.1; // and starting
      return perStep * trainer.totalSteps() * evaluation / work(contender);
    }
  }
}
