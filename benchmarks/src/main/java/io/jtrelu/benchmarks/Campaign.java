package io.jtrelu.benchmarks;

import static java.nio.file.StandardOpenOption.APPEND;
import static java.nio.file.StandardOpenOption.CREATE;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.IOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.openjdk.jmh.results.BenchmarkResult;
import org.openjdk.jmh.results.IterationResult;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.results.format.ResultFormatFactory;
import org.openjdk.jmh.results.format.ResultFormatType;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/**
 * Runs a set in rounds. In a round every contender of every group gets one process, contenders of a
 * group right after each other, so that both sides of a ratio see the same machine; the order turns
 * by one from round to round. Ends when another round would pass the time budget.
 */
@Command(
    name = "benchmarks/run",
    sortOptions = false,
    description = "Measures JTReLU against its peers; results go to results/NAME.")
public final class Campaign implements Callable<Integer> {
  private static final int CORES = Runtime.getRuntime().availableProcessors();
  private static final List<String> JVM_ARGUMENTS =
      List.of(
          "--enable-native-access=ALL-UNNAMED",
          "-Xmx2g",
          "-Dai.djl.offline=true",
          "-DOPT_OUT_TRACKING=true",
          "-Dai.djl.pytorch.num_interop_threads=1",
          "-Dai.djl.pytorch.graph_optimizer=false");

  @Parameters(
      index = "0",
      defaultValue = "quick",
      paramLabel = "SET",
      description = "What to measure; default: quick.")
  private String set;

  @Parameters(
      index = "1..*",
      paramLabel = "TEXT",
      description = "Only groups whose title has one of these in it, as 'training step' or n=256.")
  private List<String> texts = List.of();

  @Option(
      names = "--name",
      paramLabel = "NAME",
      description = "Folder of the results; default: date and set.")
  private String name;

  @Option(
      names = "--seconds",
      paramLabel = "N",
      description =
          "Time budget; default: 180, quick 540, roofline 900, gpu 1200, scaling 2400, full"
              + " 7200.")
  private long seconds;

  @Option(names = "--list", description = "Print the titles of the groups and end.")
  private boolean list;

  @Option(names = "--help", usageHelp = true, description = "Show this.")
  private boolean help;

  private Path directory;
  private List<Group> groups;
  private long budget;
  private final long start = System.nanoTime();
  private final Map<Group, Map<String, List<Measurement>>> results = new LinkedHashMap<>();
  private final Map<Group, Map<String, String>> failures = new LinkedHashMap<>();
  private final Map<String, Double> cost = new HashMap<>();
  private final List<RunResult> jmh = new ArrayList<>();
  private final Map<Group, JsonNode> answers = new HashMap<>();
  private final Map<String, Object> environment = Environment.read();

  /**
   * One process's figure.
   *
   * @param round from 0
   * @param value median over its iterations; less is better
   * @param iterations of the process
   * @param load average of the last minute at its start
   */
  public record Measurement(int round, double value, double[] iterations, double load) {}

  private Campaign() {}

  /** Runs; see {@code --help}. */
  public static void main(String[] args) {
    CommandLine command = new CommandLine(new Campaign());
    List<String> sets = new ArrayList<>(List.of("", "Sets:"));
    Plan.SETS.forEach((set, purpose) -> sets.add(String.format("  %-10s%s", set, purpose)));
    command.getCommandSpec().usageMessage().footer(sets.toArray(String[]::new));
    System.exit(command.execute(args));
  }

