package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.WithLanes;
import io.jtrelu.data.Datasets;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.distributed.SoloCommunicator;
import io.jtrelu.distributed.ThreadRanks;
import io.jtrelu.nn.Networks;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Runs that several ranks share: the ranks are threads here. */
class ShardTrainingTest {
  @TempDir Path folder;

  /** With dropout, augmentation, clipping, and gradients that two passes make. */
  private static TrainingConfig.Builder config(Optimizer.Kind optimizer) {
    return TrainingConfig.builder()
        .epochs(2)
        .batch(8)
        .shards(4)
        .accumulate(2)
        .optimizer(optimizer)
        .learningRate(0.01)
        .weightDecay(1e-2)
        .clipNorm(0.5)
        .cropPadding(1)
        .flip(true)
        .seed(7)
        .kfac(new KfacConfig(0.3, 1e-3, 0.95, 2, 6, false));
  }

  /** Of several slices, with a last one that is not full. */
  private static Run run(TrainingConfig config, Datasets data) {
    Networks.Options network = new Networks.Options("plain:14:32", Networks.Block.V2, 0, 0.2f);
    return Run.of(network, ShapingConfig.DEFAULT, config, data, "bars");
  }

  private static Datasets data() {
    return TrainerTest.data(55, 150); // three steps an epoch; three batches to evaluate
  }

  /** Parameters on each rank after so many steps, saved. */
  private List<float[]> train(int ranks, int steps, Run run, Path to) {
    return ThreadRanks.run(ranks, rank -> train(rank, 1, steps, run, to));
  }

  private static float[] train(Communicator rank, int lanes, int steps, Run run, Path to)
      throws IOException {
    try (Backend backend = WithLanes.of(Backends.open("cpu"), lanes);
        Trainer trainer =
            Files.exists(to.resolve(Trainer.CHECKPOINT))
                ? Trainer.resume(to, data(), backend, rank)
                : Trainer.start(run, data(), backend, to, null, rank)) {
      while (trainer.steps() < steps) {
        trainer.step();
      }
      trainer.save();
      return TrainerTest.parameters(trainer);
    }
  }

  private static void sameFiles(Path expected, Path actual) throws IOException {
    for (String file : List.of(Trainer.CHECKPOINT, Trainer.BEST, Run.FILE)) {
      assertEquals(-1, Files.mismatch(expected.resolve(file), actual.resolve(file)), file);
    }
    Metrics one = Metrics.read(expected.resolve(Trainer.METRICS));
    Metrics other = Metrics.read(actual.resolve(Trainer.METRICS));
    assertEquals(one.steps().size(), other.steps().size());
    for (int i = 0; i < one.steps().size(); i++) {
      assertEquals(one.steps().get(i).loss(), other.steps().get(i).loss());
      assertEquals(one.steps().get(i).accuracy(), other.steps().get(i).accuracy());
      assertEquals(one.steps().get(i).gradientNorm(), other.steps().get(i).gradientNorm());
    }
    for (int i = 0; i < one.epochs().size(); i++) {
      assertEquals(one.epochs().get(i).testLoss(), other.epochs().get(i).testLoss());
      assertEquals(one.epochs().get(i).testAccuracy(), other.epochs().get(i).testAccuracy());
    }
  }

  @ParameterizedTest
  @EnumSource(Optimizer.Kind.class)
  void anyNumberOfRanksGivesTheSameBits(Optimizer.Kind optimizer) throws IOException {
    Run run = run(config(optimizer).build(), data());
    Path alone = folder.resolve("alone");
    float[] expected = train(new SoloCommunicator(), 3, 6, run, alone);
    for (int ranks : new int[] {2, 4}) {
      Path shared = folder.resolve("shared" + ranks);
      for (float[] parameters : train(ranks, 6, run, shared)) {
        assertArrayEquals(expected, parameters);
      }
      sameFiles(alone, shared);
    }
    // Others go on, in mid-epoch and at its end.
    Path changing = folder.resolve("changing");
    train(4, 1, run, changing);
    train(1, 3, run, changing);
    train(2, 5, run, changing);
    assertArrayEquals(expected, train(4, 6, run, changing).getLast());
    sameFiles(alone, changing);
  }

