package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.distributed.Launcher.Family;
import io.jtrelu.distributed.Ranks;
import io.jtrelu.distributed.SoloCommunicator;
import io.jtrelu.nn.Network;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Shards on the emulated device: of one process, and of several that the stand-in for NCCL links.
 */
class LinkedTrainingTest {
  private static final Path STANDIN = Path.of("target/native/standins/cuda12").toAbsolutePath();

  @TempDir Path folder;

  private static Ranks.Outcome run(Family family, int count, String... arguments) {
    Assumptions.assumeTrue(
        Files.exists(STANDIN.resolve("libnccl.so.2")), "no stand-in in " + STANDIN);
    return Ranks.of(family, count)
        .run(List.of("-Djtrelu.cuda.libraries=" + STANDIN), LinkedRank.class, arguments);
  }

  private static RecordedShardsTest.Result alone(Backend device, Optimizer.Kind kind) {
    return RecordedShardsTest.train(new SoloCommunicator(), device, kind, true, -1);
  }

  @ParameterizedTest
  @EnumSource
  void stepsOfOneProcessAreThoseOfTheCpu(Optimizer.Kind kind) {
    try (Backend device = new EmulatedSubject().open();
        Backend cpu = Backends.open("reference")) {
      RecordedShardsTest.Result actual = alone(device, kind);
      RecordedShardsTest.Result expected = alone(cpu, kind);
      for (int i = 0; i < expected.figures.size(); i++) {
        assertEquals(expected.figures.get(i).loss(), actual.figures.get(i).loss(), 1e-3);
        assertEquals(expected.figures.get(i).correct(), actual.figures.get(i).correct());
      }
      for (int i = 0; i < expected.parameters.length; i++) {
        assertEquals(expected.parameters[i], actual.parameters[i], 2e-3, "parameter " + i);
      }
    }
  }

  @Test
  void aNetworkThatLooksAtBatchesIsRefused() {
    Network.Builder b = Network.builder("normalized", 4, 4, 2);
    b.linear("logits", b.globalMeanPool("pool", b.batchNorm("n", b.input())), 3);
    Network network = b.build();
    TrainingConfig config = TrainingConfig.builder().batch(8).shards(4).build();
    try (Backend device = EmulatedSubject.inOrder(1)) {
      String refused =
          String.valueOf(
              assertThrows(
                      IllegalArgumentException.class,
                      () -> RankExchange.partition(network, device, config, 1))
                  .getMessage());
      assertTrue(refused.contains("normalises over batches"), refused);
    }
  }

  /** Also that an image that is not finite on one rank stops all, who name it. */
  @ParameterizedTest
  @CsvSource({"OPENMPI, 2", "MPICH, 4"})
  void ranksFulfilTheContractAndGiveTheBitsOfOne(Family family, int count) {
    Map<Optimizer.Kind, RecordedShardsTest.Result> expected = new EnumMap<>(Optimizer.Kind.class);
    try (Backend device = EmulatedSubject.inOrder(1)) {
      for (Optimizer.Kind kind : Optimizer.Kind.values()) {
        expected.put(kind, alone(device, kind));
      }
    }
    String output = run(family, count, "contract").succeeded();
    for (int rank = 0; rank < count; rank++) {
      contains(output, "rank " + rank + " fulfils the contract of NCCL 2\\.9\\.0");
      for (Map.Entry<Optimizer.Kind, RecordedShardsTest.Result> one : expected.entrySet()) {
        String told = LinkedRank.told(rank, one.getKey(), one.getValue());
        int times = one.getKey() == Optimizer.Kind.ADAM ? 2 : 1; // also without overlap
        assertEquals(times, output.split(Pattern.quote(told), -1).length - 1, told + output);
      }
    }
  }

  @Test
  void anotherNumberOfRanksGoesOn() throws Exception {
    Path alone = folder.resolve("alone");
    Path shared = folder.resolve("shared");
    run(Family.OPENMPI, 2, "train", shared.toString(), "4").succeeded();
    try (Backend device = EmulatedSubject.inOrder(1)) {
      LinkedRank.train(new SoloCommunicator(), device, alone, "4");
      same(alone, shared);
      LinkedRank.train(new SoloCommunicator(), device, alone, "6");
      LinkedRank.train(new SoloCommunicator(), device, shared, "6");
    }
    same(alone, shared);
  }

  private static void same(Path expected, Path actual) throws IOException {
    for (String file : List.of(Trainer.CHECKPOINT, Trainer.BEST, Run.FILE)) {
      assertEquals(-1, Files.mismatch(expected.resolve(file), actual.resolve(file)), file);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "leaves, NCCL 2.9.0 reports: remote process exited or there was a network error .rank 2 has gone.",
    "differs, NCCL 2.9.0 reports: invalid usage .rank [012] expects [78] elements of type 7"
  })
  void aRankThatLeavesOrDoesSomethingElseEndsAllAndIsNamed(String how, String told) {
    Ranks.Outcome outcome = run(Family.MPICH, 3, how);
    assertEquals(5, outcome.status(), outcome.output());
    assertTrue(outcome.seconds() < 15, outcome.seconds() + " s");
    contains(outcome.output(), "rank [012] says: rank [012] of 3: " + told);
  }

  @ParameterizedTest
  @EnumSource
  void aRankThatDiesEndsAll(Family family) {
    Ranks.Outcome outcome = run(family, 2, "dies");
    assertEquals(9, outcome.status(), outcome.output());
    assertTrue(outcome.seconds() < 15, outcome.seconds() + " s");
  }

  private static void contains(String text, String pattern) {
    assertTrue(
        Pattern.compile(pattern).matcher(text).find(), () -> pattern + " is not in\n" + text);
  }
}
