package io.jtrelu.endurance;

import io.jtrelu.cli.Console;
import io.jtrelu.cli.Interrupt;
import io.jtrelu.cli.Main;
import io.jtrelu.cli.Progress;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Trains with a system call that fails, for each call on a file of the run's folder and each {@link
 * Fault}: a run that begins, and one that is resumed. Then the command must have failed with a
 * message that names the file and the cause, the folder must hold the last good checkpoint and no
 * temporary file, and once the fault is gone the run must go on in the same process to what an
 * undisturbed one leaves. A call that does half of its work must pass unnoticed.
 *
 * <p>The program of a process that has {@link FaultLibrary} preloaded.
 */
final class FaultTrial {
  private static final String USAGE = "usage: FaultTrial LIBRARY FOLDER DEVICE STRIDE FAULT...";

  private final FaultLibrary library;
  private final Path folder;
  private final SmallRun run;
  private final Path undisturbed;
  private final Path half;
  private final List<String> failures = new ArrayList<>();

  private long trials;
  private int lost;
  private int silent;
  private int unclear;
  private int different;
  private int leftovers;

  private FaultTrial(FaultLibrary library, Path folder, String device) throws IOException {
    this.library = library;
    this.folder = folder;
    this.run = SmallRun.on(folder.resolve("data"), device, 2, 2);
    this.undisturbed = folder.resolve("undisturbed");
    this.half = folder.resolve("half");
    Outcome whole = train(undisturbed);
    if (whole.code != 0) {
      throw new IOException("training fails even undisturbed: " + whole.said);
    }
    halve();
  }

  /** A run that was stopped in its second epoch. */
  private void halve() throws IOException {
    Files.createDirectories(half);
    // The rest of the arguments is that of the whole run; a fault stops it, as a user would.
    Fault stop = new Fault("write", "EIO", 5, "", false);
    library.arm(half, stop, 0);
    train(half);
    library.disarm();
    long writes = library.seen();
    for (long n = writes - 1; SmallRun.steps(half) != 2; n--) {
      Folders.remove(half);
      library.arm(half, stop, n);
      train(half);
      library.disarm();
    }
  }

  private record Outcome(int code, String said) {}

  private Outcome train(Path out) {
    StringWriter said = new StringWriter();
    PrintWriter writer = new PrintWriter(said);
    int code =
        Main.run(new Console(writer, writer, false), run.arguments(out).toArray(String[]::new));
    return new Outcome(code, said.toString());
  }

  /**
   * Runs the trials.
   *
   * @param arguments library, folder, device, stride (every how many calls fail in turn), faults
   */
  public static void main(String[] arguments) throws IOException {
    if (arguments.length < 5) {
      System.err.println(USAGE);
      System.exit(2);
    }
    List<String> names = List.of(arguments).subList(4, arguments.length);
    List<Fault> faults =
        Fault.ALL.stream().filter(fault -> names.contains(fault.toString())).toList();
    Console console = Endurance.console();
    FaultTrial trial;
    try (Interrupt interrupt = new Interrupt()) {
      trial =
          new FaultTrial(
              new FaultLibrary(Path.of(arguments[0])), Path.of(arguments[1]), arguments[2]);
      trial.run(faults, Long.parseLong(arguments[3]), interrupt, console);
      trial.failures.forEach(console::note);
      console.print(trial.toString());
    }
    System.exit(trial.failures.isEmpty() ? 0 : 1);
  }

  private void run(List<Fault> faults, long stride, Interrupt interrupt, Console console)
      throws IOException {
    List<Case> cases = new ArrayList<>();
    for (Fault fault : faults) {
      for (boolean resumed : new boolean[] {false, true}) {
        Path out = begin(resumed);
        library.arm(out, fault, 0);
        train(out);
        library.disarm();
        for (long n = 1; n <= library.seen(); n += stride) {
          cases.add(new Case(fault, resumed, n));
        }
      }
    }
    long start = System.nanoTime();
    try (Progress progress = console.progress("faults", 0, cases.size())) {
      for (Case next : cases) {
        if (interrupt.requested()) {
          return;
        }
        List<String> wrong = trial(next);
        if (interrupt.requested()) {
          return; // it has stopped the training too
        }
        trials++;
        wrong.forEach(what -> failures.add(next + ": " + what));
        double seconds = (System.nanoTime() - start) * 1e-9;
        progress.update(
            trials, String.format(Locale.ROOT, "%.2f faults/s, %s", trials / seconds, this));
      }
    }
  }

  private record Case(Fault fault, boolean resumed, long number) {
    @Override
    public String toString() {
      return fault + ", call " + number + (resumed ? " of a resumed run" : "");
    }
  }

  private Path begin(boolean resumed) throws IOException {
    Path out = folder.resolve("run");
    Folders.remove(out);
    if (resumed) {
      Folders.copy(half, out);
    }
    return out;
  }

  private List<String> trial(Case now) throws IOException {
    List<String> wrong = new ArrayList<>();
    Fault fault = now.fault;
    Path out = begin(now.resumed);
    long before = SmallRun.steps(out);
    library.arm(out, fault, now.number);
    Outcome outcome = train(out);
    library.disarm();
    if (library.failed() == 0) {
      wrong.add("did not come to it");
      return wrong;
    }
    String where = " (" + out.relativize(library.path()) + ")";
    if (fault.error() == 0) {
      if (outcome.code != 0) {
        unclear++;
        wrong.add("is no failure" + where + ", but: " + outcome.said);
      }
    } else if (outcome.code == 0) {
      silent++;
      wrong.add("passed in silence" + where);
    } else if (!outcome.said.contains(named(library.path()))
        || !outcome.said.contains(fault.said())) {
      unclear++;
      wrong.add("the message names not file and cause" + where + ": " + outcome.said);
    }
    if (Files.exists(out)) {
      List<String> left = SmallRun.leftovers(out);
      if (!left.isEmpty()) {
        leftovers += left.size();
        wrong.add("left " + String.join(", ", left) + where);
      }
    }
    try {
      if (SmallRun.steps(out) < before) {
        throw new IOException("the checkpoint is of step " + SmallRun.steps(out));
      }
    } catch (IOException | RuntimeException damaged) {
      lost++;
      wrong.add("lost its checkpoint of step " + before + where + ": " + damaged);
      return wrong;
    }
    Outcome again = train(out);
    if (again.code != 0) {
      lost++;
      wrong.add("does not go on" + where + ": " + again.said);
      return wrong;
    }
    List<String> differences = SmallRun.differences(out, undisturbed);
    if (!differences.isEmpty()) {
      different++;
      wrong.add("ended otherwise" + where + ": " + String.join(", ", differences));
    }
    List<String> left = SmallRun.leftovers(out);
    if (!left.isEmpty()) {
      leftovers += left.size();
      wrong.add("left at the end " + String.join(", ", left) + where);
    }
    return wrong;
  }

  /** What people know a file by: a temporary one by that which it was to become. */
  private static String named(Path path) {
    return path.toString().replaceFirst("\\.[0-9]+-[0-9a-f]+\\.tmp$", "").replaceFirst("/\\.$", "");
  }

  /** The figures so far. */
  @Override
  public String toString() {
    return trials
        + " faults, "
        + lost
        + " checkpoints lost, "
        + different
        + " runs different, "
        + silent
        + " silent, "
        + unclear
        + " unclear, "
        + leftovers
        + " leftovers";
  }
}
