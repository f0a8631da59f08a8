package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.DoubleUnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/**
 * Transformed activations: every function of the library against its values in binary64 (which have
 * tests of their own), and some against formulas written out here.
 */
class PointwiseContractTest extends Contract {
  /** The error that the operation's definition allows in F32, in units of its bracket. */
  private static final double ALLOWED = 8 * 0x1p-24;

  /** Closer to a kink than this its side depends on rounding. */
  private static final double KINK = 1e-4;

  @TestFactory
  Stream<DynamicTest> everyFunction() {
    List<Case> cases = new ArrayList<>();
    for (Activation function : Activation.values()) {
      for (DataType type : types()) {
        String id = "pointwise " + function.activationName() + " " + type;
        SplittableRandom random = new SplittableRandom(id.hashCode());
        cases.add(
            new Case(
                id,
                () -> {
                  check(1000, type, TransformedActivation.unchanged(function), random);
                  check(777, type, transformed(function, random), random);
                }));
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        perLength(
            "pointwise",
            (length, type, random) ->
                check(length, type, transformed(Activation.TANH, random), random)));
  }

  @TestFactory
  Stream<DynamicTest> randomFunctions() {
    return tests(
        random(
            "pointwise",
            0.2,
            random ->
                check(
                    randomLength(random),
                    pick(random, types()),
                    transformed(pick(random, Activation.values()), random),
                    random)));
  }

  private static TransformedActivation transformed(Activation function, SplittableRandom random) {
    return new TransformedActivation(
        function,
        random.nextDouble(0.5, 1.5),
        random.nextDouble(-1, 1),
        random.nextDouble(0.5, 2),
        random.nextDouble(-1, 1),
        function == Activation.LEAKY_RELU ? random.nextDouble() : 0);
  }

  private void check(
      int length, DataType type, TransformedActivation function, SplittableRandom random) {
    Write write = pick(random, Write.values());
    float[] src = Data.normals(random, length, 2, type);
    for (int i = 0; i < length; i++) {
      double inner = function.inputScale() * src[i] + function.inputShift();
      src[i] = Math.abs(inner) < KINK ? 2 : src[i];
    }
    float[] diffDst = Data.normals(random, length, 1, type);
    float[] old = Data.normals(random, length, 1, type);
    boolean savesOutput = function.derivativeFollowsFromValue();
    float[] saved = new float[length];
    double[] y = new double[length];
    double[] yBound = new double[length];
    double[] gradient = new double[length];
    double[] gradientBound = new double[length];
    double shift = 1 + Math.abs(function.outputShift());
    for (int i = 0; i < length; i++) {
      y[i] = function.value(src[i]);
      double allowed = ALLOWED * (Math.abs(y[i]) + Math.abs(function.outputScale()) * shift);
      yBound[i] = allowed + Data.epsilon(type) * Math.abs(y[i]) + Data.tiny(type);
      saved[i] = savesOutput ? Data.round(type, y[i]) : src[i];
      if (savesOutput
          && Math.abs(saved[i] / function.outputScale() - function.outputShift()) < KINK) {
        saved[i] = Data.round(type, function.value(2));
      }
      double slope =
          savesOutput ? function.derivativeFromValue(saved[i]) : function.derivative(saved[i]);
      double before = write == Write.ACCUMULATE ? old[i] : 0;
      gradient[i] = before + diffDst[i] * slope;
      double steepness = Math.abs(function.outputScale() * function.inputScale());
      gradientBound[i] =
          Math.abs(diffDst[i]) * ALLOWED * (Math.abs(slope) + steepness * shift)
              + 1.5 * Data.epsilon(type) * (Math.abs(before) + Math.abs(diffDst[i] * slope))
              + Data.tiny(type);
    }
    String description = String.format("pointwise %d %s %s %s", length, type, function, write);
    try (Trial trial = new Trial(backend, description);
        Pointwise pointwise = backend.pointwise(length, type, function)) {
      assertEquals(savesOutput, pointwise.savesOutput());
      boolean inPlace = savesOutput && random.nextBoolean();
      boolean gradientInPlace = write == Write.OVERWRITE && random.nextBoolean();
      var x = inPlace ? trial.inout("src", type, src) : trial.input("src", type, src);
      var dst = inPlace ? x : trial.output("dst", type, length);
      var kept = trial.input("saved", type, saved);
      var dy =
          gradientInPlace
              ? trial.inout("diff_dst", type, diffDst)
              : trial.input("diff_dst", type, diffDst);
      var dx = gradientInPlace ? dy : trial.result("diff_src", type, write, old);
      trial.run(
          stream -> {
            pointwise.forward(stream, x.tensor(), dst.tensor());
            pointwise.backward(stream, kept.tensor(), dy.tensor(), dx.tensor(), write);
          });
      trial.expectWithin(dst, y, yBound);
      trial.expectWithin(dx, gradient, gradientBound);
    }
  }

  /** Values and central differences of formulas that share nothing with the library's. */
  @Test
  void formulas() {
    formula(Activation.TANH, x -> (Math.exp(x) - Math.exp(-x)) / (Math.exp(x) + Math.exp(-x)));
    formula(Activation.SOFTPLUS, x -> Math.log(1 + Math.exp(x)));
    formula(Activation.SIGMOID, x -> 1 / (1 + Math.exp(-x)));
    formula(Activation.SWISH, x -> x / (1 + Math.exp(-x)));
    formula(Activation.ASINH, x -> Math.log(x + Math.sqrt(x * x + 1)));
    formula(Activation.BENTID, x -> (Math.sqrt(x * x + 1) - 1) / 2 + x);
    formula(Activation.ATAN, Math::atan);
    formula(Activation.SQUARE, x -> x * x);
    formula(
        Activation.GELU,
        x -> x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))));
  }

  private void formula(Activation activation, DoubleUnaryOperator phi) {
    TransformedActivation function =
        new TransformedActivation(activation, 0.75, 0.25, 1.5, -0.5, 0);
    DoubleUnaryOperator transformed = x -> 1.5 * (phi.applyAsDouble(0.75 * x + 0.25) - 0.5);
    float[] x = {-3, -1.25f, -0.5f, 0.125f, 1, 2.5f};
    float[] ones = {1, 1, 1, 1, 1, 1};
    double[] value = new double[x.length];
    double[] slope = new double[x.length];
    double[] bound = new double[x.length];
    double[] slopeBound = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      value[i] = transformed.applyAsDouble(x[i]);
      double step = 1e-5;
      slope[i] =
          (transformed.applyAsDouble(x[i] + step) - transformed.applyAsDouble(x[i] - step))
              / (2 * step);
      bound[i] = 1e-6 * (3 + Math.abs(value[i]));
      slopeBound[i] = 3e-6 * (3 + Math.abs(slope[i]));
    }
    try (Trial trial = new Trial(backend, "formula of " + activation);
        Pointwise pointwise = backend.pointwise(x.length, DataType.F32, function)) {
      var src = trial.input("src", DataType.F32, x);
      var dst = trial.output("dst", DataType.F32, x.length);
      var dy = trial.input("diff_dst", DataType.F32, ones);
      var dx = trial.output("diff_src", DataType.F32, x.length);
      trial.run(
          stream -> {
            pointwise.forward(stream, src.tensor(), dst.tensor());
            var saved = pointwise.savesOutput() ? dst : src;
            pointwise.backward(stream, saved.tensor(), dy.tensor(), dx.tensor(), Write.OVERWRITE);
          });
      trial.expectWithin(dst, value, bound);
      trial.expectWithin(dx, slope, slopeBound);
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    TransformedActivation tanh = TransformedActivation.unchanged(Activation.TANH);
    try (Pointwise pointwise = backend.pointwise(12, DataType.F32, tanh);
        var stream = backend.newStream();
        Tensor x = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor y = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR)) {
      Write write = Write.OVERWRITE;
      refusals.requireElements("src", x, t -> pointwise.forward(stream, t, y));
      refusals.requireElements("dst", x, t -> pointwise.forward(stream, x, t));
      refusals.requireElements("saved", x, t -> pointwise.backward(stream, t, y, y, write));
      refusals.requireElements("diff_dst", x, t -> pointwise.backward(stream, x, t, y, write));
      refusals.requireElements("diff_src", x, t -> pointwise.backward(stream, x, y, t, write));
      Refusals.requireClosing(pointwise, () -> pointwise.forward(stream, x, y));
    }
  }
}
