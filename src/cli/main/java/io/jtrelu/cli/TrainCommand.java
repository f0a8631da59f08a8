package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.data.Reading;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.EarlyStopping;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import io.jtrelu.train.TrainingListener;
import java.io.IOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;
import picocli.CommandLine.Spec;

/** {@code jtrelu train}: trains a network and leaves a report. */
@Command(
    name = "train",
    description = "Train a network; with no options, plain50 on real images in a few minutes.",
    footer = {
      "",
      "Ctrl-C stops at the end of a step and saves; --resume DIR goes on from there.",
      "The folder holds config.json, metrics.jsonl, model.safetensors, best.safetensors (the epoch of best"
          + " test accuracy) and report.html."
    })
final class TrainCommand implements Callable<Integer> {
  /** Name of the report in a run's folder. */
  static final String REPORT = "report.html";

  /** From this share of the time on, waiting for images is told. */
  private static final double WORTH_SAYING = 0.1;

  private static final int SPEAK_FIRST_MILLIS = 500;

  /** Options that a resumed run may be given. */
  private static final Set<String> WITH_RESUME =
      Set.of(
          "--resume",
          "--device",
          "--json",
          "--verbose",
          "--patience",
          "--loader-threads",
          "--on-bad-image",
          "--deadline");

  /** Options that say what a network is. */
  private static final Set<String> OF_THE_NETWORK =
      Set.of(
          "--network",
          "--image-size",
          "--block",
          "--shortcut-weight",
          "--dropout",
          "--method",
          "--activation",
          "--eta",
          "--tau",
          "--zeta",
          "--sigma-b2",
          "--solution",
          "--weights");

  @ParentCommand private Main main;
  @Spec private CommandSpec spec;
  @Mixin private RunOptions options = new RunOptions();

  @Option(
      names = "--method",
      paramLabel = "NAME",
      defaultValue = "tat",
      description =
          "Shaping: tat, dks, eoc, none, or he for He-scaled ReLU (${DEFAULT-VALUE}; he for networks"
              + " with batch normalisation, which cannot be shaped).")
  private String method = "tat";

  @Option(
      names = "--activation",
      paramLabel = "NAME",
      defaultValue = "leaky_relu",
      description = "Activation function; see jtrelu shape --list (${DEFAULT-VALUE}).")
  private String activation = "leaky_relu";

