package io.jtrelu.djl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.Device;
import ai.djl.Model;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.Parameter;
import ai.djl.nn.core.Linear;
import ai.djl.training.DefaultTrainingConfig;
import ai.djl.training.GradientCollector;
import ai.djl.training.Trainer;
import ai.djl.training.initializer.Initializer;
import ai.djl.training.loss.Loss;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;
import org.junit.jupiter.api.Test;

class ClippingTrainerTest {

  private static DefaultTrainingConfig config(float clip) {
    return new DefaultTrainingConfig(Loss.l2Loss())
        .optInitializer(Initializer.ZEROS, Parameter.Type.WEIGHT)
        .optDevices(new Device[] {Device.cpu()})
        .optOptimizer(
            Optimizer.sgd().setLearningRateTracker(Tracker.fixed(1)).optClipGrad(clip).build());
  }

  /** Weights after a step from zero with the gradient (3, -4, 0) * factor. */
  private static float[] step(double norm, float factor, float clip) {
    Block linear = Linear.builder().setUnits(1).optBias(false).build();
    try (Model model = Model.newInstance("linear")) {
      model.setBlock(linear);
      try (Trainer trainer = new ClippingTrainer(model, config(clip), norm)) {
        trainer.initialize(new Shape(1, 3));
        NDArray x = trainer.getManager().create(new float[] {3, -4, 0}, new Shape(1, 3));
        try (GradientCollector collector = trainer.newGradientCollector()) {
          collector.backward(trainer.forward(new NDList(x)).singletonOrThrow().mul(factor));
        }
        trainer.step();
      }
      return linear.getParameters().get(0).getValue().getArray().toFloatArray();
    }
  }

  @Test
  void longGradientsAreScaledAndShortOnesAreNot() {
    assertArrayEquals(new float[] {-0.6f, 0.8f, 0}, step(1, 10, -1), 1e-6f);
    assertArrayEquals(new float[] {-3, 4, 0}, step(6, 1, -1), 1e-6f);
    assertArrayEquals(new float[] {-30, 40, 0}, step(Double.POSITIVE_INFINITY, 10, -1), 1e-4f);
  }

  @Test
  void optClipGradOfDjlClipsOneSideOnly() {
    // What the documentation warns of: the gradient is (3, -4, 0), its first element alone is cut.
    assertArrayEquals(new float[] {-1, 4, 0}, step(Double.POSITIVE_INFINITY, 1, 1), 1e-6f);
  }

  @Test
  void aGradientThatIsNotFiniteIsRefused() {
    Exception refused = assertThrows(IllegalStateException.class, () -> step(1, Float.NaN, -1));
    assertTrue(String.valueOf(refused.getMessage()).contains("weight"), refused.getMessage());
  }

  @Test
  void wrongConfigurationsAreRefused() {
    try (Model model = Model.newInstance("linear")) {
      assertThrows(IllegalStateException.class, () -> new ClippingTrainer(model, config(-1), 1));
      model.setBlock(Linear.builder().setUnits(1).build());
      assertThrows(
          IllegalArgumentException.class, () -> new ClippingTrainer(model, config(-1), Double.NaN));
      DefaultTrainingConfig two = config(-1).optDevices(new Device[] {Device.cpu(), Device.gpu(0)});
      assertThrows(IllegalArgumentException.class, () -> new ClippingTrainer(model, two, 1));
      assertEquals(0, model.getNDManager().getManagedArrays().size());
    }
  }
}
