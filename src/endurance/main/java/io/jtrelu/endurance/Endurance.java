package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ScopeType;

/** The program {@code src/endurance/run}. */
@Command(
    name = "src/endurance/run",
    description = {
      "Trials of endurance, outside CI.",
      "Ctrl-C ends one with the figures so far. A short form of each runs in mvn verify."
    },
    sortOptions = false,
    synopsisSubcommandLabel = "TRIAL",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {"0:no failure", "1:a failure, which is told", "2:wrong usage"},
    subcommands = {KillCommand.class, FaultsCommand.class, FuzzCommand.class})
final class Endurance {
  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      scope = ScopeType.INHERIT,
      description = "Show this help.")
  @SuppressWarnings("UnusedVariable") // picocli acts on it
  private boolean help;

  private Endurance() {}

  /** Runs a trial and ends the process with its exit code. */
  public static void main(String[] arguments) {
    System.exit(new CommandLine(new Endurance()).execute(arguments));
  }

  /** The console of the process. */
  static Console console() {
    return Console.of(
        new PrintWriter(System.out, true, StandardCharsets.UTF_8),
        new PrintWriter(System.err, true, StandardCharsets.UTF_8));
  }
}
