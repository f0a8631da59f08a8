package io.jtrelu.cli;

import java.io.PrintWriter;

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
   * @param done steps that were done before
   * @param steps steps in all
   */
  public Progress progress(String task, long done, long steps) {
    return terminal
        ? new ProgressOnTerminal(this, task, done, steps)
        : new ProgressInLines(this, task, done, steps);
  }
}
