package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import io.jtrelu.cli.Interrupt;
import io.jtrelu.cli.Progress;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Kills training, resumes it and compares. */
@Command(
    name = "kill",
    description = {
      "Kill training at random moments (SIGKILL), resume it until it has finished, and compare what it"
          + " leaves with an undisturbed run, bit for bit."
    },
    sortOptions = false)
final class KillCommand implements Callable<Integer> {
  @Option(
      names = "--kills",
      paramLabel = "N",
      defaultValue = "1000",
      description = "Stop after so many kills (${DEFAULT-VALUE}).")
  private int kills;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Seed of the moments (${DEFAULT-VALUE}).")
  private long seed;

  @Option(
      names = "--epochs",
      paramLabel = "N",
      defaultValue = "20",
      description = "Epochs of a run, of 6 steps each (${DEFAULT-VALUE}).")
  private int epochs;

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

  @Override
  public Integer call() throws IOException {
    Console console = Endurance.console();
    Path folder = Folders.create(parent);
    try (Interrupt interrupt = new Interrupt()) {
      KillTrial trial = new KillTrial(folder, device, epochs, seed);
      long begin = System.nanoTime();
      try (Progress progress = console.progress("kill", 0, kills)) {
        trial.run(
            kills,
            interrupt::requested,
            now -> {
              double seconds = (System.nanoTime() - begin) * 1e-9;
              progress.update(
                  now.kills(),
                  String.format(Locale.ROOT, "%.2f kills/s, %s", now.kills() / seconds, now));
            });
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
