package io.jtrelu.cli;

import java.time.Duration;
import java.util.Locale;

/** A line every so often, for logs and pipes. */
final class ProgressInLines implements Progress {
  private static final Duration EVERY = Duration.ofSeconds(10);

  private final Console console;
  private final String task;
  private final long done;
  private final long steps;
  private final long begin = System.nanoTime();
  private long last = begin;

  ProgressInLines(Console console, String task, long done, long steps) {
    this.console = console;
    this.task = task;
    this.done = done;
    this.steps = steps;
  }

  @Override
  public void update(long step, String figures) {
    long now = System.nanoTime();
    if (now - last >= EVERY.toNanos()) {
      last = now;
      console.note(status(step, figures, (now - begin) * 1e-9));
    }
  }

  /** {@code train 120/624, 1:05 left, FIGURES}, the rest taken to go on at the mean pace. */
  String status(long step, String figures, double seconds) {
    String left = "";
    if (step > done && step <= steps) {
      long rest = Math.round(seconds * (steps - step) / (step - done));
      left = String.format(Locale.ROOT, ", %d:%02d left", rest / 60, rest % 60);
    }
    return task + " " + step + "/" + steps + left + ", " + figures;
  }

  @Override
  public void line(String text) {
    console.note(text);
  }

  @Override
  public void close() {}
}