  /** A sample has a row for each place then. */
  @Test
  void soDoExpandedFactors() {
    KfacConfig expanded = new KfacConfig(0.3, 1e-3, 0.95, 2, 6, false, FisherRows.Form.EXPAND);
    Run run = run(config(Optimizer.Kind.KFAC).kfac(expanded).build(), data());
    float[] alone = train(1, 3, run, folder.resolve("alone")).getFirst();
    assertArrayEquals(alone, train(2, 3, run, folder.resolve("shared")).getLast());
  }

  /** The same network learns the same but for rounding; what is added up otherwise differs. */
  @Test
  void shardsChangeRoundingOnly() throws IOException {
    Run shared = run(config(Optimizer.Kind.SGD).build(), data());
    Run whole = run(config(Optimizer.Kind.SGD).shards(0).build(), data());
    float[] one = train(new SoloCommunicator(), 2, 2, shared, folder.resolve("shared"));
    float[] other = train(new SoloCommunicator(), 2, 2, whole, folder.resolve("whole"));
    double most = 0;
    for (int i = 0; i < one.length; i++) {
      most = Math.max(most, Math.abs(one[i] - other[i]));
    }
    assertTrue(most > 0 && most < 1e-5, "differs by " + most);
  }

  /** Another exchange is another run, close to it; alone there is nobody to exchange with. */
  @ParameterizedTest
  @EnumSource(value = GradientExchange.class, names = "TREE", mode = EnumSource.Mode.EXCLUDE)
  void otherExchangesRoundOtherwise(GradientExchange how) throws IOException {
    Run exact = run(config(Optimizer.Kind.SGD).build(), data());
    Run other = run(config(Optimizer.Kind.SGD).exchange(how).build(), data());
    float[] expected = train(new SoloCommunicator(), 1, 3, exact, folder.resolve("exact"));
    float[] alone = train(new SoloCommunicator(), 1, 3, other, folder.resolve("alone"));
    assertArrayEquals(expected, alone);
    List<float[]> shared = train(4, 3, other, folder.resolve("shared"));
    double most = 0;
    double moved = 0;
    for (int i = 0; i < expected.length; i++) {
      most = Math.max(most, Math.abs(expected[i] - shared.getFirst()[i]));
      moved = Math.max(moved, Math.abs(expected[i]));
    }
    for (float[] parameters : shared) {
      assertArrayEquals(shared.getFirst(), parameters);
    }
    assertTrue(most > 0 && most < 1e-3 * moved, how + " differs by " + most);
    assertTrue(other.toJson().contains("\"exchange\" : \"" + how + "\""));
    assertFalse(exact.toJson().contains("\"exchange\""));
    assertEquals(other.training(), Run.read(folder.resolve("shared")).training());
    assertThrows(
        IllegalArgumentException.class,
        () -> config(Optimizer.Kind.SGD).shards(0).exchange(how).build());
  }

  /** Nothing to measure on changes nothing of what is learnt; such a run can be resumed too. */
  @Test
  void theTestSetMayBeEmpty() throws IOException {
    Datasets nothing = Datasets.of(data().train(), data().test().subset());
    Run run = run(config(Optimizer.Kind.ADAM).build(), data());
    float[] expected = train(new SoloCommunicator(), 1, 5, run, folder.resolve("measured"));
    Path to = folder.resolve("not");
    for (int steps : new int[] {3, 5}) {
      List<float[]> parameters =
          ThreadRanks.run(
              2,
              rank -> {
                try (Backend backend = Backends.open("cpu:1");
                    Trainer trainer =
                        steps == 3
                            ? Trainer.start(run, nothing, backend, to, null, rank)
                            : Trainer.resume(to, nothing, backend, rank)) {
                  while (trainer.steps() < steps) {
                    trainer.step();
                  }
                  EpochMetric epoch = Objects.requireNonNull(trainer.lastEpoch());
                  assertTrue(Double.isNaN(epoch.testAccuracy()));
                  return TrainerTest.parameters(trainer);
                }
              });
      if (steps == 5) {
        assertArrayEquals(expected, parameters.getLast());
      }
    }
  }

