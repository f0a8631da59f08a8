package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Steps of stochastic gradient descent. */
class SgdContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        lengths().stream()
            .map(
                length ->
                    new Case("sgd " + length, () -> check(length, new SplittableRandom(length)))));
  }

  @TestFactory
  Stream<DynamicTest> randomLengths() {
    return tests(random("sgd", 0.2, random -> check(randomLength(random), random)));
  }

  private void check(int length, SplittableRandom random) {
    float momentum = pick(random, 0f, 0.5f, 0.9f, 0.99f);
    float decay = pick(random, 0f, 1e-4f, 0.1f);
    boolean nesterov = random.nextBoolean();
    float rate = pick(random, 0f, 0.02f, 1f);
    float scale = pick(random, 1f, 0.25f, 0.013f);
    float[] p = Data.normals(random, length, 1, DataType.F32);
    float[] g = Data.normals(random, length, 1, DataType.F32);
    float[] v = Data.normals(random, length, 1, DataType.F32);
    if (momentum == 0) { // left alone
      Arrays.fill(v, Float.NaN);
    }
    double[] parameters = new double[length];
    double[] parametersBound = new double[length];
    double[] velocity = new double[length];
    double[] velocityBound = new double[length];
    double error = 4 * Data.epsilon(DataType.F32);
    for (int i = 0; i < length; i++) {
      double gradient = (double) scale * g[i] + (double) decay * p[i];
      double size = Math.abs((double) scale * g[i]) + Math.abs((double) decay * p[i]);
      double carried = momentum == 0 ? 0 : (double) momentum * v[i];
      double moved = carried + gradient;
      velocity[i] = moved;
      velocityBound[i] = error * (Math.abs(carried) + size);
      double direction = nesterov ? gradient + (double) momentum * moved : moved;
      parameters[i] = p[i] - rate * direction;
      parametersBound[i] = error * (Math.abs(p[i]) + rate * (2 * size + Math.abs(carried)));
    }
    String description =
        String.format(
            "sgd %d momentum %s nesterov %s decay %s rate %s scale %s",
            length, momentum, nesterov, decay, rate, scale);
    try (Trial trial = new Trial(backend, description);
        Sgd sgd = backend.sgd(length, momentum, nesterov, decay)) {
      var parameter = trial.inout("parameters", DataType.F32, p);
      var gradient = trial.input("gradient", DataType.F32, g);
      var buffer = trial.inout("velocity", DataType.F32, v);
      var learningRate = trial.input("learning rate", DataType.F32, new float[] {rate});
      var gradientScale = trial.input("gradient scale", DataType.F32, new float[] {scale});
      trial.run(
          stream ->
              sgd.step(
                  stream,
                  parameter.tensor(),
                  gradient.tensor(),
                  buffer.tensor(),
                  learningRate.tensor(),
                  gradientScale.tensor()));
      if (momentum == 0) {
        for (float left : buffer.values()) {
          assertTrue(Float.isNaN(left), description);
        }
      } else {
        trial.expectWithin(buffer, velocity, velocityBound);
      }
      trial.expectWithin(parameter, parameters, parametersBound);
    }
  }

  /** Two steps in halves and quarters, worked out by hand. */
  @Test
  void byHand() {
    // p = 4, g = 2 scaled by 1/2, momentum 1/2, decay 1/4, rate 1/2, v = 0.
    // g' = 1 + 1 = 2, v = 2; plain: p = 4 - 1 = 3; Nesterov: p = 4 - (2 + 1)/2 = 2.5.
    // Plain again: g' = 1 + 0.75, v = 1 + 1.75 = 2.75, p = 3 - 1.375 = 1.625.
    // Nesterov again: g' = 1 + 0.625, v = 2.625, p = 2.5 - (1.625 + 1.3125)/2 = 1.03125.
    step(false, 1.625, 2.75);
    step(true, 1.03125, 2.625);
  }

  private void step(boolean nesterov, double parameterAfter, double velocityAfter) {
    try (Trial trial = new Trial(backend, "sgd by hand, nesterov " + nesterov);
        Sgd sgd = backend.sgd(1, 0.5f, nesterov, 0.25f)) {
      var p = trial.inout("parameters", DataType.F32, new float[] {4});
      var g = trial.input("gradient", DataType.F32, new float[] {2});
      var v = trial.inout("velocity", DataType.F32, new float[] {0});
      var half = trial.input("half", DataType.F32, new float[] {0.5f});
      trial.run(
          stream -> {
            for (int i = 0; i < 2; i++) {
              sgd.step(stream, p.tensor(), g.tensor(), v.tensor(), half.tensor(), half.tensor());
            }
          });
      trial.expectExactly(p, new double[] {parameterAfter});
      trial.expectExactly(v, new double[] {velocityAfter});
    }
  }

  /** A scale of NaN changes nothing: the gradient was not finite. */
  @Test
  void aScaleOfNanChangesNothing() {
    float[] values = Data.normals(new SplittableRandom(1), 1000, 1, DataType.F32);
    try (Trial trial = new Trial(backend, "sgd with a scale of NaN");
        Sgd sgd = backend.sgd(1000, 0.9f, true, 0.1f)) {
      var p = trial.input("parameters", DataType.F32, values);
      var g = trial.input("gradient", DataType.F32, values);
      var v = trial.input("velocity", DataType.F32, values);
      var rate = trial.input("learning rate", DataType.F32, new float[] {1});
      var scale = trial.input("gradient scale", DataType.F32, new float[] {Float.NaN});
      trial.run(
          stream ->
              sgd.step(stream, p.tensor(), g.tensor(), v.tensor(), rate.tensor(), scale.tensor()));
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (Sgd sgd = backend.sgd(12, 0.9f, true, 0);
        var stream = backend.newStream();
        Tensor p = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor g = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor v = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor one = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements("parameters", p, t -> sgd.step(stream, t, g, v, one, one));
      refusals.requireElements("gradient", p, t -> sgd.step(stream, p, t, v, one, one));
      refusals.requireElements("velocity", p, t -> sgd.step(stream, p, g, t, one, one));
      refusals.requireElements("learning rate", one, t -> sgd.step(stream, p, g, v, t, one));
      refusals.requireElements("gradient scale", one, t -> sgd.step(stream, p, g, v, one, t));
      Refusals.requireClosing(sgd, () -> sgd.step(stream, p, g, v, one, one));
    }
  }
}
