package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Makes system calls of training fail, one after the other. */
@Command(
    name = "faults",
    description = {
      "Make each open, write, fsync and rename of a training run fail in turn (a broken disk, a full"
          + " one, half a write), and look at the message, at what is left, and at how the run goes"
          + " on. Linux with a C compiler."
    },
    sortOptions = false)
final class FaultsCommand implements Callable<Integer> {
  /** From the root of the tree. */
  static final Path SOURCE = Path.of("src/endurance/native/faults.c");

  @Option(
      names = "--fault",
      paramLabel = "CALL:ERROR",
      description = "Only this one, such as write:ENOSPC; may be repeated (all).")
  private List<String> faults = new ArrayList<>();

  @Option(
      names = "--every",
      paramLabel = "N",
      defaultValue = "1",
      description = "Let every Nth call fail (${DEFAULT-VALUE}).")
  private long every;

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "cpu",
      description = "As jtrelu train takes it (${DEFAULT-VALUE}).")
  private String device;

  @Option(
      names = "--folder",
      paramLabel = "DIR",
      description = "Where runs are made (the system's folder for temporary files).")
  private @Nullable Path parent;

  @Spec private picocli.CommandLine.Model.CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    List<String> known = Fault.ALL.stream().map(Fault::toString).toList();
    for (String fault : faults) {
      if (!known.contains(fault)) {
        throw new ParameterException(
            spec.commandLine(), "no fault '" + fault + "'; there are " + String.join(", ", known));
      }
    }
    if (every < 1) {
      throw new ParameterException(spec.commandLine(), "--every must be 1 or more, got " + every);
    }
    Console console = Endurance.console();
    Optional<String> missing = FaultLibrary.missing();
    if (missing.isPresent()) {
      console.note("skipped: " + missing.get());
      return 0;
    }
    Path folder = Folders.create(parent);
    int code = ChildJava.run(child(folder, device, every, faults.isEmpty() ? known : faults));
    Folders.remove(folder);
    return code;
  }

  /**
   * The process that tries them.
   *
   * @param folder for its files, with the library
   */
  static ProcessBuilder child(Path folder, String device, long every, List<String> faults)
      throws IOException {
    Path library = FaultLibrary.compile(SOURCE, folder);
    List<String> arguments = new ArrayList<>(List.of(library.toString(), folder.toString()));
    arguments.addAll(List.of(device, "" + every));
    arguments.addAll(faults);
    ProcessBuilder builder = ChildJava.of(FaultTrial.class.getName(), List.of("-Xmx1g"), arguments);
    builder.environment().put("LD_PRELOAD", library.toString());
    return builder;
  }
}
