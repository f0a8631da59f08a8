package io.jtrelu.cli;

import java.io.PrintWriter;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.ValueLayout;

/**
 * Where a command writes: results to standard output, everything else to standard error.
 *
 * @param out results
 * @param err notes and progress
 * @param terminal whether err is shown on a terminal, so that a line can be redrawn
 */
public record Console(PrintWriter out, PrintWriter err, boolean terminal) {
  private static final int STANDARD_ERROR = 2;

  /** A console on the given writers, which are the process's own. */
  static Console of(PrintWriter out, PrintWriter err) {
    return new Console(out, err, isTerminal(STANDARD_ERROR));
  }

  /** A line of the result. */
  public void print(String line) {
    out.println(line);
    out.flush();
  }

  /** A line for people, beside the result. */
  public void note(String line) {
    err.println(line);
    err.flush();
  }

  /**
   * Shows how far a task has come: a bar that is redrawn on a terminal, else a line now and then.
   *
   * @param task a word or two
   * @param steps steps in all
   */
  public Progress progress(String task, long steps) {
    return terminal
        ? new ProgressOnTerminal(this, task, steps)
        : new ProgressInLines(this, task, steps);
  }

  /** Asks the C library: System.console() knows about standard input and output only. */
  private static boolean isTerminal(int descriptor) {
    try {
      Linker linker = Linker.nativeLinker();
      return linker
          .defaultLookup()
          .find("isatty")
          .or(() -> linker.defaultLookup().find("_isatty"))
          .map(
              isatty -> {
                try {
                  return (int)
                          linker
                              .downcallHandle(
                                  isatty,
                                  FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_INT))
                              .invokeExact(descriptor)
                      != 0;
                } catch (Throwable unknown) {
                  return false;
                }
              })
          .orElse(false);
    } catch (UnsupportedOperationException | IllegalCallerException unknown) {
      return false;
    }
  }
}
