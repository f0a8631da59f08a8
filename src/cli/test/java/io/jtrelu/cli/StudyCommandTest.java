package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.train.Metrics;
import io.jtrelu.train.Run;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The command study as a user types it, on a few tiny images. */
class StudyCommandTest {
  @TempDir Path folder;
  private Path data;
  private Path out;
  private final StringWriter results = new StringWriter();
  private final StringWriter notes = new StringWriter();

  @BeforeEach
  void writeData() throws IOException {
    data = Files.createDirectory(folder.resolve("data"));
    out = folder.resolve("study");
    RunCommandsTest.writeData(data, 64); // a batch
  }

  private int run(String... arguments) {
    results.getBuffer().setLength(0);
    notes.getBuffer().setLength(0);
    return Main.run(
        new Console(new PrintWriter(results), new PrintWriter(notes), false), arguments);
  }

  private int optimisers(String... more) {
    String[] fixed = {
      "study", "optimisers", "--data", data.toString(), "--out", out.toString(), "--device", "cpu:2"
    };
    return run(Stream.concat(Stream.of(fixed), Stream.of(more)).toArray(String[]::new));
  }

  /** When each run's figures were last written, by its folder. */
  private Map<Path, Object> runs() throws IOException {
    Map<Path, Object> runs = new TreeMap<>();
    try (Stream<Path> files = Files.walk(out.resolve("runs"))) {
      for (Path file : files.filter(f -> f.endsWith("metrics.jsonl")).toList()) {
        runs.put(out.relativize(file.getParent()), Files.getLastModifiedTime(file));
      }
    }
    return runs;
  }

  @Test
  void tunesEachContenderAndGoesOnWhereItStopped() throws IOException {
    assertEquals(0, optimisers("--epochs", "2", "--rates", "2"), notes.toString());
    assertTrue(notes.toString().contains("4 contenders, 8 runs to make, about"), notes.toString());
    Map<Path, Object> tuned = runs();
    assertEquals(8, tuned.size(), tuned::toString);
    for (String name : List.of("Muon", "K-FAC", "SGD", "Adam")) {
      assertTrue(results.toString().contains("TReLU, plain50, " + name), results.toString());
    }

    assertEquals(0, optimisers("--epochs", "2", "--rates", "2", "--seeds", "2"), notes.toString());
    assertTrue(notes.toString().contains("4 contenders, 4 runs to make, about"), notes.toString());
    Map<Path, Object> all = runs();
    assertEquals(12, all.size(), all::toString);
    tuned.forEach((run, written) -> assertEquals(written, all.get(run), run + " was made again"));
    assertTrue(results.toString().contains("\u00b1"), results.toString());

    // The second seed is of the rate whose training loss was the less.
    for (String optimizer : List.of("muon", "kfac", "sgd", "adam")) {
      Path of = out.resolve("runs").resolve("plain50-tat-leaky_relu-" + optimizer + "-2epochs");
      double best = Double.NaN;
      double least = Double.POSITIVE_INFINITY;
      double second = Double.NaN;
      try (Stream<Path> made = Files.list(of)) {
        for (Path each : made.toList()) {
          TrainingConfig training = Run.read(each).training();
          double loss = Metrics.read(each.resolve("metrics.jsonl")).epochs().getLast().trainLoss();
          if (training.seed() == 2) {
            second = training.learningRate();
          } else if (loss < least) {
            least = loss;
            best = training.learningRate();
          }
        }
      }
      assertEquals(best, second, optimizer);
    }

    String report = Files.readString(out.resolve("report.html"));
    assertTrue(report.contains("their weights are matrices"), "the claim");
    assertTrue(report.contains("By time") && report.contains("<svg"), "charts");
  }

  @Test
  void aRunOfOtherDataIsNotTakenForItsOwn() throws IOException {
    assertEquals(0, optimisers("--epochs", "1", "--rates", "1"), notes.toString());
    Path metrics =
        out.resolve("runs/plain50-tat-leaky_relu-sgd-1epochs/rate0.02-seed1/metrics.jsonl");
    Files.write(metrics, Files.readAllLines(metrics).subList(0, 1)); // as if it had been stopped
    byte[] labels = Files.readAllBytes(data.resolve("train-labels-idx1-ubyte"));
    labels[labels.length - 1] ^= 1;
    Files.write(data.resolve("train-labels-idx1-ubyte"), labels);
    assertEquals(1, optimisers("--epochs", "1", "--rates", "1"));
    assertTrue(notes.toString().contains("another --out"), notes.toString());
  }

  @Test
  void aRunThatDivergedAtOnceIsNotMadeAgain() throws IOException {
    Path adam = out.resolve("runs/plain50-tat-leaky_relu-adam-1epochs/rate0.001-seed1");
    Files.createDirectories(adam);
    Files.writeString(adam.resolve("diverged.txt"), "loss NaN at step 1\n");
    assertEquals(0, optimisers("--epochs", "1", "--rates", "1"), notes.toString());
    assertTrue(notes.toString().contains("4 contenders, 3 runs to make"), notes.toString());
    assertTrue(results.toString().contains("diverged at rate 0.001"), results.toString());
  }

  @Test
  void listsWhatItWouldTrain() {
    assertEquals(0, run("study", "--list", "--full"), notes.toString());
    String text = results.toString();
    for (String name :
        List.of("shortcuts", "methods", "depth", "weights", "optimisers", "solutions")) {
      assertTrue(text.contains(name + ": "), text);
    }
    assertTrue(text.contains("then 3 seeds") && text.contains("each run: 8 epochs"), text);
  }

  @Test
  void wrongUse() {
    assertEquals(2, run("study", "shortcut"));
    assertTrue(notes.toString().contains("shortcuts"), notes.toString());
    assertEquals(2, run("study", "--rates", "6"));
    assertTrue(notes.toString().contains("--rates must lie in 1 to 5"), notes.toString());
    assertFalse(Files.exists(out));
  }
}
