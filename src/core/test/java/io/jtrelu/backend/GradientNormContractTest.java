package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** The norm of a gradient and its clipping factor. */
class GradientNormContractTest extends Contract {
  /** Relative error: pairwise sums in binary32 of 2^17 squares, a square root, a division. */
  private static final double ERROR = 2e-6;

  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        lengths().stream()
            .map(
                length ->
                    new Case("norm " + length, () -> check(length, new SplittableRandom(length)))));
  }

  @TestFactory
  Stream<DynamicTest> randomLengths() {
    return tests(random("norm", 0.1, random -> check(randomLength(random), random)));
  }

  private void check(int length, SplittableRandom random) {
    float[] gradient =
        Data.normals(random, length, Math.pow(10, random.nextInt(-6, 7)), DataType.F32);
    double sum = 0;
    for (float g : gradient) {
      sum += (double) g * g;
    }
    double norm = Math.sqrt(sum);
    for (double ratio : new double[] {0.5, 0.999, 1.001, 10, Double.POSITIVE_INFINITY}) {
      float maxNorm = norm == 0 ? 1 : (float) (ratio * norm);
      float[] result = run(gradient, maxNorm);
      double factor = norm == 0 ? 1 : Math.min(1, maxNorm / norm);
      assertTrue(
          Math.abs(result[0] - norm) <= ERROR * norm
              && Math.abs(result[1] - factor) <= ERROR * factor,
          length
              + " elements, largest norm "
              + maxNorm
              + ": norm "
              + result[0]
              + ", factor "
              + result[1]
              + ", expected "
              + norm
              + " and "
              + factor);
      assertTrue(result[1] <= 1, "clipping never enlarges");
    }
  }

  private float[] run(float[] gradient, float maxNorm) {
    return run(gradient, maxNorm, new float[] {Float.NaN, 0.75f});
  }

  /**
   * @param before what the result holds before
   */
  private float[] run(float[] gradient, float maxNorm, float[] before) {
    try (Trial trial = new Trial(backend, "norm of " + gradient.length);
        GradientNorm norm = backend.gradientNorm(gradient.length)) {
      var g = trial.input("gradient", DataType.F32, gradient);
      var result = trial.inout("result", DataType.F32, before);
      trial.run(stream -> norm.run(stream, g.tensor(), maxNorm, result.tensor()));
      return result.values();
    }
  }

  private void expect(float norm, float factor, float[] result) {
    assertTrue(
        Float.compare(norm, result[0]) == 0 && Float.compare(factor, result[1]) == 0,
        "norm and factor are "
            + result[0]
            + " and "
            + result[1]
            + ", expected "
            + norm
            + " and "
            + factor);
  }

  @Test
  void byHand() {
    expect(5, 0.5f, run(new float[] {3, -4}, 2.5f));
    expect(5, 1, run(new float[] {3, -4}, 5));
    expect(5, 1, run(new float[] {-3, 4, 0}, Float.POSITIVE_INFINITY));
    expect(0, 1, run(new float[] {0, 0, 0}, 1));
  }

  /** Where the gradient is not finite the norm says so and the factor spoils the step. */
  @Test
  void notFinite() {
    float infinity = Float.POSITIVE_INFINITY;
    for (float largest : new float[] {1, infinity}) {
      expect(infinity, Float.NaN, run(new float[] {1, -infinity}, largest));
      expect(Float.NaN, Float.NaN, run(new float[] {Float.NaN, 2}, largest));
      expect(Float.NaN, Float.NaN, run(new float[] {Float.NaN, infinity}, largest));
    }
  }

  /** After a gradient that was not finite the factor stays NaN, and the norm is the new one. */
  @Test
  void notFiniteBefore() {
    for (float largest : new float[] {2.5f, Float.POSITIVE_INFINITY}) {
      float[] good = {3, -4};
      expect(5, Float.NaN, run(good, largest, new float[] {Float.NaN, Float.NaN}));
      expect(5, Float.NaN, run(good, largest, new float[] {1, Float.NaN}));
      expect(5, Math.min(1, largest / 5), run(good, largest, new float[] {Float.NaN, 1}));
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (GradientNorm norm = backend.gradientNorm(12);
        var stream = backend.newStream();
        Tensor g = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor result = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements("gradient", g, t -> norm.run(stream, t, 1, result));
      refusals.requireElements("result", result, t -> norm.run(stream, g, 1, t));
      for (float largest : new float[] {0, -1, Float.NaN}) {
        Refusals.requireMessage(
            IllegalArgumentException.class,
            () -> norm.run(stream, g, largest, result),
            "positive",
            Float.toString(largest));
      }
      Refusals.requireClosing(norm, () -> norm.run(stream, g, 1, result));
    }
  }
}
