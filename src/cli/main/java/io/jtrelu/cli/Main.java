package io.jtrelu.cli;

import io.jtrelu.tensor.PrintableText;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.logging.Level;
import java.util.logging.Logger;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.RunLast;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.Spec;
import picocli.CommandLine.TypeConversionException;
import picocli.CommandLine.UnmatchedArgumentException;

/** The program {@code jtrelu}. Failures of all commands become messages and exit codes here. */
@Command(
    name = "jtrelu",
    description = "Train very deep networks without shortcuts or normalisation.",
    mixinStandardHelpOptions = true,
    versionProvider = Main.Version.class,
    sortOptions = false,
    synopsisSubcommandLabel = "COMMAND",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {"0:success", "1:failure", "2:wrong usage"})
public final class Main implements Callable<Integer> {
  /** In the order of the help. */
  private static final List<Class<?>> COMMANDS =
      List.of(
          TrainCommand.class,
          EvaluateCommand.class,
          PredictCommand.class,
          ExportCommand.class,
          ImportCommand.class,
          CompareCommand.class,
          StudyCommand.class,
          ShapeCommand.class,
          DevicesCommand.class);

  /** Held, because the logging system forgets the level of a logger that nobody holds. */
  private static final Logger LOGGER = Logger.getLogger("io.jtrelu");

  @Option(
      names = "--verbose",
      scope = ScopeType.INHERIT,
      description = "Show stack traces, and what is only worth knowing when something is odd.")
  private boolean verbose;

  @Spec private CommandSpec spec;

  private final Console console;

  private Main(Console console) {
    this.console = console;
  }

  /** Runs a command and ends the process with its exit code. */
  public static void main(String[] arguments) {
    System.setProperty("java.util.logging.SimpleFormatter.format", "%4$s: %5$s%6$s%n");
    // Always UTF-8: the figures hold characters that ASCII lacks, whatever the locale says.
    PrintWriter out = new PrintWriter(System.out, false, StandardCharsets.UTF_8);
    PrintWriter err = new PrintWriter(System.err, true, StandardCharsets.UTF_8);
    System.exit(run(Console.of(out, err), arguments));
  }

  /**
   * Runs a command and returns its exit code; whatever fails becomes a message and the code.
   *
   * @param console where it writes
   * @param arguments as on the command line
   */
  public static int run(Console console, String... arguments) {
    Main main = new Main(console);
    CommandLine commands = new CommandLine(main);
    candidates(arguments).forEach(commands::addSubcommand);
    commands
        .setOut(console.out())
        .setErr(console.err())
        .setCaseInsensitiveEnumValuesAllowed(true)
        .registerConverter(Path.class, Main::path)
        .setExecutionStrategy(
            parsed -> {
              LOGGER.setLevel(main.verbose ? Level.ALL : Level.WARNING);
              return new RunLast().execute(parsed);
            })
        .setParameterExceptionHandler((wrong, ignored) -> main.misused(wrong))
        .setExecutionExceptionHandler((failure, command, ignored) -> main.failed(failure));
    for (CommandLine command : commands.getSubcommands().values()) {
      command.getCommandSpec().mixinStandardHelpOptions(true);
    }
    int code;
    try {
      code = commands.execute(arguments);
    } catch (Throwable error) { // errors of the virtual machine pass the handlers above
      code = main.failed(error);
    }
    if (console.out().checkError()) { // a full disk, a reader that has gone
      console.note("error: the result could not be written to standard output");
      code = code == 0 ? CommandLine.ExitCode.SOFTWARE : code;
    }
    console.err().flush();
    return code;
  }

  /** The command that is named, as all others would take longer to prepare than it; else all. */
  private static List<Class<?>> candidates(String... arguments) {
    for (Class<?> command : COMMANDS) {
      if (arguments.length > 0
          && command.getAnnotation(Command.class).name().equals(arguments[0])) {
        return List.of(command);
      }
    }
    return COMMANDS;
  }

  private static Path path(String text) {
    if (text.isBlank()) {
      throw new TypeConversionException("a file or folder has a name; '" + text + "' is none");
    }
    try {
      return Path.of(text);
    } catch (InvalidPathException invalid) {
      throw new TypeConversionException(
          PrintableText.quoted(text) + " is no name of a file or folder: " + invalid.getReason());
    }
  }

  /**
   * Lets a process be silent but for errors, as one of several that do the same.
   *
   * @return where it may write without being seen
   */
  Console silent() {
    LOGGER.setLevel(Level.OFF);
    PrintWriter nowhere = new PrintWriter(Writer.nullWriter());
    return new Console(nowhere, nowhere, false);
  }

  /** Tells a failure, without an end to it. */
  void tell(String prefix, Throwable failure) {
    console.note("error: " + prefix + ErrorMessage.of(failure));
    trace(failure);
  }

  /** The exit code of a failure. */
  static int exitCode(Throwable failure) {
    return failure instanceof UsageException
        ? CommandLine.ExitCode.USAGE
        : CommandLine.ExitCode.SOFTWARE;
  }

  /** Where commands write. */
  Console console() {
    return console;
  }

  /** Called when no command was given. */
  @Override
  public Integer call() {
    throw new ParameterException(spec.commandLine(), "a command is missing");
  }

  private int misused(ParameterException wrong) {
    CommandLine command = wrong.getCommandLine();
    StringBuilder message = new StringBuilder("error: ").append(wrong.getMessage());
    meant(wrong).ifPresent(name -> message.append("; did you mean '").append(name).append("'?"));
    console.note(message.toString());
    console.note("See " + command.getCommandSpec().qualifiedName(" ") + " --help");
    trace(wrong);
    return CommandLine.ExitCode.USAGE;
  }

  private static Optional<String> meant(ParameterException wrong) {
    if (!(wrong instanceof UnmatchedArgumentException unmatched)) {
      return Optional.empty();
    }
    List<String> arguments = unmatched.getUnmatched();
    if (arguments.isEmpty()) {
      return Optional.empty();
    }
    CommandSpec spec = unmatched.getCommandLine().getCommandSpec();
    String name = arguments.getFirst().replaceFirst("=.*", "");
    Collection<String> known =
        name.startsWith("-") ? spec.optionsMap().keySet() : spec.subcommands().keySet();
    return NearestName.of(name, known);
  }

  private int failed(Throwable failure) {
    tell("", failure);
    return exitCode(failure);
  }

  private void trace(Throwable failure) {
    if (verbose) {
      failure.printStackTrace(console.err());
      console.err().flush();
    }
  }

  /** Name and version, from the jar's manifest. */
  static final class Version implements IVersionProvider {
    @Override
    public String[] getVersion() {
      String version = Main.class.getPackage().getImplementationVersion();
      return new String[] {
        "jtrelu " + (version == null ? "(development)" : version),
        "Java " + Runtime.version() + ", " + System.getProperty("os.arch")
      };
    }
  }
}
