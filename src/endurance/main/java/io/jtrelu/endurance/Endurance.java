package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
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
    subcommands = {KillCommand.class, FaultsCommand.class, FuzzCommand.class, OrdersCommand.class})
final class Endurance {
  private Endurance() {}

  /** Runs a trial and ends the process with its exit code. */
  public static void main(String[] arguments) {
    CommandSpec spec = CommandSpec.forAnnotatedObject(new Endurance());
    spec.addOption(
        OptionSpec.builder("-h", "--help")
            .usageHelp(true)
            .scopeType(ScopeType.INHERIT)
            .description("Show this help.")
            .build());
    System.exit(new CommandLine(spec).execute(arguments));
  }

  /** The console of the process. */
  static Console console() {
    return Console.of(
        new PrintWriter(System.out, true, StandardCharsets.UTF_8),
        new PrintWriter(System.err, true, StandardCharsets.UTF_8));
  }
}
