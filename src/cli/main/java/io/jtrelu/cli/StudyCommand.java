package io.jtrelu.cli;

import io.jtrelu.backend.Backend;
import io.jtrelu.cli.StudyRuns.Outcome;
import io.jtrelu.cli.StudyRuns.Trial;
import io.jtrelu.data.Datasets;
import io.jtrelu.report.StudyReport;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.Optimizer;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu study}: the claims of the paper as experiments, and a report of what came out. */
@Command(
    name = "study",
    description = "Put the claims about plain networks to the test: tuned alike, told with spread.",
    footer = {
      "",
      "Each contender's learning rate is the one of a grid whose training loss is least; every run is a"
          + " folder as jtrelu train leaves it. Ctrl-C stops at the end of a step; the same command goes"
          + " on from there."
    })
final class StudyCommand implements Callable<Integer> {
  @ParentCommand private Main main;

  @Parameters(
      arity = "0..*",
      paramLabel = "RECIPE",
      description = "Experiments to make, all if none is named; --list shows them.")
  private List<String> names = List.of();

  @Option(names = "--list", description = "Name the experiments, and what each would train.")
  private boolean list;

  @Option(
      names = "--full",
      description = "8 epochs, 3 seeds, 4 rates; else 1, 1 and 2, in 20 minutes on two cores.")
  private boolean full;

  @Option(names = "--epochs", paramLabel = "N", description = "Passes over the data of each run.")
  private @Nullable Integer epochs;

  @Option(names = "--seeds", paramLabel = "N", description = "Runs of each contender.")
  private @Nullable Integer seeds;

  @Option(
      names = "--rates",
      paramLabel = "N",
      description = "Learning rates tried for each contender, 1 to 5.")
  private @Nullable Integer rates;

