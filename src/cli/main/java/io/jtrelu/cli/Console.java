package io.jtrelu.cli;

import io.jtrelu.tensor.PrintableText;
import java.io.PrintWriter;
import java.util.stream.Collectors;

/**
 * Where a command writes: results to standard output, everything else to standard error.
 *
 * @param out results
 * @param err notes and progress
 * @param terminal whether err is shown on a terminal, so that a line can be redrawn
 */
public record Console(PrintWriter out, PrintWriter err, boolean terminal) {
  /** A console on the given writers, which are the process's own. */
  public static Console of(PrintWriter out, PrintWriter err) {
    return new Console(out, err, Terminal.isShown());
  }

  /** A line of the result, or several; see {@link #safe}. */
  public void print(String text) {
    out.println(safe(text));
    out.flush();
  }

  /** A line for people, beside the result, or several; see {@link #safe}. */
  public void note(String text) {
    err.println(safe(text));
    err.flush();
  }

  /**
   * Names of classes, tensors and files come from files of others: what would steer a terminal is
   * spelt out here, once for all that is shown. (In JSON strings the spelling means the same.)
   */
  private static String safe(String text) {
    return text.lines().map(PrintableText::of).collect(Collectors.joining("\n"));
  }

  /**
   * Shows how far a task has come: a bar that is redrawn on a terminal, else a line now and then.
   *
   * @param task a word or two
   * @param done steps that were done before
   * @param steps steps in all
   */
  public Progress progress(String task, long done, long steps) {
    return terminal
        ? new ProgressOnTerminal(this, task, done, steps)
        : new ProgressInLines(this, task, done, steps);
  }
}
