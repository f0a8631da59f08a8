package io.jtrelu.dl4j;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.stream.DoubleStream;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.layers.BaseLayer;
import org.deeplearning4j.nn.conf.layers.DenseLayer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.nd4j.linalg.activations.IActivation;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;

/** Against the functions of jtrelu-shaping, which are written in plain Java. */
class ActivationsTest {
  /** Arguments: a grid, and values at which careless forms overflow or cancel. */
  private static final double[] POINTS =
      DoubleStream.concat(
              DoubleStream.iterate(-6, x -> x <= 6, x -> x + 0.171),
              DoubleStream.of(
                  -1e6, -1e4, -120, -90, -40, -25, -15, -9, -1e-3, -1e-6, 1e-6, 1e-3, 9, 15, 25, 40,
                  90, 120, 1e4, 1e6))
          .toArray();

  private static TransformedActivation shaped(ActivationFunction function) {
    return new TransformedActivation(function, 0.75, 0.3125, 1.5, -0.25, 0.375);
  }

  @ParameterizedTest
  @EnumSource
  void functionsEqualPlainJava(Activation function) {
    check(TransformedActivation.unchanged(function), DataType.DOUBLE, 1e-13);
    check(shaped(function), DataType.DOUBLE, 1e-13);
    check(TransformedActivation.unchanged(function), DataType.FLOAT, 4e-7);
    check(shaped(function), DataType.FLOAT, 4e-7);
  }

  private static void check(TransformedActivation expected, DataType type, double bound) {
    ActivationShaped activation = new ActivationShaped(expected);
    INDArray x = Nd4j.createFromArray(POINTS).castTo(type);
    INDArray y = activation.getActivation(x.dup(), true);
    INDArray epsilon = Nd4j.valueArrayOf(new long[] {POINTS.length}, -2.0, type);
    INDArray gradient = activation.backprop(x.dup(), epsilon).getFirst();
    assertEquals(type, y.dataType());
    assertEquals(type, gradient.dataType());
    for (int i = 0; i < POINTS.length; i++) {
      double at = x.getDouble(i);
      // What the rounding of the input's transformation alone does.
      double input = 1 + Math.abs(expected.inputScale() * at + expected.inputShift());
      double slope = Math.abs(expected.derivative(at));
      double value = expected.value(at);
      double valueBound = bound * (2 + Math.abs(value) + slope * input);
      assertTrue(
          Math.abs(y.getDouble(i) - value) <= valueBound,
          () -> expected + " at " + at + " in " + type + ": " + value + " became " + y);
      double derivative = expected.derivative(at);
      double curvature = Math.abs(expected.secondDerivative(at));
      double derivativeBound = 2 * bound * (2 + Math.abs(derivative) + curvature * input);
      double got = gradient.getDouble(i) / -2;
      assertTrue(
          Math.abs(got - derivative) <= derivativeBound,
          () -> expected + "' at " + at + " in " + type + ": " + derivative + " became " + got);
    }
  }

  /** As ND4J's own equality allows 1e-5. */
  private static void assertExact(INDArray expected, INDArray actual) {
    assertTrue(expected.equalsWithEps(actual, 0), () -> expected + " became " + actual);
  }

  @Test
  void rectifierIsExact() {
    ActivationTReLU rectifier = new ActivationTReLU(0.5, 1.25);
    INDArray x = Nd4j.createFromArray(-2f, -0f, 0f, 3f);
    assertExact(
        Nd4j.createFromArray(-1.25f, 0f, 0f, 3.75f), rectifier.getActivation(x.dup(), false));
    // At zero the slope: PyTorch's leaky_relu(0) has the gradient of the left side.
    assertExact(
        Nd4j.createFromArray(0.625f, 1.25f, 1.875f, 5f),
        rectifier.backprop(x.dup(), Nd4j.createFromArray(1f, 2f, 3f, 4f)).getFirst());
  }

