package io.jtrelu.djl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.MalformedModelException;
import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.training.GradientCollector;
import ai.djl.training.ParameterStore;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Values and gradients of the engine against the functions in binary64. */
class ShapedActivationTest {
  /** Both signs, the middle, and tails; not 0, where engines choose the side of a corner. */
  private static final float[] POINTS = {
    -30, -8, -3.5f, -2, -1.25f, -0.6f, -0.1f, -1e-3f, 1e-3f, 0.1f, 0.7f, 1, 2.2f, 4, 9, 30
  };

  @ParameterizedTest
  @EnumSource(Activation.class)
  void valuesAndGradientsAreThoseOfTheFunction(Activation function) {
    compare(TransformedActivation.unchanged(function));
    double slope = function == Activation.LEAKY_RELU ? 0.37 : 0;
    compare(new TransformedActivation(function, 0.8, 0.3, 1.7, -0.2, slope));
  }

  private static void compare(TransformedActivation expected) {
    compare(expected, new ShapedActivation(expected));
  }

  private static void compare(TransformedActivation expected, ShapedActivation block) {
    try (NDManager manager = NDManager.newBaseManager();
        GradientCollector collector = Engine.getInstance().newGradientCollector()) {
      NDArray x = manager.create(POINTS);
      x.setRequiresGradient(true);
      NDArray y = block.apply(x);
      collector.backward(y.sum());
      float[] values = y.toFloatArray();
      float[] slopes = x.getGradient().toFloatArray();
      for (int i = 0; i < POINTS.length; i++) {
        near(expected, POINTS[i], expected.value(POINTS[i]), values[i]);
        near(expected, POINTS[i], expected.derivative(POINTS[i]), slopes[i]);
      }
    }
  }

  private static void near(TransformedActivation f, float x, double expected, float actual) {
    // Sums inside a function round against its largest term, which is of the size of x.
    double scale = Math.max(1, f.function() == Activation.SQUARE ? x * x : Math.abs(x));
    boolean close = Math.abs(actual - expected) <= 2e-6 * scale;
    assertTrue(close, () -> f + " at " + x + ": " + expected + " expected, got " + actual);
  }

  @Test
  void aFunctionOfTheCallersIsComputedByHisOperations() {
    ActivationFunction sine = ActivationFunction.derived("sine", x -> x.sin());
    ShapedActivation block = new ShapedActivation(sine, NDArray::sin);
    block.set(new TransformedActivation(sine, 0.5, 0.25, 2, 1, 0));
    compare(block.activation(), block);
    assertThrows(
        IllegalArgumentException.class,
        () -> new ShapedActivation(TransformedActivation.unchanged(sine)));
  }

  /** DJL's array.mul(number) leaves PyTorch a buffer that Java frees; ours must not. */
  @Test
  void gradientsSurviveTheGarbageCollector() {
    var f = new TransformedActivation(Activation.GELU_EXACT, 0.8, 0.3, 1.7, -0.2, 0);
    NormalizedSum sum =
        new NormalizedSum(0.6, new ShapedActivation(f), ai.djl.nn.Blocks.identityBlock());
    try (NDManager manager = NDManager.newBaseManager();
        GradientCollector collector = Engine.getInstance().newGradientCollector()) {
      ParameterStore store = new ParameterStore(manager, false);
      for (int i = 0; i < 20; i++) {
        NDArray x = manager.create(POINTS);
        x.setRequiresGradient(true);
        NDArray y = sum.forward(store, new NDList(x), true).singletonOrThrow();
        System.gc();
        for (int k = 0; k < 1000; k++) { // takes the places of what was freed
          ByteBuffer.allocateDirect(Float.BYTES).putInt(0, Integer.MAX_VALUE);
        }
        collector.backward(y.sum());
        float[] slopes = x.getGradient().toFloatArray();
        for (int p = 0; p < POINTS.length; p++) {
          double expected = 0.6 * f.derivative(POINTS[p]) + 0.8;
          near(f, POINTS[p], expected, slopes[p]);
        }
      }
    }
  }

  @Test
  void theInputKeepsItsValuesAndTheResultItsType() {
    try (NDManager manager = NDManager.newBaseManager()) {
      NDArray x = manager.create(POINTS);
      NDArray half = x.toType(DataType.FLOAT16, true);
      var activation = new ShapedActivation(TransformedActivation.rectifier(0.4, 1.3));
      assertEquals(DataType.FLOAT16, activation.apply(half).getDataType());
      activation.apply(x);
      for (Activation function : Activation.values()) {
        new ShapedActivation(function).apply(x);
      }
      assertEquals(manager.create(POINTS), x);
    }
  }

  @Test
  void constantsAreSavedAndLoaded() throws IOException, MalformedModelException {
    var saved = new TransformedActivation(Activation.TANH, 0.8, 0.3, 1.7, -0.2, 0);
    ShapedActivation block = new ShapedActivation(saved);
    try (NDManager manager = NDManager.newBaseManager()) {
      block.initialize(manager, DataType.FLOAT32, new Shape(2, 3));
      byte[] bytes = saved(block);
      ShapedActivation loaded = new ShapedActivation(Activation.TANH);
      loaded.loadParameters(manager, new DataInputStream(new ByteArrayInputStream(bytes)));
      assertEquals(saved, loaded.activation());
      ShapedActivation other = new ShapedActivation(Activation.SOFTPLUS);
      Exception refused =
          assertThrows(
              MalformedModelException.class,
              () ->
                  other.loadParameters(
                      manager, new DataInputStream(new ByteArrayInputStream(bytes))));
      assertTrue(String.valueOf(refused.getMessage()).contains("tanh"));
    }
  }

  private static byte[] saved(ShapedActivation block) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    block.saveParameters(new DataOutputStream(bytes));
    return bytes.toByteArray();
  }

  @Test
  void anotherFunctionIsRefused() {
    ShapedActivation block = new ShapedActivation(Activation.TANH);
    TransformedActivation other = TransformedActivation.unchanged(Activation.SOFTPLUS);
    assertThrows(IllegalArgumentException.class, () -> block.set(other));
  }
}