  @Option(
      names = "--data",
      paramLabel = "DATA",
      defaultValue = Datasets.EMBEDDED,
      description = "Images, as jtrelu train takes them (${DEFAULT-VALUE}).")
  private String data = Datasets.EMBEDDED;

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description = "auto, cpu[:lanes], cuda[:index]; see jtrelu devices (${DEFAULT-VALUE}).")
  private String device = "auto";

  @Option(
      names = "--out",
      paramLabel = "DIR",
      defaultValue = "runs/study",
      description = "Folder for runs and report; a study that is there goes on (${DEFAULT-VALUE}).")
  private Path out = Path.of("runs", "study");

  @Override
  public Integer call() throws IOException {
    RunOptions.requireAlone("study");
    StudyScale scale = scale();
    List<Recipe> recipes = recipes(scale);
    Console console = main.console();
    if (list) {
      console.print(listed(recipes, scale));
      return 0;
    }
    Datasets datasets = RunOptions.open(data, console);
    try (Interrupt interrupt = new Interrupt();
        Backend backend = RunOptions.openDevice(device)) {
      StudyRuns runs = new StudyRuns(out, scale, datasets, RunOptions.lasting(data), backend);
      boolean finished = make(console, runs, recipes, scale, interrupt);
      Path report = out.resolve(TrainCommand.REPORT);
      AtomicFile.writeString(report, report(runs, recipes, scale, backend).html());
      if (!finished) {
        console.note("stopped; the same command goes on from there");
      }
      console.print(results(runs, recipes) + "report: " + report);
      return 0;
    }
  }

  private StudyScale scale() {
    StudyScale form = full ? StudyScale.FULL : StudyScale.QUICK;
    return new StudyScale(
        within("--epochs", epochs, form.epochs(), 1000),
        within("--seeds", seeds, form.seeds(), 100),
        within("--rates", rates, form.grid(), 5),
        form.solutions());
  }

  private static int within(String option, @Nullable Integer given, int otherwise, int most) {
    if (given != null && (given < 1 || given > most)) {
      throw new UsageException(option + " must lie in 1 to " + most + ", got " + given);
    }
    return given == null ? otherwise : given;
  }

  private List<Recipe> recipes(StudyScale scale) {
    List<Recipe> all = Recipe.all(scale);
    List<String> known = all.stream().map(Recipe::name).toList();
    for (String name : names) {
      if (!known.contains(name)) {
        throw NearestName.unknown("recipe", name, known);
      }
    }
    return all.stream().filter(r -> names.isEmpty() || names.contains(r.name())).toList();
  }

  private static String listed(List<Recipe> recipes, StudyScale scale) {
    StringBuilder text = new StringBuilder();
    for (Recipe recipe : recipes) {
      text.append(recipe.name()).append(": ").append(recipe.claim()).append('\n');
      for (Contender contender : recipe.contenders()) {
        text.append(
            String.format(
                Locale.ROOT,
                "    %-42s rates %s, then %d seed%s%n",
                contender.name(),
                contender.rates(scale),
                scale.seeds(),
                scale.seeds() == 1 ? "" : "s"));
      }
    }
    return text.append("each run: ")
        .append(scale.epochs())
        .append(scale.epochs() == 1 ? " epoch" : " epochs")
        .toString();
  }

  // --- the runs ---

  /** Of the progress bar. */
  private static final long UNITS = 10_000;

  /** How many runs of each contender are left, and how long they take, by what has been done. */
  private static final class Plan {
    private final StudyRuns runs;
    private final Map<Contender, Integer> left = new LinkedHashMap<>();
    private final Map<Contender, Double> work = new LinkedHashMap<>();
    private double secondsPerWork = Double.NaN;
    private double timedWork;
    private double timedSeconds;
    private double doneWork;

    Plan(StudyRuns runs) {
      this.runs = runs;
    }

    void add(Contender contender, int count) {
      left.merge(contender, count, Integer::sum);
    }

    int count() {
      return left.values().stream().mapToInt(x -> x).sum();
    }

    /** Seconds; NaN before anything is known. */
    double seconds() {
      double perWork = timedWork > 0 ? timedSeconds / timedWork : secondsPerWork;
      return perWork * work();
    }

    /** Work that is left. */
    double work() {
      double all = 0;
      for (Map.Entry<Contender, Integer> each : left.entrySet()) {
        all += each.getValue() * work(each.getKey());
      }
      return all;
    }

    double work(Contender contender) {
      return work.computeIfAbsent(contender, runs::work);
    }

    /** Share of the work that is done, in units of the progress bar. */
    long done(Contender underWay, double part) {
      double done = doneWork + part * work(underWay);
      return Math.round(UNITS * done / (doneWork + work()));
    }

    void done(Contender contender, double seconds, boolean whole) {
      left.merge(contender, -1, Integer::sum);
      doneWork += work(contender);
      if (whole) {
        timedWork += work(contender);
        timedSeconds += seconds;
      }
    }
  }

  /** False if the user stopped it. */
  private static boolean make(
      Console console, StudyRuns runs, List<Recipe> recipes, StudyScale scale, Interrupt interrupt)
      throws IOException {
    Set<Contender> contenders = contenders(recipes);
    List<Trial> tuning =
        missing(runs, contenders.stream().flatMap(c -> runs.tuning(c).stream()).toList());
    Plan plan = new Plan(runs);
    tuning.forEach(key -> plan.add(key.contender(), 1));
    for (Contender contender : contenders) {
      boolean tuned = tuning.stream().noneMatch(key -> key.contender().equals(contender));
      plan.add(contender, tuned ? missing(runs, runs.seeds(contender)).size() : scale.seeds() - 1);
    }
    if (plan.count() > 0) {
      plan.secondsPerWork = runs.secondsPerWork(contenders.iterator().next());
      console.note(
          String.format(
              Locale.ROOT,
              "%d contenders, %d runs to make, about %s on this machine",
              contenders.size(),
              plan.count(),
              duration(plan.seconds())));
    }
    try (Progress progress = console.progress("study", 0, UNITS)) {
      for (Trial key : tuning) {
        if (!make(runs, key, plan, progress, interrupt)) {
          return false;
        }
      }
      for (Contender contender : contenders) {
        for (Trial key : missing(runs, runs.seeds(contender))) {
          if (!make(runs, key, plan, progress, interrupt)) {
            return false;
          }
        }
      }
    }
    return true;
  }

  private static List<Trial> missing(StudyRuns runs, List<Trial> keys) throws IOException {
    List<Trial> missing = new ArrayList<>();
    for (Trial key : keys) {
      if (runs.outcome(key) == null) {
        missing.add(key);
      }
    }
    return missing;
  }

  private static boolean make(
      StudyRuns runs, Trial key, Plan plan, Progress progress, Interrupt interrupt)
      throws IOException {
    long begun = System.nanoTime();
    boolean[] fromStart = {false};
    Outcome outcome =
        runs.make(
            key,
            trainer -> {
              fromStart[0] |= trainer.steps() == 0;
              double part = (double) trainer.steps() / trainer.totalSteps();
              progress.update(
                  plan.done(key.contender(), part),
                  String.format(
                      Locale.ROOT,
                      "%d runs left, %s: step %d of %d",
                      plan.count(),
                      key,
                      trainer.steps(),
                      trainer.totalSteps()));
              return !interrupt.requested();
            });
    if (outcome == null) {
      return false;
    }
    double seconds = (System.nanoTime() - begun) / 1e9;
    plan.done(key.contender(), seconds, fromStart[0] && outcome.diverged() == null);
    progress.line(
        String.format(
            Locale.ROOT,
            "%-58s %s, %.0f s",
            key,
            outcome.diverged() != null
                ? "diverged"
                : String.format(
                    Locale.ROOT,
                    "training loss %.3f, test accuracy %5.2f %%",
                    outcome.trainingLoss(),
                    100 * outcome.accuracy()),
            seconds));
    return true;
  }

  private static Set<Contender> contenders(List<Recipe> recipes) {
    Map<String, Contender> byFolder = new LinkedHashMap<>();
    recipes.forEach(r -> r.contenders().forEach(c -> byFolder.putIfAbsent(c.folder(), c)));
    return new LinkedHashSet<>(byFolder.values());
  }

  private static String duration(double seconds) {
    long minutes = Math.round(seconds / 60);
    return seconds < 90
        ? Math.round(seconds) + " s"
        : minutes < 120 ? minutes + " min" : String.format(Locale.ROOT, "%.1f h", seconds / 3600);
  }

  // --- what came out ---

  private static StudyReport report(
      StudyRuns runs, List<Recipe> recipes, StudyScale scale, Backend backend) throws IOException {
    List<StudyReport.Experiment> experiments = new ArrayList<>();
    for (Recipe recipe : recipes) {
      List<StudyReport.Entry> entries = new ArrayList<>();
      for (Contender contender : recipe.contenders()) {
        Map<Double, Double> tried = new LinkedHashMap<>();
        for (double rate : contender.rates(scale)) {
          Outcome outcome = runs.outcome(new Trial(contender, rate, 1));
          if (outcome != null) {
            tried.put(rate, outcome.trainingLoss());
          }
        }
        List<StudyReport.Seed> seeds = new ArrayList<>();
        for (Trial key : runs.seeds(contender)) {
          Outcome outcome = runs.outcome(key);
          if (outcome != null) {
            seeds.add(new StudyReport.Seed(outcome.epochs(), outcome.diverged() != null));
          }
        }
        entries.add(
            new StudyReport.Entry(contender.name(), tried, runs.bestRate(contender), seeds));
      }
      experiments.add(new StudyReport.Experiment(recipe.name(), recipe.claim(), entries));
    }
    Map<String, String> settings = new LinkedHashMap<>();
    settings.put("epochs of a run", Integer.toString(scale.epochs()));
    settings.put("seeds", Integer.toString(scale.seeds()));
    for (Optimizer.Kind kind : Optimizer.Kind.values()) {
      settings.put("rates tried, " + kind, scale.rates(kind).toString());
    }
    settings.put("device", backend.name() + ", " + backend.lanes() + " lanes");
    settings.put("all else", "the defaults of jtrelu train; no clipping for ResNets");
    return new StudyReport(experiments, settings, RunFigures.environment());
  }

  private static String results(StudyRuns runs, List<Recipe> recipes) throws IOException {
    StringBuilder text = new StringBuilder();
    for (Recipe recipe : recipes) {
      text.append(recipe.name()).append('\n');
      for (Contender contender : recipe.contenders()) {
        List<Double> accuracies = new ArrayList<>();
        for (Trial key : runs.seeds(contender)) {
          Outcome outcome = runs.outcome(key);
          if (outcome != null) {
            accuracies.add(outcome.accuracy());
          }
        }
        text.append(
            String.format(
                Locale.ROOT,
                "  %-42s %s%n",
                contender.name(),
                accuracies.isEmpty()
                    ? "not trained yet"
                    : StudyReport.spread(accuracies) + " at rate " + runs.bestRate(contender)));
      }
    }
    return text.toString();
  }
}
