package io.jtrelu.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** A bar with time spent and left, redrawn in place on standard error. */
final class ProgressOnTerminal implements Progress {
  private final Console console;
  private final ProgressBar bar;

  ProgressOnTerminal(Console console, String task, long steps) {
    this.console = console;
    PrintStream err =
        new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8);
    this.bar =
        new ProgressBarBuilder()
            .setTaskName(task)
            .setInitialMax(steps)
            .setStyle(ProgressBarStyle.COLORFUL_UNICODE_BLOCK)
            .setUpdateIntervalMillis(200)
            .setConsumer(new ConsoleProgressBarConsumer(err))
            .build();
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