  @Override
  public Integer call() throws IOException {
    groups = selected(Plan.of(set));
    String noGpu = GpuWork.whyNot();
    if (groups.stream().anyMatch(Group::needsGpu)) {
      System.out.println("GPU benchmarks: " + (noGpu.isEmpty() ? "on" : "skipped, " + noGpu));
    }
    environment.put("set", set);
    environment.put("only", texts);
    environment.put("gpuBenchmarks", noGpu.isEmpty() ? "run where selected" : "skipped, " + noGpu);
    if (list) {
      groups.forEach(group -> System.out.println(group.title()));
      return 0;
    }
    groups = groups.stream().filter(g -> noGpu.isEmpty() || !g.needsGpu()).toList();
    if (groups.isEmpty()) {
      System.out.println("nothing to measure");
      return 0;
    }
    long usual =
        switch (set) {
          case "full" -> 7200;
          case "quick" -> 540;
          case "roofline" -> 900;
          case "scaling" -> 2400;
          case "gpu" -> 1200;
          default -> 180;
        };
    budget = TimeUnit.SECONDS.toNanos(seconds > 0 ? seconds : usual);
    directory = Path.of("results", name != null ? name : LocalDate.now() + "-" + set);
    Files.createDirectories(directory);
    try (Stream<Path> old = Files.list(directory)) {
      for (Path file : old.filter(Files::isRegularFile).toList()) {
        Files.delete(file); // of an earlier run of this name
      }
    }
    run();
    System.out.println("results: " + directory.toAbsolutePath());
    return results.isEmpty() ? 1 : 0;
  }

  /** Groups with one of the texts in their titles; sgemm too where shares of it are reported. */
  private List<Group> selected(List<Group> all) {
    if (texts.isEmpty()) {
      return all;
    }
    Predicate<Group> hit =
        group -> texts.stream().anyMatch(text -> plain(group.title()).contains(plain(text)));
    boolean shares = all.stream().filter(hit).anyMatch(group -> group.multiplyAdds() > 0);
    return all.stream()
        .filter(g -> hit.test(g) || (shares && g.target().equals("SgemmPeak.multiply")))
        .toList();
  }

  private static String plain(String text) {
    return text.toLowerCase(Locale.ROOT).replace(" ", "");
  }

  private void run() throws IOException {
    double load = Environment.load();
    if (load > 0.5) {
      System.out.printf(
          Locale.ROOT,
          "warning: the load average is %.1f on %d cores before anything runs; the ratios will be"
              + " noise%n",
          load,
          CORES);
    }
    int most = groups.stream().mapToInt(Group::rounds).max().orElse(0);
    for (int round = 0; round < most; round++) {
      for (Group group : groups) {
        if (round < group.rounds() && !run(group, round)) {
          System.out.printf("round %d: no time for %s%n", round + 1, group.title());
        }
      }
      write();
      if (System.nanoTime() - start > 0.9 * budget) {
        break;
      }
    }
    write();
  }

  /** One round of one group, unless it would pass the budget. */
  private boolean run(Group group, int round) {
    List<String> contenders = remaining(group, round);
    double expected = 0;
    for (String contender : contenders) {
      expected += cost.getOrDefault(key(group, contender), estimate(group));
    }
    if (System.nanoTime() - start + expected * 1e9 > budget) {
      return false;
    }
    for (int i = 0; i < contenders.size(); i++) {
      String contender = contenders.get((i + round) % contenders.size());
      double load = Environment.load();
      long begin = System.nanoTime();
      String outcome;
      try {
        double[] values = watched(group, contender);
        double median = median(values);
        results
            .computeIfAbsent(group, g -> new LinkedHashMap<>())
            .computeIfAbsent(contender, c -> new ArrayList<>())
            .add(new Measurement(round, median, values, load));
        outcome = ratio(group, contender, round);
      } catch (RunnerException | IOException | IllegalStateException failure) {
        String reason = failure.getMessage();
        reason = reason != null && reason.startsWith("skipped") ? reason : "failed: " + reason;
        failures.computeIfAbsent(group, g -> new LinkedHashMap<>()).put(contender, reason);
        outcome = reason;
      }
      double seconds = (System.nanoTime() - begin) * 1e-9;
      cost.put(key(group, contender), seconds);
      System.out.printf(
          Locale.ROOT,
          "[%3d of %d s] round %d  %-62s %-20s %s%n",
          (System.nanoTime() - start) / 1_000_000_000,
          budget / 1_000_000_000,
          round + 1,
          group.title(),
          contender,
          outcome);
    }
    return true;
  }

  private static String key(Group group, String contender) {
    return group.title() + contender;
  }

