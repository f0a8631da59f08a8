package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Damages input, led by the branches that the readers take. */
@Command(
    name = "fuzz",
    description = {
      "Feed the readers of files and arguments damaged input with Jazzer, which is led by the branches"
          + " that they take. Inputs that take new ones are kept in src/endurance/target/fuzz, for the"
          + " next time; so is one that fails."
    },
    sortOptions = false)
final class FuzzCommand implements Callable<Integer> {
  /** From the root of the tree: a folder with inputs for each target. */
  static final Path CORPUS = Path.of("src/endurance/corpus");

  private static final Path KEPT = Path.of("src/endurance/target/fuzz");

  @Parameters(
      arity = "0..*",
      paramLabel = "TARGET",
      description = "${COMPLETION-CANDIDATES} (all, one after the other).")
  private List<Target> targets = new ArrayList<>();

  @Option(
      names = "--executions",
      paramLabel = "N",
      defaultValue = "100000",
      description = "Inputs for each target (${DEFAULT-VALUE}).")
  private long executions;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Seed of the damage (${DEFAULT-VALUE}).")
  private int seed;

  @Option(
      names = "--input",
      paramLabel = "FILE",
      description = "Only this input, such as one that failed.")
  private @Nullable Path input;

  @Override
  public Integer call() throws IOException {
    Console console = Endurance.console();
    List<Target> chosen = targets.isEmpty() ? List.of(Target.values()) : targets;
    List<Target> failed = new ArrayList<>();
    for (Target target : chosen) {
      console.note("fuzz " + target + ": " + (input == null ? executions + " inputs" : input));
      if (ChildJava.run(jazzer(target)) != 0) {
        failed.add(target);
      }
    }
    console.print(
        chosen.size()
            + " targets, "
            + failed.size()
            + " failed"
            + (failed.isEmpty() ? "" : ": ")
            + String.join(", ", failed.stream().map(Target::toString).toList()));
    return failed.isEmpty() ? 0 : 1;
  }

  private ProcessBuilder jazzer(Target target) throws IOException {
    Path kept = Files.createDirectories(KEPT.resolve(target.toString()).resolve("inputs"));
    Path files = Files.createDirectories(KEPT.resolve(target.toString()).resolve("files"));
    List<String> arguments =
        new ArrayList<>(
            List.of(
                "--target_class=" + FuzzTarget.class.getName(),
                "--instrumentation_includes=io.jtrelu.**",
                "--reproducer_path=" + kept.getParent(),
                "-artifact_prefix=" + kept.getParent() + "/",
                "-runs=" + executions,
                "-seed=" + seed,
                "-timeout=20",
                "-max_len=16384",
                "-print_final_stats=1"));
    if (input == null) {
      arguments.add(kept.toString());
      arguments.add(CORPUS.resolve(target.toString()).toString());
    } else {
      arguments.add(input.toString());
    }
    List<String> options =
        List.of(
            "-D" + FuzzTarget.NAME + "=" + target,
            "-D" + FuzzTarget.FOLDER + "=" + files,
            "-Xmx1g");
    return ChildJava.of("com.code_intelligence.jazzer.Jazzer", options, arguments);
  }
}
