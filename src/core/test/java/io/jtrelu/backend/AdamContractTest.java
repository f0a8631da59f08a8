package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Steps of Adam with decoupled weight decay. */
class AdamContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        lengths().stream()
            .map(
                length ->
                    new Case("adam " + length, () -> check(length, new SplittableRandom(length)))));
  }

  @TestFactory
  Stream<DynamicTest> randomLengths() {
    return tests(random("adam", 0.2, random -> check(randomLength(random), random)));
  }

  private void check(int length, SplittableRandom random) {
    float beta1 = pick(random, 0f, 0.5f, 0.9f);
    float beta2 = pick(random, 0.5f, 0.99f, 0.999f);
    float epsilon = pick(random, 1e-8f, 1e-3f);
    float decay = pick(random, 0f, 0.01f, 0.5f);
    float rate = pick(random, 0.001f, 0.1f, 1f);
    float scale = pick(random, 1f, 0.25f, 0.013f);
    int step = pick(random, 1, 2, 3, 10, 1000, 1_000_000);
    float[] p = Data.normals(random, length, 1, DataType.F32);
    float[] g = Data.normals(random, length, 1, DataType.F32);
    float[] m = Data.normals(random, length, 0.1, DataType.F32);
    float[] v = Data.normals(random, length, 0.1, DataType.F32);
    for (int i = 0; i < length; i++) {
      v[i] = v[i] * v[i] + 1e-6f;
    }
    double[] parameters = new double[length];
    double[] parametersBound = new double[length];
    double[] mean = new double[length];
    double[] meanBound = new double[length];
    double[] square = new double[length];
    double[] squareBound = new double[length];
    double error = 4 * Data.epsilon(DataType.F32);
    for (int i = 0; i < length; i++) {
      double gradient = (double) scale * g[i];
      mean[i] = (double) beta1 * m[i] + (1 - (double) beta1) * gradient;
      double size = Math.abs((double) beta1 * m[i]) + Math.abs((1 - (double) beta1) * gradient);
      square[i] = (double) beta2 * v[i] + (1 - (double) beta2) * gradient * gradient;
      double correction1 = 1 - Math.pow(beta1, step);
      double denominator = Math.sqrt(square[i] / (1 - Math.pow(beta2, step))) + epsilon;
      double direction = mean[i] / correction1 / denominator;
      double shrink = (double) decay * p[i];
      parameters[i] = p[i] - rate * (direction + shrink);
      meanBound[i] = error * size;
      squareBound[i] = error * square[i];
      parametersBound[i] =
          error
              * (Math.abs(p[i]) + rate * (2 * size / correction1 / denominator + Math.abs(shrink)));
    }
    String description =
        String.format(
            "adam %d beta %s %s epsilon %s decay %s rate %s scale %s step %d",
            length, beta1, beta2, epsilon, decay, rate, scale, step);
    try (Trial trial = new Trial(backend, description);
        Adam adam = backend.adam(length, beta1, beta2, epsilon, decay)) {
      var parameter = trial.inout("parameters", DataType.F32, p);
      var gradient = trial.input("gradient", DataType.F32, g);
      var moment1 = trial.inout("first moment", DataType.F32, m);
      var moment2 = trial.inout("second moment", DataType.F32, v);
      var scalars = trial.input("scalars", DataType.F32, new float[] {rate, step});
      var gradientScale = trial.input("gradient scale", DataType.F32, new float[] {scale});
      trial.run(
          stream ->
              adam.step(
                  stream,
                  parameter.tensor(),
                  gradient.tensor(),
                  moment1.tensor(),
                  moment2.tensor(),
                  scalars.tensor(),
                  gradientScale.tensor()));
      trial.expectWithin(moment1, mean, meanBound);
      trial.expectWithin(moment2, square, squareBound);
      trial.expectWithin(parameter, parameters, parametersBound);
    }
  }

  /** The first step moves by the learning rate against the gradient's sign, whatever its size. */
  @Test
  void firstStepIsTheSign() {
    float[] g = {1e-3f, -5, 1000, -2e5f};
    double[] expected = {-0.25, 0.25, -0.25, 0.25};
    double[] bound = {1e-6, 1e-6, 1e-6, 1e-6};
    try (Trial trial = new Trial(backend, "adam, first step");
        Adam adam = backend.adam(4, 0.9f, 0.999f, 1e-10f, 0)) {
      var p = trial.inout("parameters", DataType.F32, new float[4]);
      var gradient = trial.input("gradient", DataType.F32, g);
      var m = trial.inout("first moment", DataType.F32, new float[4]);
      var v = trial.inout("second moment", DataType.F32, new float[4]);
      var scalars = trial.input("scalars", DataType.F32, new float[] {0.25f, 1});
      var one = trial.input("gradient scale", DataType.F32, new float[] {1});
      trial.run(
          stream ->
              adam.step(
                  stream,
                  p.tensor(),
                  gradient.tensor(),
                  m.tensor(),
                  v.tensor(),
                  scalars.tensor(),
                  one.tensor()));
      trial.expectWithin(p, expected, bound);
    }
  }

  /** A scale of NaN changes nothing: the gradient was not finite. */
  @Test
  void aScaleOfNanChangesNothing() {
    float[] values = Data.normals(new SplittableRandom(1), 1000, 1, DataType.F32);
    try (Trial trial = new Trial(backend, "adam with a scale of NaN");
        Adam adam = backend.adam(1000, 0.9f, 0.999f, 1e-8f, 0.1f)) {
      var p = trial.input("parameters", DataType.F32, values);
      var g = trial.input("gradient", DataType.F32, values);
      var m = trial.input("first moment", DataType.F32, values);
      var v = trial.input("second moment", DataType.F32, values);
      var scalars = trial.input("scalars", DataType.F32, new float[] {1, 3});
      var scale = trial.input("gradient scale", DataType.F32, new float[] {Float.NaN});
      trial.run(
          stream ->
              adam.step(
                  stream,
                  p.tensor(),
                  g.tensor(),
                  m.tensor(),
                  v.tensor(),
                  scalars.tensor(),
                  scale.tensor()));
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (Adam adam = backend.adam(12, 0.9f, 0.999f, 1e-8f, 0);
        var stream = backend.newStream();
        Tensor p = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor g = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor m = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor v = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor two = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor one = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements("parameters", p, t -> adam.step(stream, t, g, m, v, two, one));
      refusals.requireElements("gradient", p, t -> adam.step(stream, p, t, m, v, two, one));
      refusals.requireElements("first moment", p, t -> adam.step(stream, p, g, t, v, two, one));
      refusals.requireElements("second moment", p, t -> adam.step(stream, p, g, m, t, two, one));
      refusals.requireElements("scalars", two, t -> adam.step(stream, p, g, m, v, t, one));
      refusals.requireElements("gradient scale", one, t -> adam.step(stream, p, g, m, v, two, t));
      Refusals.requireClosing(adam, () -> adam.step(stream, p, g, m, v, two, one));
    }
  }
}
