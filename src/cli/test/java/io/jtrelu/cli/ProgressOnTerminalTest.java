package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import org.junit.jupiter.api.Test;

class ProgressOnTerminalTest {
  private static final String FIGURES = "epoch 1/6, loss 1.234, accuracy 56.7 %, 640 images/s";

  private static String line(int columns) {
    return ProgressOnTerminal.line(
        "train", 234, 134, 936, Duration.ofSeconds(67), FIGURES, columns);
  }

  /** 134 steps took 67 s, so the 702 that are left take 351 s: restored steps do not count. */
  @Test
  void aWideTerminalShowsAll() {
    String line = line(200);
    assertTrue(line.startsWith("train 25 % \u2595"), line);
    assertTrue(line.endsWith("\u258f 234/936, 1:07, 5:51 left, " + FIGURES), line);
  }

  @Test
  void aNarrowOneLosesTheBarThenFiguresButCutsNone() {
    assertEquals("train 25 % 234/936, 1:07, 5:51 left, epoch 1/6, loss 1.234", line(60));
    assertEquals("train 25 % 234/936, 1:07, 5:51 left", line(40));
    assertEquals("train 25 % 234/936", line(20));
    for (int columns = 20; columns < 200; columns++) {
      String line = line(columns);
      assertTrue(line.length() <= columns, columns + ": " + line);
      String[] parts = line.split("234/936", -1);
      assertTrue((", 1:07, 5:51 left, " + FIGURES).startsWith(parts[1]), line);
      assertTrue(parts[1].isEmpty() || !Character.isDigit(next(parts[1])), line);
    }
  }

  /** What would have followed a text that was cut. */
  private static char next(String part) {
    String all = ", 1:07, 5:51 left, " + FIGURES + " ";
    return all.charAt(part.length());
  }

  @Test
  void theBeginning() {
    assertEquals(
        "train 0 % 0/936, 0:00",
        ProgressOnTerminal.line("train", 0, 0, 936, Duration.ZERO, "", 30));
  }
}