  @Test
  void tailoredScaleKeepsTheMeanSquare() {
    ActivationTReLU rectifier = new ActivationTReLU(0.4);
    assertEquals(Math.sqrt(2 / 1.16), rectifier.scale(), 1e-15);
    assertInstanceOf(
        ActivationTReLU.class,
        ActivationShaped.of(TransformedActivation.rectifier(0.4, rectifier.scale())));
    assertInstanceOf(
        ActivationShaped.class,
        ActivationShaped.of(TransformedActivation.unchanged(Activation.GELU)));
  }

  @ParameterizedTest
  @EnumSource(names = {"LEAKY_RELU", "RELU"})
  void kinkHasTheDerivativeFromTheLeft(Activation function) {
    TransformedActivation kinked = new TransformedActivation(function, 1, -1, 1, 0, 0.375);
    INDArray at = Nd4j.createFromArray(1f);
    INDArray gradient =
        new ActivationShaped(kinked).backprop(at, Nd4j.createFromArray(1f)).getFirst();
    assertEquals(function == Activation.RELU ? 0 : 0.375, gradient.getDouble(0));
  }

  @ParameterizedTest
  @EnumSource
  void viewsInAnyOrderAreOverwrittenInPlace(Activation function) {
    IActivation activation = new ActivationShaped(shaped(function));
    INDArray images = Nd4j.rand(DataType.FLOAT, 2, 3, 4, 5).subi(0.5);
    INDArray expected = activation.getActivation(images.dup('c'), true).dup('c');
    INDArray slopes =
        activation.backprop(images.dup('c'), Nd4j.onesLike(images)).getFirst().dup('c');
    INDArray view = images.dup('c').permute(0, 2, 3, 1);
    assertSame(view, activation.getActivation(view, true));
    assertExact(expected, view.permute(0, 3, 1, 2).dup('c'));
    INDArray again = images.dup('c').permute(0, 2, 3, 1);
    activation.backprop(again, Nd4j.onesLike(images).permute(0, 2, 3, 1));
    assertExact(slopes, again.permute(0, 3, 1, 2).dup('c'));
  }

  @Test
  void configurationsKeepThemInJson() {
    IActivation rectifier = new ActivationTReLU(0.4259071912345678, 1.2345678901234567);
    IActivation smooth = new ActivationShaped(shaped(Activation.SOFTPLUS));
    MultiLayerConfiguration written =
        new NeuralNetConfiguration.Builder()
            .list()
            .layer(new DenseLayer.Builder().nIn(2).nOut(3).activation(rectifier).build())
            .layer(
                new DenseLayer.Builder()
                    .nOut(3)
                    .activation(smooth)
                    .weightInit(new WeightInitDelta(1.125))
                    .build())
            .build();
    MultiLayerConfiguration read = MultiLayerConfiguration.fromJson(written.toJson());
    assertEquals(rectifier, ((BaseLayer) read.getConf(0).getLayer()).getActivationFn());
    assertEquals(smooth, ((BaseLayer) read.getConf(1).getLayer()).getActivationFn());
    assertEquals(
        new WeightInitDelta(1.125), ((BaseLayer) read.getConf(1).getLayer()).getWeightInitFn());
    assertEquals(written, read);
    assertThrows(
        RuntimeException.class,
        () -> MultiLayerConfiguration.fromJson(written.toJson().replace("softplus", "softminus")));
  }

  @Test
  void badParametersAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> new ActivationTReLU(1.5));
    assertThrows(IllegalArgumentException.class, () -> new ActivationTReLU(0.5, Double.NaN));
    assertThrows(IllegalArgumentException.class, () -> new WeightInitDelta(0));
    ActivationFunction own = ActivationFunction.derived("sine", x -> x.sin());
    String message =
        assertThrows(
                IllegalArgumentException.class,
                () -> new ActivationShaped(TransformedActivation.unchanged(own)))
            .getMessage();
    assertTrue(message.contains("'sine'") && message.contains("tanh"), message);
  }
}
