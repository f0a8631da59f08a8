package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.Datasets;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.NonFiniteException;
import io.jtrelu.train.Run;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu compare}: the same network with different shaping, side by side. */
@Command(
    name = "compare",
    description = "Train the same network shaped and unshaped, side by side.",
    footer = {"", "Each method's run is in a folder of its own; report.html shows all of them."})
final class CompareCommand implements Callable<Integer> {
  @ParentCommand private Main main;
  @Mixin private RunOptions options = new RunOptions();

  @Option(
      names = "--methods",
      paramLabel = "NAMES",
      split = ",",
      defaultValue = "tat,he",
      description =
          "Methods to compare: tat, dks, eoc, none, he; each with an activation if"
              + " wanted, as in tat:tanh (${DEFAULT-VALUE}).")
  private List<String> methods = List.of("tat", "he");

  @Option(
      names = "--epochs",
      paramLabel = "N",
      defaultValue = "1",
      description = "Passes over the data, for each (${DEFAULT-VALUE}).")
  private int epochs = 1;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      description = "Folder for the results (runs/compare-NETWORK, or the next free one).")
  private @Nullable Path out;

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  /** One of the runs that are compared. */
  private static final class Contender implements AutoCloseable {
    final String name;
    final Trainer trainer;
    final RunningMean loss = new RunningMean();
    final RunningMean accuracy = new RunningMean();
    @Nullable String diverged;

    Contender(String name, Trainer trainer) {
      this.name = name;
      this.trainer = trainer;
    }

    boolean active() {
      return diverged == null && !trainer.finished();
    }

    void step() throws IOException {
      try {
        StepMetric metric = trainer.step();
        loss.add(metric.loss());
        accuracy.add(metric.accuracy());
      } catch (NonFiniteException failure) {
        diverged = String.valueOf(failure.getMessage());
      }
    }

    String figures() {
      return diverged != null
          ? name + " diverged"
          : String.format(
              Locale.ROOT,
              "%s: loss %.3f, accuracy %4.1f %%",
              name,
              loss.value(),
              100 * accuracy.value());
    }

    @Override
    public void close() {
      trainer.close();
    }
  }

  @Override
  public Integer call() throws IOException {
    RunOptions.requireAlone("compare");
    Console console = main.console();
    Map<String, Run> runs = new LinkedHashMap<>();
    Datasets data = options.open(console);
    for (String text : methods) {
      String[] parts = text.strip().split(":", 2);
      String method = parts[0];
      String activation =
          parts.length == 2 ? parts[1] : method.equals("he") ? "relu" : "leaky_relu";
      Run one = options.run(options.shaping(method, activation), options.training(epochs), data);
      if (runs.put(text.strip(), one) != null) {
        throw new UsageException("--methods names '" + text.strip() + "' twice");
      }
    }
    String network = runs.values().iterator().next().model().network().name();
    Path directory = out != null ? out : TrainCommand.newFolder("runs", "compare-" + network);
    if (Files.exists(directory.resolve(TrainCommand.REPORT))) {
      throw new IOException(directory + " already holds a comparison; choose another --out");
    }
    List<Contender> contenders = new ArrayList<>();
    try (Interrupt interrupt = new Interrupt();
        Backend backend = RunOptions.openDevice(options.device)) {
      try {
        for (Map.Entry<String, Run> entry : runs.entrySet()) {
          Path folder = directory.resolve(entry.getKey().replace(':', '-'));
          contenders.add(
              new Contender(
                  entry.getKey(), Trainer.start(entry.getValue(), data, backend, folder)));
        }
        boolean finished = train(console, contenders, interrupt);
        TrainCommand.skipped(data).forEach(console::note);
        Path report = writeReport(directory, runs, backend);
        if (!finished) {
          console.note(
              "stopped and saved; each run can go on with: jtrelu train --resume "
                  + directory.resolve("METHOD"));
        }
        console.print(
            json ? json(contenders, directory, report) : text(contenders, directory, report));
        return 0;
      } finally {
        contenders.forEach(Contender::close);
      }
    } finally {
      if (out == null) {
        TrainCommand.removeIfEmpty(directory); // where nothing came of it
      }
    }
  }

  /** Steps all contenders in turn; false if the user stopped it. */
  private static boolean train(Console console, List<Contender> contenders, Interrupt interrupt)
      throws IOException {
    Trainer first = contenders.getFirst().trainer;
    try (Progress progress = console.progress("compare", first.steps(), first.totalSteps())) {
      progress.line(header(contenders));
      while (contenders.stream().anyMatch(Contender::active)) {
        if (interrupt.requested()) {
          for (Contender contender : contenders) {
            contender.trainer.save();
          }
          return false;
        }
        long step = 0;
        for (Contender contender : contenders) {
          if (contender.active()) {
            contender.step();
          }
          step = Math.max(step, contender.trainer.steps());
        }
        progress.update(
            step, String.join(" | ", contenders.stream().map(Contender::figures).toList()));
        if (step % row(first.stepsPerEpoch()) == 0 || step == first.totalSteps()) {
          progress.line(row(step, contenders));
        }
      }
    }
    return true;
  }

  /** Steps between two rows of the table: about eight rows an epoch. */
  private static long row(int stepsPerEpoch) {
    return Math.max(1, stepsPerEpoch / 8);
  }

  private static String header(List<Contender> contenders) {
    StringBuilder line = new StringBuilder("   step");
    for (Contender contender : contenders) {
      line.append(String.format(Locale.ROOT, " | %-30s", contender.name));
    }
    return line.toString();
  }

  private static String row(long step, List<Contender> contenders) {
    StringBuilder line = new StringBuilder(String.format(Locale.ROOT, "%7d", step));
    for (Contender c : contenders) {
      EpochMetric epoch = c.trainer.lastEpoch();
      String cell;
      if (c.diverged != null) {
        cell = "diverged";
      } else if (epoch != null && epoch.step() == step) {
        cell =
            String.format(
                Locale.ROOT,
                "loss %.3f  test acc. %5.1f %%",
                c.loss.value(),
                100 * epoch.testAccuracy());
      } else {
        cell =
            String.format(
                Locale.ROOT,
                "loss %.3f  accuracy  %5.1f %%",
                c.loss.value(),
                100 * c.accuracy.value());
      }
      line.append(String.format(Locale.ROOT, " | %-30s", cell));
    }
    return line.toString();
  }

  private static Path writeReport(Path directory, Map<String, Run> runs, Backend backend)
      throws IOException {
    Map<String, Metrics> metrics = new LinkedHashMap<>();
    for (String name : runs.keySet()) {
      Path folder = directory.resolve(name.replace(':', '-'));
      metrics.put(name, Metrics.read(folder.resolve(Trainer.METRICS)));
    }
    Path report = directory.resolve(TrainCommand.REPORT);
    Map<String, String> notes =
        Map.of("device", backend.name() + ", " + backend.lanes() + " lanes");
    AtomicFile.writeString(report, RunFigures.comparison(runs, metrics, notes).html());
    return report;
  }

  private static String text(List<Contender> contenders, Path directory, Path report) {
    StringBuilder text = new StringBuilder();
    for (Contender c : contenders) {
      EpochMetric epoch = c.trainer.lastEpoch();
      String result =
          c.diverged != null
              ? "diverged: " + c.diverged
              : epoch == null
                  ? "no epoch has ended yet"
                  : String.format(
                      Locale.ROOT,
                      "test accuracy %.2f %%, test loss %.4f",
                      100 * epoch.testAccuracy(),
                      epoch.testLoss());
      text.append(String.format(Locale.ROOT, "%-12s %s%n", c.name, result));
    }
    return text.append("report: ").append(report).append("\nruns:   ").append(directory).toString();
  }

  private static String json(List<Contender> contenders, Path directory, Path report)
      throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node = mapper.createObjectNode();
    node.put("directory", directory.toString()).put("report", report.toString());
    ArrayNode runs = node.putArray("runs");
    for (Contender c : contenders) {
      ObjectNode one = runs.addObject().put("method", c.name).put("steps", c.trainer.steps());
      one.put("diverged", c.diverged != null);
      EpochMetric epoch = c.trainer.lastEpoch();
      if (epoch != null) {
        one.put("test_accuracy", epoch.testAccuracy());
        one.put("test_loss", epoch.testLoss());
        one.put("train_loss", epoch.trainLoss());
      }
    }
    return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(node);
  }
}
