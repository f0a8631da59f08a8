package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.WithLanes;
import io.jtrelu.data.Datasets;
import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Training with batch normalisation: statistics are followed, kept, and used afterwards. */
class BatchNormTrainingTest {
  @TempDir Path folder;

  private static Network network() {
    Network.Builder b = Network.builder("normalised", 6, 6, 2);
    int x = b.activation("a0", b.batchNorm("n0", b.convolution("c0", b.input(), 8, 3, 1)));
    int y = b.activation("a1", b.batchNorm("n1", b.convolution("c1", x, 8, 3, 1)));
    y = b.batchNorm("n2", b.convolution("c2", y, 8, 3, 1));
    y = b.activation("a2", b.sum("sum", x, y));
    b.linear("logits", b.globalMeanPool("pool", y), 3);
    return b.build()
        .with(TransformedActivation.rectifier(0, 1), Math.sqrt(2), 0)
        .withGaussianWeights(true);
  }

  private static Run run(Datasets data, TrainingConfig training) {
    return Run.of(Model.of(network(), data.train()), training, data);
  }

  private static TrainingConfig.Builder config(Optimizer.Kind optimizer) {
    return TrainingConfig.builder()
        .epochs(4)
        .batch(6)
        .optimizer(optimizer)
        .learningRate(0.02)
        .momentum(0.9)
        .weightDecay(1e-3)
        .seed(5);
  }

  @ParameterizedTest
  @EnumSource(
      value = Optimizer.Kind.class,
      names = {"SGD", "ADAM"})
  void resumedRunsAreTheSameBitForBitOnAnyLanes(Optimizer.Kind optimizer) throws IOException {
    Datasets data = TrainerTest.data(31, 9);
    Run run = run(data, config(optimizer).accumulate(2).build());
    float[] whole;
    try (Backend backend = WithLanes.of(Backends.open("cpu"), 1);
        Trainer trainer = Trainer.start(run, data, backend, null)) {
      while (!trainer.finished()) {
        trainer.step();
      }
      whole = TrainerTest.parameters(trainer);
    }
    Path parts = folder.resolve("parts");
    try (Backend backend = WithLanes.of(Backends.open("cpu"), 3)) {
      try (Trainer trainer = Trainer.start(run, data, backend, parts)) {
        trainer.step();
        trainer.step();
        trainer.step();
        trainer.save();
      }
      try (Trainer trainer = Trainer.resume(parts, data, backend)) {
        trainer.train();
        assertArrayEquals(whole, TrainerTest.parameters(trainer));
      }
    }
  }

  /** A trained network is the same to evaluation and predictor, and tells the bars apart. */
  @Test
  void learnsAndIsUsedByItsRunningStatistics() throws IOException {
    Datasets data = TrainerTest.data(60, 30);
    Run run = run(data, config(Optimizer.Kind.SGD).epochs(8).build());
    try (Backend backend = Backends.open("cpu")) {
      try (Trainer trainer = Trainer.start(run, data, backend, folder)) {
        trainer.train();
        assertTrue(trainer.lastEpoch().testAccuracy() >= 0.9, "" + trainer.lastEpoch());
      }
      Network network = run.model().network();
      double loss;
      try (Checkpoint checkpoint = Checkpoint.open(folder.resolve(Trainer.CHECKPOINT));
          Parameters parameters = Parameters.allocate(network, backend);
          BatchExecutor executor =
              new BatchExecutor(
                  network, backend, 10, 5, new Program.Options(DataType.F32, 0.1f, false, 1))) {
        Trainer.restoreParameters(checkpoint, backend, parameters);
        executor.load(parameters);
        loss = Evaluation.run(executor, run.model(), data.test(), 10).loss();
      }
      double recorded = Metrics.read(folder.resolve(Trainer.METRICS)).epochs().getLast().testLoss();
      assertEquals(recorded, loss, 1e-5);
      int right = 0;
      try (Predictor predictor = Predictor.open(folder)) {
        for (int i = 0; i < data.test().size(); i++) {
          Prediction prediction = predictor.predict(data.test().image(i));
          right += prediction.name().equals(data.test().classes().get(i % 3)) ? 1 : 0;
        }
      }
      assertTrue(right >= 0.9 * data.test().size(), right + " right");
    }
  }

  /** Statistics of a step that is not finite are not followed. */
  @Test
  void aStepThatIsNotFiniteChangesNothing() throws IOException {
    Datasets data = TrainerTest.data(60, 9);
    TrainingConfig wild =
        config(Optimizer.Kind.SGD)
            .learningRate(9e5)
            .epochs(20)
            .warmup(0)
            .clipNorm(Double.POSITIVE_INFINITY)
            .build();
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(run(data, wild), data, backend, null)) {
      float[] before = TrainerTest.parameters(trainer);
      float[] last = before;
      NonFiniteException bad = null;
      while (bad == null && !trainer.finished()) {
        last = TrainerTest.parameters(trainer);
        try {
          trainer.step();
        } catch (NonFiniteException failure) {
          bad = failure;
        }
      }
      assertTrue(bad != null, "the rate is not wild enough");
      assertArrayEquals(last, TrainerTest.parameters(trainer));
    }
  }

  @Test
  void microBatchesAreRefused() {
    Datasets data = TrainerTest.data(60, 9);
    TrainingConfig micro = config(Optimizer.Kind.SGD).microBatch(3).build();
    try (Backend backend = Backends.open("cpu")) {
      IllegalArgumentException refused =
          assertThrows(
              IllegalArgumentException.class,
              () -> Trainer.start(run(data, micro), data, backend, null).close());
      assertTrue(refused.getMessage().contains("micro-batch"), refused.getMessage());
    }
  }
}
