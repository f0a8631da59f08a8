package io.jtrelu.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Locale;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarConsumer;

/** A bar with time spent and left, redrawn in place on standard error. */
final class ProgressOnTerminal implements Progress {
  private static final int BAR = 20; // columns

  private final Console console;
  private final ProgressBar bar;

  ProgressOnTerminal(Console console, String task, long done, long steps) {
    this.console = console;
    PrintStream err =
        new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8);
    this.bar =
        new ProgressBarBuilder()
            .setTaskName(task)
            .setInitialMax(steps)
            .startsFrom(done, Duration.ZERO)
            .setUpdateIntervalMillis(200)
            .setConsumer(new Line(err))
            .setRenderer(
                (state, columns) ->
                    line(
                        state.getTaskName(),
                        state.getCurrent(),
                        state.getCurrent() - done,
                        state.getMax(),
                        state.getElapsedAfterStart(),
                        state.getExtraMessage(),
                        columns))
            .build();
  }

  /**
   * The last line of a terminal. The library's own consumer asks JLine for the width, whose
   * terminal takes the signals of the process for itself: Ctrl-C would then end a run without
   * saving it.
   */
  private record Line(PrintStream out) implements ProgressBarConsumer {
    @Override
    public int getMaxRenderedLength() {
      return Terminal.columns() - 1; // the cursor stays in the line
    }

    @Override
    public void accept(String text) {
      out.print("\r\u001b[2K" + text);
      out.flush();
    }

    @Override
    public void close() {
      out.println();
    }
  }

  /**
   * {@code train 12 % [===> ] 120/936, 0:10, 1:05 left, FIGURES}. In a narrow terminal the bar goes
   * first, then figures from the last on; no number is cut.
   *
   * @param taken steps since the beginning, from which the rest of the time is guessed
   * @param figures parts with commas between
   */
  static String line(
      String task,
      long step,
      long taken,
      long steps,
      Duration elapsed,
      String figures,
      int columns) {
    double part = steps <= 0 ? 0 : Math.min(1, (double) step / steps);
    String begin = String.format(Locale.ROOT, "%s %d %%", task, Math.round(Math.floor(100 * part)));
    StringBuilder rest = new StringBuilder(" " + step + "/" + steps);
    String pieces = clock(elapsed.toSeconds());
    if (taken > 0 && step <= steps) {
      pieces +=
          ", " + clock(Math.round(elapsed.toMillis() * 1e-3 * (steps - step) / taken)) + " left";
    }
    if (!figures.isBlank()) {
      pieces += ", " + figures;
    }
    String drawn = bar(part);
    int room = columns - begin.length() - rest.length();
    for (String piece : pieces.split(", ", -1)) {
      room -= piece.length() + 2;
      if (room < 0) {
        break;
      }
      rest.append(", ").append(piece);
    }
    String without = begin + rest;
    return without.length() + drawn.length() <= columns ? begin + drawn + rest : without;
  }

  private static String bar(double part) {
    int full = (int) (part * BAR);
    return " \u2595" + "\u2588".repeat(full) + " ".repeat(BAR - full) + "\u258f";
  }

  private static String clock(long seconds) {
    return seconds < 3600
        ? String.format(Locale.ROOT, "%d:%02d", seconds / 60, seconds % 60)
        : String.format(
            Locale.ROOT, "%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }

  @Override
  public void update(long step, String figures) {
    bar.stepTo(step);
    bar.setExtraMessage(figures);
  }

  @Override
  public void line(String text) {
    console.note("\r\u001b[2K" + text); // in place of the bar, which is redrawn below
    bar.refresh();
  }

  @Override
  public void close() {
    bar.close();
  }
}
