package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.distributed.Launcher.Family;
import io.jtrelu.distributed.Ranks;
import io.jtrelu.train.GradientExchange;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Run;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code jtrelu train --shards} as a launcher starts it, in processes of its own. */
class SharedRunTest {
  @TempDir Path folder;
  private Path data;

  @BeforeEach
  void writeData() throws IOException {
    data = Files.createDirectory(folder.resolve("data"));
    RunCommandsTest.writeData(data, 40);
  }

  /** With dropout and augmentation. */
  private String[] train(Path out, String optimizer, int epochs, int shards, String... more) {
    List<String> arguments =
        new ArrayList<>(
            List.of("train", "--network", "plain:14:20", "--dropout", "0.2", "--random-crop", "1"));
    arguments.addAll(List.of("--flip", "--data", data.toString(), "--batch", "16"));
    arguments.addAll(List.of("--device", "cpu:1", "--optimizer", optimizer));
    arguments.addAll(List.of("--epochs", String.valueOf(epochs), "--out", out.toString()));
    arguments.addAll(List.of("--shards", String.valueOf(shards)));
    arguments.addAll(List.of(more));
    return arguments.toArray(String[]::new);
  }

  private static void alone(String... arguments) {
    PrintWriter nowhere = new PrintWriter(Writer.nullWriter());
    assertEquals(0, Main.run(new Console(nowhere, nowhere, false), arguments));
  }

  private static void same(Path expected, Path actual) throws IOException {
    for (String file : List.of(Trainer.CHECKPOINT, Trainer.BEST, "config.json")) {
      assertEquals(-1, Files.mismatch(expected.resolve(file), actual.resolve(file)), file);
    }
    assertEquals(losses(expected), losses(actual));
  }

  private static List<Double> losses(Path run) throws IOException {
    return Metrics.read(run.resolve(Trainer.METRICS)).steps().stream()
        .map(StepMetric::loss)
        .toList();
  }

  private static long count(String text, String part) {
    return text.lines().filter(line -> line.contains(part)).count();
  }

  @ParameterizedTest
  @CsvSource({"SGD, OPENMPI", "SGD, MPICH", "ADAM, OPENMPI", "ADAM, MPICH"})
  void processesGiveTheBitsOfOne(String optimizer, Family family) throws IOException {
    Path expected = folder.resolve("alone");
    alone(train(expected, optimizer, 2, 4));
    for (int count : new int[] {2, 4}) {
      Path shared = folder.resolve("shared" + count);
      String output =
          Ranks.of(family, count).run(Main.class, train(shared, optimizer, 2, 4)).succeeded();
      same(expected, shared);
      assertTrue(Files.exists(shared.resolve(TrainCommand.REPORT)));
      assertEquals(1, count(output, "shared by " + count + " processes, by " + family.title()));
      assertEquals(1, count(output, "report: ")); // one speaks
    }
  }

  @ParameterizedTest
  @CsvSource({"--reduction, library, OPENMPI", "--gradients, BF16, MPICH"})
  void otherExchangesArePartOfTheRun(String option, String value, Family family)
      throws IOException {
    Path out = folder.resolve("out");
    String output =
        Ranks.of(family, 2).run(Main.class, train(out, "SGD", 1, 4, option, value)).succeeded();
    assertTrue(output.contains("shared by 2 processes"), output);
    GradientExchange how = Run.read(out).training().exchange();
    assertTrue(how.name().equalsIgnoreCase(value), how.name());
  }

  @Test
  void exchangesThatMakeNoSenseAreRefused() {
    refused("no effect with --reduction library", 4, "--gradients=bf16", "--reduction=library");
    refused("f32 or bf16, got F16", 4, "--gradients=f16");
    refused("must be tree in a run without shards", 0, "--reduction=library");
    refused("must be tree in a run without shards", 0, "--gradients=bf16");
  }

  private void refused(String why, int shards, String... more) {
    StringWriter notes = new StringWriter();
    PrintWriter to = new PrintWriter(notes);
    String[] arguments = train(folder.resolve("none"), "SGD", 1, shards, more);
    assertEquals(2, Main.run(new Console(to, to, false), arguments));
    assertTrue(notes.toString().contains(why), notes::toString);
  }

  /** A rank of four dies in the second epoch; two go on. */
  @Test
  void aRunOfWhichARankWasKilledGoesOnWithFewer() throws IOException {
    Path expected = folder.resolve("alone");
    alone(train(expected, "ADAM", 5, 4));
    Path killed = folder.resolve("killed");
    Ranks.Outcome outcome =
        Ranks.of(Family.MPICH, 4).run(MortalRank.class, train(killed, "ADAM", 5, 4));
    assertEquals(MortalRank.STATUS, outcome.status(), outcome.output());
    assertNotEquals(
        -1,
        Files.mismatch(expected.resolve(Trainer.CHECKPOINT), killed.resolve(Trainer.CHECKPOINT)));
    Ranks.of(Family.MPICH, 2)
        .run(Main.class, "train", "--resume", killed.toString(), "--device", "cpu:1")
        .succeeded();
    same(expected, killed);
  }

  @Test
  void whatFailsOnAllRanksIsToldOnce() {
    String[] wild = {"--learning-rate", "9e5", "--clip-norm", "1e30", "--warmup", "0"};
    Ranks.Outcome outcome =
        Ranks.of(Family.MPICH, 2).run(Main.class, train(folder.resolve("wild"), "SGD", 2, 2, wild));
    assertEquals(1, outcome.status());
    assertEquals(1, count(outcome.output(), "error: rank 0 of 2: step "), outcome.output());
    assertEquals(0, count(outcome.output(), "rank 1 of 2"), outcome.output());
  }

  @Test
  void aRankThatCannotWriteEndsAll() throws IOException {
    Path taken = Files.createFile(folder.resolve("taken"));
    Ranks.Outcome outcome =
        Ranks.of(Family.OPENMPI, 2).run(Main.class, train(taken.resolve("run"), "SGD", 2, 4));
    assertEquals(1, outcome.status(), outcome.output());
    assertEquals(1, count(outcome.output(), "error: rank 0 of 2: "), outcome.output());
    assertTrue(outcome.output().contains("taken"), outcome.output());
  }

  @Test
  void runsThatCannotBeSharedAreRefused() {
    Path out = folder.resolve("out");
    Ranks.Outcome none = Ranks.of(Family.MPICH, 2).run(Main.class, train(out, "SGD", 2, 0));
    assertEquals(1, none.status(), none.output());
    assertTrue(none.output().contains("2 processes cannot share this run"), none.output());
    Ranks.Outcome compare = Ranks.of(Family.MPICH, 2).run(Main.class, "compare");
    assertEquals(2, compare.status(), compare.output());
    assertTrue(compare.output().contains("jtrelu compare is for one"), compare.output());
  }
}