  private static double estimate(Group group) {
    return group.probe() == Group.Probe.JMH
        ? 3 + (group.warmup() + group.iterations()) * group.seconds()
        : 4;
  }

  /** After the first round, of each peer's variants the fastest; none that failed. */
  private List<String> remaining(Group group, int round) {
    Map<String, String> failed = failures.getOrDefault(group, Map.of());
    Map<String, List<Measurement>> measured = results.getOrDefault(group, Map.of());
    List<String> remaining = new ArrayList<>();
    for (String contender : group.contenders()) {
      if (failed.containsKey(contender)) {
        continue;
      }
      boolean fastest = true;
      for (String other : measured.keySet()) {
        fastest &=
            !Group.family(other).equals(Group.family(contender))
                || !measured.containsKey(contender)
                || measured.get(other).getFirst().value()
                    >= measured.get(contender).getFirst().value();
      }
      if (round == 0 || fastest) {
        remaining.add(contender);
      }
    }
    return remaining;
  }

  private String ratio(Group group, String contender, int round) {
    String first = group.contenders().getFirst();
    List<Measurement> base = results.get(group).getOrDefault(first, List.of());
    double own = results.get(group).get(contender).getLast().value();
    for (Measurement m : base) {
      if (m.round() == round && !contender.equals(first)) {
        return String.format(Locale.ROOT, "%.2fx of %s", own / m.value(), first);
      }
    }
    return "ok";
  }

  /** Ends a process that would pass the budget by much: a campaign keeps its time. */
  private double[] watched(Group group, String contender) throws RunnerException, IOException {
    long allowed =
        Math.max(30, Math.min(budget / 4, budget + start - System.nanoTime()) / 1_000_000_000);
    AtomicBoolean ended = new AtomicBoolean();
    ScheduledExecutorService watch =
        Executors.newSingleThreadScheduledExecutor(Thread.ofPlatform().daemon().factory());
    watch.schedule(
        () -> {
          ended.set(true);
          ProcessHandle.current().children().forEach(ProcessHandle::destroyForcibly);
        },
        allowed,
        TimeUnit.SECONDS);
    try {
      return measure(group, contender);
    } catch (RunnerException | IllegalStateException failure) {
      if (ended.get()) {
        throw new IllegalStateException("ended after " + allowed + " s", failure);
      }
      throw failure;
    } finally {
      watch.shutdownNow();
    }
  }

  private double[] measure(Group group, String contender) throws RunnerException, IOException {
    return switch (group.probe()) {
      case JMH -> fork(group, contender);
      case GPU -> gpu(group, contender);
      case PROCESS, PICTURE -> {
        long begin = System.nanoTime();
        child(group, contender);
        yield new double[] {(System.nanoTime() - begin) * 1e-6};
      }
      case VALUE -> {
        for (String line : child(group, contender)) {
          if (line.startsWith("value ")) {
            yield new double[] {Double.parseDouble(line.substring("value ".length()))};
          }
        }
        throw new IllegalStateException("no value printed");
      }
    };
  }

  private double[] fork(Group group, String contender) throws RunnerException, IOException {
    Path log = Files.createTempFile("jtrelu-jmh", ".log");
    try {
      return fork(group, contender, log);
    } catch (RunnerException failure) {
      List<String> lines = Files.readAllLines(log);
      Files.write(directory.resolve("failures.log"), lines, CREATE, APPEND);
      String first =
          lines.stream()
              .filter(line -> line.matches("(Caused by: )?[a-z]+\\.[\\w.$]+(Exception|Error): .*"))
              .filter(line -> !line.contains("Benchmark caught the exception"))
              .findFirst()
              .orElse(failure.getMessage() + ", see failures.log");
      throw new IllegalStateException(first);
    } finally {
      Files.deleteIfExists(log);
    }
  }

