package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import io.jtrelu.cli.Interrupt;
import io.jtrelu.cli.Progress;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Trains on the emulated CUDA device in many orders of its work. */
@Command(
    name = "orders",
    description = {
      "Train on the emulated CUDA device in many orders that streams, events and graphs allow, and"
          + " compare what each leaves with a run whose work is done at once, bit for bit. The"
          + " device's checkers must find nothing. Needs nvcc, CMake and a C++ compiler."
    },
    sortOptions = false)
final class OrdersCommand implements Callable<Integer> {
  @Option(
      names = "--orders",
      paramLabel = "N",
      defaultValue = "1000",
      description = "Stop after so many orders (${DEFAULT-VALUE}).")
  private int orders;

  @Option(
      names = "--first",
      paramLabel = "N",
      defaultValue = "1",
      description =
          "The first order: 1 is as late as possible, others are seeds (${DEFAULT-VALUE}).")
  private long first;

  @Option(
      names = "--epochs",
      paramLabel = "N",
      defaultValue = "2",
      description = "Epochs of a run, of 6 steps each (${DEFAULT-VALUE}).")
  private int epochs;

  @Option(
      names = "--folder",
      paramLabel = "DIR",
      description = "Where runs are made (the system's folder for temporary files).")
  private @Nullable Path parent;

  @Override
  public Integer call() throws IOException {
    Console console = Endurance.console();
    Optional<String> missing = OrdersTrial.missing();
    if (missing.isPresent()) {
      console.note("skipped: " + missing.get());
      return 0;
    }
    Path folder = Folders.create(parent);
    try (Interrupt interrupt = new Interrupt()) {
      OrdersTrial trial = new OrdersTrial(folder, epochs);
      try (Progress progress = console.progress("orders", 0, orders)) {
        trial.run(
            first,
            orders,
            interrupt::requested,
            now -> progress.update(now.orders(), now.toString()));
      }
      console.print(trial.toString());
      if (!trial.failures().isEmpty()) {
        trial.failures().forEach(console::note);
        console.note("the folders of what failed are in " + folder);
        return 1;
      }
      Folders.remove(folder);
      return 0;
    }
  }
}
