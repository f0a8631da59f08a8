package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.Datasets;
import io.jtrelu.nn.Network;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Model;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
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
      "The folder holds config.json, metrics.jsonl, model.safetensors and report.html."
    })
final class TrainCommand implements Callable<Integer> {
  /** Name of the report in a run's folder. */
  static final String REPORT = "report.html";

  /** Options that a resumed run may be given. */
  private static final Set<String> WITH_RESUME =
      Set.of("--resume", "--device", "--json", "--verbose");

  @ParentCommand private Main main;
  @Spec private CommandSpec spec;
  @Mixin private RunOptions run = new RunOptions();

  @Option(
      names = "--method",
      paramLabel = "NAME",
      defaultValue = "tat",
      description = "Shaping: tat, dks, eoc, none, or he for He-scaled ReLU (${DEFAULT-VALUE}).")
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

  @Override
  public Integer call() throws IOException {
    if (resume != null) {
      refuseOptionsWithoutEffect();
    }
    Console console = main.console();
    Model model;
    Datasets data;
    Path directory;
    if (resume != null) {
      directory = resume;
      model = Model.read(directory);
      data = RunOptions.open(model.training().data(), console);
    } else {
      var config = run.config(method, activation, epochs);
      data = RunOptions.open(run.data, console);
      model = Model.of(config, data);
      directory = out != null ? out : freeFolder("runs", model.network().name());
    }
    try (Interrupt interrupt = new Interrupt();
        Backend backend = RunOptions.openDevice(run.device);
        Trainer trainer =
            resume != null
                ? Trainer.resume(model, data, backend, directory)
                : Trainer.start(model, data, backend, directory)) {
      describe(console, trainer, data, backend);
      boolean finished = train(console, trainer, interrupt);
      Path report = writeReport(trainer, directory, backend);
      if (!finished) {
        console.note(
            "stopped after step "
                + trainer.steps()
                + " of "
                + trainer.totalSteps()
                + " and saved; go on with: jtrelu train --resume "
                + directory);
      }
      console.print(json ? json(trainer, directory, report) : text(trainer, directory, report));
      return 0;
    }
  }

  /** A resumed run keeps its configuration; an option that would change it is a mistake. */
  private void refuseOptionsWithoutEffect() {
    for (OptionSpec option : spec.commandLine().getParseResult().matchedOptions()) {
      if (!WITH_RESUME.contains(option.longestName())) {
        throw new UsageException(
            option.longestName()
                + " has no effect with --resume: a resumed run keeps its folder"
                + " and configuration");
      }
    }
  }

  private static void describe(Console console, Trainer trainer, Datasets data, Backend backend) {
    Network network = trainer.network();
    Model model = trainer.model();
    console.note(
        String.format(
            Locale.ROOT,
            "%s: %d activations deep, %,d parameters, %s %s (negative slope %.4f)",
            network.name(),
            network.depth(),
            network.parameterCount(),
            model.training().shaping().method(),
            model.activation().function(),
            model.activation().negativeSlope()));
    console.note(
        String.format(
            Locale.ROOT,
            "%s: %,d training and %,d test images of %d classes; on %s with %d lanes, %.1f MB of"
                + " activations",
            data.train().name(),
            data.train().size(),
            data.test().size(),
            data.train().classes().size(),
            backend.name(),
            backend.lanes(),
            trainer.activationBytes() / 1e6));
    if (trainer.steps() > 0) {
      console.note("resumed at step " + trainer.steps() + " of " + trainer.totalSteps());
    }
  }

  /** Takes steps until the end or until the user wants to stop; true at the end. */
  private static boolean train(Console console, Trainer trainer, Interrupt interrupt)
      throws IOException {
    int epochs = trainer.model().training().epochs();
    try (Progress progress = console.progress("train", trainer.totalSteps())) {
      RunningMean loss = new RunningMean();
      RunningMean accuracy = new RunningMean();
      while (!trainer.finished()) {
        if (interrupt.requested()) {
          trainer.save();
          return false;
        }
        EpochMetric before = trainer.lastEpoch();
        StepMetric shown = trainer.lastStep();
        trainer.advance();
        StepMetric step = trainer.lastStep(); // on a GPU that of the step before
        if (step != null && !step.equals(shown)) {
          loss.add(step.loss());
          accuracy.add(step.accuracy());
          progress.update(
              step.step(),
              String.format(
                  Locale.ROOT,
                  "epoch %d/%d, loss %.3f, accuracy %.1f %%%s",
                  step.epoch(),
                  epochs,
                  loss.value(),
                  100 * accuracy.value(),
                  speed(step.imagesPerSecond())));
        }
        EpochMetric epoch = trainer.lastEpoch();
        if (epoch != null && !epoch.equals(before)) {
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
      }
    }
    return true;
  }

  /** Throughput after a comma; nothing where it means nothing. */
  private static String speed(double imagesPerSecond) {
    return Double.isNaN(imagesPerSecond)
        ? ""
        : String.format(Locale.ROOT, ", %.0f images/s", imagesPerSecond);
  }

  private static Path writeReport(Trainer trainer, Path directory, Backend backend)
      throws IOException {
    Path report = directory.resolve(REPORT);
    Metrics metrics = Metrics.read(directory.resolve(Trainer.METRICS));
    Map<String, String> notes =
        Map.of(
            "device",
            backend.name() + ", " + backend.lanes() + " lanes",
            "activation memory",
            String.format(Locale.ROOT, "%.1f MB", trainer.activationBytes() / 1e6));
    AtomicFile.writeString(report, RunFigures.training(trainer.model(), metrics, notes).html());
    return report;
  }

  private static String text(Trainer trainer, Path directory, Path report) {
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
    return result + "\nreport: " + report + "\nmodel:  " + directory.resolve(Trainer.CHECKPOINT);
  }

  private static String json(Trainer trainer, Path directory, Path report) throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node = mapper.createObjectNode();
    node.put("network", trainer.network().name());
    node.put("directory", directory.toString());
    node.put("report", report.toString());
    node.put("finished", trainer.finished());
    node.put("steps", trainer.steps());
    node.put("total_steps", trainer.totalSteps());
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

  /** The first folder of a name, or of the name and a number, that does not exist. */
  static Path freeFolder(String parent, String name) {
    String safe = name.replaceAll("[^A-Za-z0-9.-]", "-");
    Path folder = Path.of(parent, safe);
    for (int i = 2; Files.exists(folder); i++) {
      folder = Path.of(parent, safe + "-" + i);
    }
    return folder;
  }
}