  @Option(
      names = "--epochs",
      paramLabel = "N",
      defaultValue = "6",
      description = "Passes over the data (${DEFAULT-VALUE}).")
  private int epochs = 6;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      description = "Folder for the results (runs/NETWORK, or the next free runs/NETWORK-2, ...).")
  private @Nullable Path out;

  @Option(
      names = "--resume",
      paramLabel = "DIR",
      description = "Go on with the run in this folder, with its configuration.")
  private @Nullable Path resume;

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  @Option(
      names = "--from",
      paramLabel = "RUN",
      description =
          "Begin a new run with network and parameters of an earlier one (its folder, or a file of"
              + " it such as best.safetensors); what is not given, data and settings, is as there.")
  private @Nullable Path from;

  @Option(
      names = "--patience",
      paramLabel = "N",
      description = "Stop when test accuracy has not risen for N epochs.")
  private @Nullable Integer patience;

  @Option(
      names = "--deadline",
      paramLabel = "SECONDS",
      defaultValue = "300",
      description =
          "How long one of several processes waits for the others before it gives up"
              + " (${DEFAULT-VALUE}).")
  private double deadline = Communicator.DEADLINE.toSeconds();

  @Override
  public Integer call() throws IOException, InterruptedException {
    if (!(deadline > 0 && deadline <= 1e6)) {
      throw new UsageException("--deadline must be above 0 and at most 1e6 s, got " + deadline);
    }
    Communicator ranks = Communicator.open(Duration.ofNanos((long) (deadline * 1e9)));
    if (ranks.size() == 1) {
      return train(ranks, main.console());
    }
    try {
      train(ranks, ranks.rank() == 0 ? main.console() : main.silent());
      ranks.close();
      return 0;
    } catch (Throwable failure) {
      if (ranks.rank() > 0) {
        Thread.sleep(SPEAK_FIRST_MILLIS); // what fails on all ranks is told by the first, once
      }
      String rank = "rank " + ranks.rank() + " of " + ranks.size();
      boolean named = String.valueOf(failure.getMessage()).startsWith(rank);
      main.tell(named ? "" : rank + ": ", failure);
      ranks.abort(Main.exitCode(failure));
      throw failure;
    }
  }

  private int train(Communicator ranks, Console console) throws IOException {
    if (patience != null && patience < 1) {
      throw new UsageException("--patience must be 1 epoch or more, got " + patience);
    }
    if (resume != null) {
      refuse(
          option -> !WITH_RESUME.contains(option),
          "--resume: a resumed run keeps its folder and" + " configuration");
    } else if (from != null) {
      refuse(OF_THE_NETWORK::contains, "--from: the network is that of the earlier run");
    }
    Run what;
    Datasets data;
    if (resume != null) {
      what = Run.read(resume);
      data = options.open(what, console);
    } else if (from != null) {
      Run earlier = earlier(from);
      String name = given("--data") ? RunOptions.lasting(options.data) : earlier.data();
      double crop =
          given("--random-resized-crop") ? options.cropArea : earlier.training().cropArea();
      data =
          RunOptions.open(name, earlier.model(), options.reading(crop), console)
              .likeClasses(earlier.model().classes());
      TrainingConfig training =
          options.training(earlier.training().toBuilder(), epochs, this::given);
      what = Run.of(earlier.model().withClasses(data.train().classes()), training, data, name);
    } else {
      data = options.open(console);
      if (options.normalizes() && !given("--method")) {
        method = ShapingConfig.HE.method();
      }
      if (method.equals(ShapingConfig.HE.method()) && !given("--activation")) {
        activation = ShapingConfig.HE.activation();
      }
      ShapingConfig shaping = options.shaping(method, activation);
      if (!given("--optimizer") && !given("--learning-rate") && !given("--clip-norm")) {
        options.optimizer = bestKnown(options.network, shaping);
      }
      what = options.run(shaping, options.training(epochs), data);
    }
    boolean first = ranks.rank() == 0;
    boolean claimed = resume == null && out == null && first;
    Path directory = folder(what, ranks);
    try (Interrupt interrupt = new Interrupt();
        Backend backend = RunOptions.openDevice(options.device, ranks.localRank());
        Trainer trainer =
            resume != null
                ? Trainer.resume(resume, data, backend, ranks)
                : Trainer.start(what, data, backend, directory, from, ranks)) {
      describe(console, trainer, data, backend);
      if (ranks.size() > 1) {
        console.note("shared by " + ranks.size() + " processes, by " + trainer.carriedBy());
      }
      boolean finished;
      try (Shown shown = new Shown(console, trainer, interrupt)) {
        trainer.add(shown);
        if (patience != null) {
          trainer.add(new EarlyStopping(patience));
        }
        finished = trainer.train();
      } catch (IllegalStateException failure) {
        if (failure.getCause() instanceof DataException && ranks.size() == 1) {
          console.note(
              "saved after step "
                  + trainer.steps()
                  + "; to go on without bad images: jtrelu train --resume "
                  + directory
                  + " --on-bad-image skip");
        }
        throw failure;
      }
      if (!first) {
        return 0;
      }
      skipped(data).forEach(console::note);
      Path report = writeReport(trainer, data, directory, backend);
      if (!finished) {
        console.note(
            (interrupt.requested()
                    ? "stopped"
                    : "test accuracy has not risen for " + patience + " epochs: stopped")
                + " after step "
                + trainer.steps()
                + " of "
                + trainer.totalSteps()
                + " and saved; go on with: jtrelu train --resume "
                + directory);
      }
      console.print(
          json ? json(trainer, data, directory, report) : text(trainer, data, directory, report));
      return 0;
    } finally {
      if (claimed) {
        removeIfEmpty(directory); // where nothing came of it
      }
    }
  }

  /** Where the run goes: where nothing is said, the first rank takes a new folder for all. */
  private Path folder(Run what, Communicator ranks) throws IOException {
    if (resume != null) {
      return resume;
    }
    if (out != null) {
      return out;
    }
    String name =
        ranks.rank() == 0 ? newFolder("runs", what.model().network().name()).toString() : "";
    return Path.of(ranks.gatherTexts(name).getFirst());
  }

  /** What was seen to train a network best; null where nobody has looked. */
  private static Optimizer.@Nullable Kind bestKnown(String network, ShapingConfig shaping) {
    return Networks.isPlainByDepth(network) && shaping.equals(ShapingConfig.DEFAULT)
        ? Optimizer.Kind.MUON
        : null;
  }

  /** Removes a folder that nothing was written to but a lock. */
  static void removeIfEmpty(Path folder) throws IOException {
    if (!Files.isDirectory(folder)) {
      return;
    }
    Path lock = folder.resolve(".lock");
    try (Stream<Path> files = Files.list(folder)) {
      if (files.anyMatch(file -> !file.equals(lock))) {
        return;
      }
    }
    Files.deleteIfExists(lock);
    Files.deleteIfExists(folder);
  }

  /** The run that a folder or a checkpoint is of. */
  static Run earlier(Path from) throws IOException {
    if (Files.isDirectory(from)) {
      return Run.read(from);
    }
    try (Checkpoint checkpoint = Checkpoint.open(from)) {
      return checkpoint.run();
    }
  }

  private boolean given(String option) {
    return spec.commandLine().getParseResult().hasMatchedOption(option);
  }

  /** An option that would be without effect is a mistake. */
  private void refuse(Predicate<String> without, String reason) {
    for (OptionSpec option : spec.commandLine().getParseResult().matchedOptions()) {
      if (without.test(option.longestName())) {
        throw new UsageException(option.longestName() + " has no effect with " + reason);
      }
    }
  }

  private void describe(Console console, Trainer trainer, Datasets data, Backend backend) {
    Network network = trainer.network();
    console.note(
        String.format(
            Locale.ROOT,
            "%s: %d activations deep, %,d parameters, %s",
            network.name(),
            network.depth(),
            network.parameterCount(),
            RunFigures.shaping(trainer.model())));
    console.note(
        String.format(
            Locale.ROOT,
            "%s: %,d training and %,d test images of %d classes, %s; on %s with %d lanes, %.1f MB"
                + " of activations",
            data.train().name(),
            data.train().size(),
            data.test().size(),
            data.train().classes().size(),
            place(data.train(), trainer.run().training().cropArea() < 1),
            backend.name(),
            backend.lanes(),
            trainer.activationBytes() / 1e6));
    if (trainer.factorBytes() > 0) {
      console.note(
          String.format(
              Locale.ROOT,
              "K-FAC: %.1f MB of factors, their inverses and what they are measured from",
              trainer.factorBytes() / 1e6));
    }
    if (backend.freeMemory().isPresent()) {
      long room = backend.freeMemory().getAsLong() + backend.memory().inUse();
      console.note(
          String.format(
              Locale.ROOT,
              "takes up to %.2f GB of the device's memory, which has room for %.2f GB",
              trainer.memory().total() / 1e9,
              room / 1e9));
    }
    trainer.notes().forEach(console::note);
    if (trainer.steps() > 0) {
      console.note("resumed at step " + trainer.steps() + " of " + trainer.totalSteps());
    }
    if (!trainer.newParameters().isEmpty()) {
      console.note("begun anew: " + String.join(", ", trainer.newParameters()));
    }
  }

  /** Where the images are, and why; that they take too much memory has been noted with the data. */
  private String place(ImageDataset images, boolean cropped) {
    if (images.isStreamed()) {
      boolean chosen = resume == null && options.reading.place == Reading.Place.AUTO;
      return "streamed"
          + (chosen && cropped ? ", because parts are cut out of whole pictures" : "")
          + ", JPEGs decoded by "
          + ImageDecoder.jpegDecoder();
    }
    double bytes = (double) images.size() * images.height() * images.width() * images.channels();
    return String.format(Locale.ROOT, "in memory, where they fit (%.1f MB)", bytes / 1e6);
  }

  /** What to say of bad images that were passed over. */
  static List<String> skipped(Datasets data) {
    return Stream.of(data.train(), data.test())
        .flatMap(images -> RunFigures.skipped(images).stream())
        .toList();
  }

  /** Shows steps and epochs, and passes on the user's wish to stop. */
  private static final class Shown implements TrainingListener, AutoCloseable {
    private final Interrupt interrupt;
    private final Progress progress;
    private final int epochs;
    private final RunningMean loss = new RunningMean();
    private final RunningMean accuracy = new RunningMean();
    private final RunningMean waits = new RunningMean();
    private double seconds;
    private double waited;

    Shown(Console console, Trainer trainer, Interrupt interrupt) {
      this.interrupt = interrupt;
      this.progress = console.progress("train", trainer.steps(), trainer.totalSteps());
      this.epochs = trainer.run().training().epochs();
    }

    @Override
    public void step(Trainer trainer, StepMetric step) {
      loss.add(step.loss());
      accuracy.add(step.accuracy());
      progress.update(
          step.step(),
          String.format(
              Locale.ROOT,
              "epoch %d/%d, loss %.3f, accuracy %.1f %%%s%s",
              step.epoch(),
              epochs,
              loss.value(),
              100 * accuracy.value(),
              speed(step.imagesPerSecond()),
              waiting(trainer, step)));
      if (interrupt.requested()) {
        trainer.stop();
      }
    }

    /** What of the last steps' time went by waiting for images, where that is worth knowing. */
    private String waiting(Trainer trainer, StepMetric step) {
      waits.add((trainer.waitedSeconds() - waited) / (step.seconds() - seconds));
      seconds = step.seconds();
      waited = trainer.waitedSeconds();
      return waits.value() > WORTH_SAYING
          ? String.format(
              Locale.ROOT, ", waiting for images %.0f %%", Math.min(100, 100 * waits.value()))
          : "";
    }

    @Override
    public void epoch(Trainer trainer, EpochMetric epoch) {
      progress.line(
          String.format(
              Locale.ROOT,
              "epoch %d/%d: training loss %.4f, test loss %.4f, test accuracy %.2f %%%s",
              epoch.epoch(),
              epochs,
              epoch.trainLoss(),
              epoch.testLoss(),
              100 * epoch.testAccuracy(),
              speed(epoch.imagesPerSecond())));
    }

    @Override
    public void close() {
      progress.close();
    }
  }

  /** Throughput after a comma; nothing where it means nothing. */
  private static String speed(double imagesPerSecond) {
    return Double.isNaN(imagesPerSecond)
        ? ""
        : String.format(Locale.ROOT, ", %.0f images/s", imagesPerSecond);
  }

  private static Path writeReport(Trainer trainer, Datasets data, Path directory, Backend backend)
      throws IOException {
    Path report = directory.resolve(REPORT);
    Metrics metrics = Metrics.read(directory.resolve(Trainer.METRICS));
    Map<String, String> notes = new LinkedHashMap<>();
    notes.put("device", backend.name() + ", " + backend.lanes() + " lanes");
    notes.put(
        "activation memory",
        String.format(Locale.ROOT, "%.1f MB", trainer.activationBytes() / 1e6));
    if (data.train().isStreamed()) {
      notes.put("JPEG decoder", ImageDecoder.jpegDecoder());
      waited(trainer).ifPresent(share -> notes.put("time spent waiting for images", share));
    }
    List<String> skipped = skipped(data);
    if (!skipped.isEmpty()) {
      notes.put("bad images", String.join(" ", skipped));
    }
    AtomicFile.writeString(report, RunFigures.training(trainer.run(), metrics, notes).html());
    return report;
  }

  /** The share of the time that went by waiting for images; empty where it means nothing. */
  private static Optional<String> waited(Trainer trainer) {
    double share = trainer.waitedShare();
    return Double.isNaN(share)
        ? Optional.empty()
        : Optional.of(String.format(Locale.ROOT, "%.1f %%", Math.min(100, 100 * share)));
  }

  private static String text(Trainer trainer, Datasets data, Path directory, Path report) {
    EpochMetric epoch = trainer.lastEpoch();
    String result =
        epoch == null
            ? "no epoch has ended yet"
            : String.format(
                Locale.ROOT,
                "test accuracy %.2f %% after epoch %d%s",
                100 * epoch.testAccuracy(),
                epoch.epoch(),
                Double.isNaN(epoch.seconds())
                    ? ""
                    : String.format(Locale.ROOT, ", %.0f s of training", epoch.seconds()));
    if (data.train().isStreamed()) {
      result +=
          waited(trainer)
              .map(share -> "\n" + share + " of the training time waited for images")
              .orElse("");
    }
    return result + "\nreport: " + report + "\nmodel:  " + directory.resolve(Trainer.CHECKPOINT);
  }

  private static String json(Trainer trainer, Datasets data, Path directory, Path report)
      throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node = mapper.createObjectNode();
    node.put("network", trainer.network().name());
    node.put("directory", directory.toString());
    node.put("report", report.toString());
    node.put("finished", trainer.finished());
    node.put("steps", trainer.steps());
    node.put("total_steps", trainer.totalSteps());
    node.put("streamed", data.train().isStreamed());
    node.put("waited_share", trainer.waitedShare());
    node.put("skipped", data.train().skipped().size() + data.test().skipped().size());
    EpochMetric epoch = trainer.lastEpoch();
    if (epoch != null) {
      node.put("epochs", epoch.epoch());
      node.put("train_loss", epoch.trainLoss());
      node.put("test_loss", epoch.testLoss());
      node.put("test_accuracy", epoch.testAccuracy());
      node.put("best_test_accuracy", trainer.bestAccuracy());
      node.put("images_per_second", epoch.imagesPerSecond());
      node.put("seconds", epoch.seconds());
    }
    return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(node);
  }

  /**
   * Makes a folder of a name, or of the name and the first number that is free. Whoever comes at
   * the same time gets another one.
   */
  static Path newFolder(String parent, String name) throws IOException {
    String safe = name.replaceAll("[^A-Za-z0-9.-]", "-");
    Files.createDirectories(Path.of(parent));
    for (int i = 1; ; i++) {
      Path folder = Path.of(parent, i == 1 ? safe : safe + "-" + i);
      try {
        return Files.createDirectory(folder);
      } catch (FileAlreadyExistsException taken) {
        // the next number may be free
      }
    }
  }
}