  private double[] fork(Group group, String contender, Path log) throws RunnerException {
    ChainedOptionsBuilder options =
        new OptionsBuilder()
            .include("\\Q" + Campaign.class.getPackageName() + "." + group.target() + "\\E$")
            .param("contender", Group.name(contender))
            .forks(1)
            .warmupIterations(group.warmup())
            .warmupTime(time(group.seconds()))
            .measurementIterations(group.iterations())
            .measurementTime(time(group.seconds()))
            .timeout(TimeValue.minutes(3))
            .shouldFailOnError(true)
            .jvmArgs(jvmArguments(contender).toArray(String[]::new))
            .output(log.toString());
    group.parameters().forEach((name, value) -> options.param(name, value));
    Collection<RunResult> run = new Runner(options.build()).run();
    List<Double> values = new ArrayList<>();
    for (RunResult result : run) {
      jmh.add(result);
      for (BenchmarkResult fork : result.getBenchmarkResults()) {
        for (IterationResult iteration : fork.getIterationResults()) {
          values.add(iteration.getPrimaryResult().getScore());
        }
      }
    }
    if (values.isEmpty()) {
      throw new IllegalStateException("nothing measured");
    }
    return values.stream().mapToDouble(v -> v).toArray();
  }

  private static TimeValue time(double seconds) {
    return TimeValue.milliseconds(Math.round(seconds * 1000));
  }

  private static List<String> jvmArguments(String contender) {
    int threads = Group.threads(contender);
    List<String> arguments = new ArrayList<>(JVM_ARGUMENTS);
    arguments.add("-XX:ActiveProcessorCount=" + threads);
    arguments.add("-Dai.djl.pytorch.num_threads=" + threads);
    return arguments;
  }

  /** This library's side in a Java process, the peer's in Python: one JSON in, one JSON out. */
  private double[] gpu(Group group, String contender) throws IOException {
    List<String> command =
        contender.startsWith("pytorch")
            ? List.of("python3", "peers/pytorch_gpu.py")
            : List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path"),
                GpuWork.class.getName());
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    ObjectMapper json = new ObjectMapper();
    try (Writer request = process.outputWriter()) {
      request.write(json.writeValueAsString(GpuWork.request(group, contender)));
    }
    List<String> lines = lines(process);
    JsonNode answer = json.readTree(lines.isEmpty() ? "{}" : lines.getLast());
    if (answer.has("skipped")) {
      throw new IllegalStateException("skipped, " + answer.get("skipped").asText());
    }
    JsonNode first = answers.computeIfAbsent(group, g -> answer);
    GpuWork.requireAgreement(contender, first.path("checks"), answer.path("checks"));
    return json.convertValue(answer.get("values"), double[].class);
  }

  private List<String> child(Group group, String contender) throws IOException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(jvmArguments(contender));
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add(Campaign.class.getPackageName() + "." + group.target());
    command.add(Group.name(contender));
    command.addAll(group.parameters().values());
    if (group.probe() == Group.Probe.PICTURE) {
      command.add(directory.toString());
    }
    return lines(new ProcessBuilder(command).redirectErrorStream(true).start());
  }

  private static List<String> lines(Process process) {
    List<String> lines = process.inputReader().lines().toList();
    try {
      if (process.waitFor() != 0) {
        throw new IllegalStateException("process failed: " + String.join(" | ", lines));
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(interrupted);
    }
    return lines;
  }

  static double median(double[] values) {
    double[] sorted = values.clone();
    Arrays.sort(sorted);
    int middle = sorted.length / 2;
    return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  private void write() throws IOException {
    environment.put("loadAtEnd", Environment.load());
    environment.put("seconds", (System.nanoTime() - start) / 1_000_000_000);
    ObjectMapper json = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);
    json.writeValue(directory.resolve("environment.json").toFile(), environment);
    if (!jmh.isEmpty()) {
      ResultFormatFactory.getInstance(
              ResultFormatType.JSON, directory.resolve("jmh.json").toString())
          .writeOut(jmh);
    }
    Summary summary = Summary.of(groups, results, failures);
    json.writeValue(directory.resolve("results.json").toFile(), summary.lines());
    Files.writeString(
        directory.resolve("README.md"),
        summary.markdown(environment, Files.exists(directory.resolve("roofline.svg"))));
    for (Map.Entry<String, String> chart : summary.charts().entrySet()) {
      Files.writeString(directory.resolve(chart.getKey()), chart.getValue());
    }
  }
}