  @Test
  void whoStopsStopsAll() {
    Run run = run(config(Optimizer.Kind.SGD).build(), data());
    List<Long> steps =
        ThreadRanks.run(
            2,
            rank -> {
              try (Backend backend = Backends.open("cpu:1");
                  Trainer trainer = Trainer.start(run, data(), backend, folder, null, rank)) {
                trainer.step();
                if (rank.rank() == 1) {
                  trainer.stop();
                }
                assertFalse(trainer.train());
                return trainer.steps();
              }
            });
    assertEquals(List.of(1L, 1L), steps);
  }

  /** A rate at which the first step already spoils everything, on all ranks at once. */
  @Test
  void allRanksStopAtAStepThatIsNotFinite() {
    TrainingConfig wild =
        config(Optimizer.Kind.SGD).learningRate(1e5).clipNorm(1e30).warmup(0).build();
    Run run = run(wild, data());
    List<String> messages =
        ThreadRanks.run(
            2,
            rank -> {
              try (Backend backend = Backends.open("cpu:1");
                  Trainer trainer = Trainer.start(run, data(), backend, null, null, rank)) {
                return String.valueOf(
                    assertThrows(NonFiniteException.class, trainer::train).getMessage());
              }
            });
    assertEquals(messages.getFirst(), messages.getLast());
    assertTrue(
        messages.getFirst().contains(" on rank 0. Nothing was updated"), messages.getFirst());
  }

  @Test
  void ranksThatCannotShareARunAreRefused() {
    Datasets data = data();
    Run four = run(config(Optimizer.Kind.SGD).build(), data);
    Run none = run(config(Optimizer.Kind.SGD).shards(0).build(), data);
    assertTrue(refusal(8, four).contains("4 shards cannot be shared out to 8 processes"));
    assertTrue(refusal(2, none).contains("no shards"));
    Run other = run(config(Optimizer.Kind.SGD).seed(8).build(), data);
    List<String> messages =
        ThreadRanks.run(2, rank -> refusal(rank, rank.rank() == 0 ? four : other));
    assertTrue(messages.getLast().contains("ranks 0 and 1 do not have the same run"));
    Exception three =
        assertThrows(
            IllegalArgumentException.class, () -> config(Optimizer.Kind.SGD).shards(3).build());
    assertTrue(String.valueOf(three.getMessage()).contains("shards must be a power of two"));
    assertThrows(
        IllegalArgumentException.class, () -> config(Optimizer.Kind.SGD).microBatch(4).build());
  }

  private static String refusal(int ranks, Run run) {
    return ThreadRanks.run(ranks, rank -> refusal(rank, run)).getFirst();
  }

  private static String refusal(Communicator rank, Run run) throws IOException {
    try (Backend backend = Backends.open("reference")) {
      return String.valueOf(
          assertThrows(
                  IllegalArgumentException.class,
                  () -> Trainer.start(run, data(), backend, null, null, rank))
              .getMessage());
    }
  }

  /** As it was written before there were shards. */
  @Test
  void configurationsWithoutShardsDoNotTellOfThem() {
    Run none = run(config(Optimizer.Kind.SGD).shards(0).build(), data());
    assertFalse(none.toJson().contains("shards"));
    Run four = run(config(Optimizer.Kind.SGD).build(), data());
    assertNotEquals(none.toJson(), four.toJson());
    assertTrue(four.toJson().contains("\"shards\" : 4"), four.toJson());
  }
}
