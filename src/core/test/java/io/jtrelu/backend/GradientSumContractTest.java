package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** The sum of a gradient's parts: exact, as F32 sums in order are defined to the bit. */
class GradientSumContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        lengths().stream()
            .map(
                length ->
                    new Case(
                        "gradient sum " + length,
                        () -> check(length, length % 10, new SplittableRandom(length)))));
  }

  @TestFactory
  Stream<DynamicTest> randomLengths() {
    return tests(
        random(
            "gradient sum",
            0.1,
            random -> check(randomLength(random), random.nextInt(10), random)));
  }

  private void check(int length, int count, SplittableRandom random) {
    float[] sum = Data.normals(random, length, 1, DataType.F32);
    try (Trial trial = new Trial(backend, count + " parts of " + length);
        GradientSum operation = backend.gradientSum(length)) {
      var gradient = trial.inout("gradient", DataType.F32, sum.clone());
      List<Tensor> parts = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        float[] part = Data.normals(random, length, Math.pow(10, i % 3), DataType.F32);
        parts.add(trial.input("part " + i, DataType.F32, part).tensor());
        for (int k = 0; k < length; k++) {
          sum[k] += part[k];
        }
      }
      trial.run(stream -> operation.run(stream, gradient.tensor(), parts));
      double[] expected = new double[length];
      for (int k = 0; k < length; k++) {
        expected[k] = sum[k];
      }
      trial.expectExactly(gradient, expected);
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (GradientSum sum = backend.gradientSum(12);
        var stream = backend.newStream();
        Tensor g = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor part = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements("gradient", g, t -> sum.run(stream, t, List.of(part)));
      refusals.requireElements("part", part, t -> sum.run(stream, g, List.of(part, t)));
      Refusals.requireMessage(
          OperandException.class, () -> sum.run(stream, g, List.of(part, g)), "overlap");
      Refusals.requireClosing(sum, () -> sum.run(stream, g, List.of(part)));
    }
  }
}
