package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MetricsTest {
  @TempDir Path folder;
  private Path file;

  @BeforeEach
  void file() {
    file = folder.resolve("metrics.jsonl");
  }

  private static StepMetric step(long step) {
    return new StepMetric(step, 1, 0.1, 2.25, 0.5, 1.5, 812.5, step * 0.125);
  }

  private static EpochMetric epoch(int epoch, long step) {
    return new EpochMetric(epoch, step, 1.5, 0.25, Double.NaN, 0.75, 800, 12);
  }

  @Test
  void aLineIsJson() throws IOException {
    try (MetricsLog log = MetricsLog.create(file)) {
      log.append(step(1));
      log.append(epoch(1, 1));
      // Readable while it is open.
      assertEquals(
          List.of(
              "{\"kind\":\"step\",\"step\":1,\"epoch\":1,\"learningRate\":0.1,\"loss\":2.25,"
                  + "\"accuracy\":0.5,\"gradientNorm\":1.5,\"imagesPerSecond\":812.5,"
                  + "\"seconds\":0.125}",
              "{\"kind\":\"epoch\",\"epoch\":1,\"step\":1,\"trainLoss\":1.5,"
                  + "\"trainAccuracy\":0.25,\"testLoss\":\"NaN\",\"testAccuracy\":0.75,"
                  + "\"imagesPerSecond\":800.0,\"seconds\":12.0}"),
          Files.readAllLines(file));
      assertEquals(new Metrics(List.of(step(1)), List.of(epoch(1, 1))), Metrics.read(file));
    }
  }

  @Test
  void aTornLastLineIsLeftOut() throws IOException {
    String whole = Metrics.line(step(1)) + Metrics.line(step(2));
    Metrics expected = new Metrics(List.of(step(1)), List.of());
    String first = Metrics.line(step(1));
    for (int length = first.length(); length < whole.length(); length++) {
      Files.writeString(file, whole.substring(0, length));
      assertEquals(expected, Metrics.read(file), "cut at " + length);
    }
    Files.writeString(file, first + "\0\0\0\n");
    assertEquals(expected, Metrics.read(file));
  }

  @Test
  void damageBeforeTheEndIsAnErrorThatNamesTheLine() throws IOException {
    for (String damaged :
        List.of("{\"kind\":\"step\"}", "{}", "[1]", "", "{\"kind\":\"other\"}", "\"x", "null")) {
      Files.writeString(file, Metrics.line(step(1)) + damaged + "\n" + Metrics.line(step(3)));
      IOException error = assertThrows(IOException.class, () -> Metrics.read(file), damaged);
      assertTrue(
          String.valueOf(error.getMessage()).contains("metrics.jsonl: line 2 is no metric"),
          error.getMessage());
    }
  }

  @Test
  void resumingCutsWhatCameAfterTheCheckpoint() throws IOException {
    Files.writeString(
        file,
        Metrics.line(step(1))
            + Metrics.line(step(2))
            + Metrics.line(epoch(1, 2))
            + Metrics.line(step(3))
            + Metrics.line(epoch(2, 4))
            + "{\"kind\":\"st");
    List<String> notes = new ArrayList<>();
    try (MetricsLog log = MetricsLog.resume(file, 2, notes)) {
      log.append(step(3));
    }
    assertEquals(
        new Metrics(List.of(step(1), step(2), step(3)), List.of(epoch(1, 2))), Metrics.read(file));
    assertEquals(List.of(), notes, "a torn last line is nothing to speak of");
  }

  @Test
  void creatingReplacesAnOldFile() throws IOException {
    Files.writeString(file, "old\nold\n");
    MetricsLog.create(file).close();
    assertEquals(0, Files.size(file));
    Files.writeString(file, Metrics.line(step(1)), StandardOpenOption.APPEND);
    assertEquals(1, Metrics.read(file).steps().size());
  }
}
