package io.jtrelu.backend;

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

/**
 * Scalars of K-FAC's factors against their formulas, and what comes of values that are not finite.
 */
class FactorScalarsContractTest extends Contract {
  private static final double[] NANS = {Double.NaN, Double.NaN};

  @TestFactory
  Stream<DynamicTest> aMeasurementCountsWhereAllIsFinite() {
    return tests(
        Stream.of(1, 7, 256, 1000)
            .flatMap(
                n ->
                    Stream.of(0f, 3e38f, Float.NaN, Float.NEGATIVE_INFINITY)
                        .map(
                            value ->
                                new Case(
                                    "measurement of " + n + " with " + value,
                                    () -> measure(n, value, 1, Float.isFinite(value))))));
  }

  @TestFactory
  Stream<DynamicTest> aClosedGateLetsNothingThrough() {
    return tests(
        Stream.of(
            new Case("closed to a measurement", () -> measure(5, 0, Float.NaN, false)),
            new Case("closed to damping", () -> damp(3, 2, 1, Float.NaN)),
            new Case(
                "closed to a step",
                () -> constrain(2, 0.01, 1e-3, Float.NaN, new float[] {1, 2}))));
  }

  private void measure(int n, float last, float gate, boolean counts) {
    float[] rows = Data.normals(new SplittableRandom(n), n, 1, DataType.F32);
    rows[n - 1] = last;
    float[] weights = {0.25f, 0.75f};
    try (Trial trial = new Trial(backend, n + " with " + last);
        FactorScalars scalars = backend.factorScalars()) {
      var x = trial.input("rows", DataType.F32, rows);
      var w = trial.input("weights", DataType.F32, weights);
      var open = trial.input("gate", DataType.F32, new float[] {gate});
      var scale = trial.output("scale", DataType.F32, 2);
      trial.run(
          stream ->
              scalars.measurement(stream, x.tensor(), w.tensor(), open.tensor(), scale.tensor()));
      expect(trial, scale, counts ? Data.wide(weights) : NANS, 0);
    }
  }

  /** A NaN is expected as such; other values within a share of themselves. */
  private static void expect(Trial trial, Trial.Operand operand, double[] expected, double share) {
    float[] values = operand.values();
    for (int i = 0; i < expected.length; i++) {
      boolean equal =
          Double.isNaN(expected[i])
              ? Float.isNaN(values[i])
              : Math.abs(values[i] - expected[i]) <= share * Math.abs(expected[i]);
      if (!equal) {
        trial.fail(Arrays.toString(values) + ", expected " + Arrays.toString(expected));
      }
    }
  }

  @TestFactory
  Stream<DynamicTest> dampingIsSharedByTheTraces() {
    return tests(
        Stream.of(
            new Case("damping of 1 and 1", () -> damp(1, 1, 1, 1)),
            new Case("damping of 19 and 300", () -> damp(19, 300, 1, 1)),
            new Case("damping of 33 and 8", () -> damp(33, 8, 1, 0)),
            new Case("damping of zeros", () -> damp(4, 3, 0, 1)),
            new Case("damping of what is not finite", () -> damp(4, 3, Float.NaN, 1))));
  }

  private void damp(int n, int m, float factor, float gate) {
    SplittableRandom random = new SplittableRandom(n);
    float[] a = Data.normals(random, (long) n * n, 1, DataType.F32);
    float[] g = Data.normals(random, (long) m * m, 1, DataType.F32);
    double damping = 0.3;
    double means = diagonal(a, n, factor) / diagonal(g, m, 1);
    double pi = means > 0 && means < Double.POSITIVE_INFINITY ? Math.sqrt(means) : 1;
    double r = Math.sqrt(damping);
    double[] expected = Float.isNaN(gate) ? NANS : new double[] {pi * r, r / pi};
    try (Trial trial = new Trial(backend, n + " and " + m);
        FactorScalars scalars = backend.factorScalars()) {
      var x = trial.input("a", DataType.F32, Shape.of(n, n), Layout.ROW_MAJOR, a);
      var y = trial.input("g", DataType.F32, Shape.of(m, m), Layout.ROW_MAJOR, g);
      var open = trial.input("gate", DataType.F32, new float[] {gate});
      var shifts = trial.output("shifts", DataType.F32, 2);
      trial.run(
          stream ->
              scalars.damping(
                  stream, x.tensor(), y.tensor(), damping, open.tensor(), shifts.tensor()));
      expect(trial, shifts, expected, 0x1p-23); // one rounding to F32, others of binary64
    }
  }

  /** Makes a diagonal positive, times a factor; its mean. */
  private static double diagonal(float[] square, int n, float factor) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
      square[i * n + i] = factor * Math.abs(square[i * n + i]);
      sum += square[i * n + i];
    }
    return sum / n;
  }

  @TestFactory
  Stream<DynamicTest> stepsAreOfALimitedLength() {
    float[] many = Data.normals(new SplittableRandom(1), 600, 1, DataType.F32);
    return tests(
        Stream.of(
            new Case("a long step", () -> constrain(2, 0.01, 1e-6, 0.5f, new float[] {3, -5})),
            new Case("a short step", () -> constrain(2, 0.01, 1e3, 0.5f, new float[] {3, -5})),
            new Case("a step of 300 layers", () -> constrain(2, 0.003, 1e-3, 1, many)),
            new Case("a step of length 0", () -> constrain(2, 0.01, 1e-3, 1, new float[] {0, 0})),
            new Case(
                "a step without a limit",
                () -> constrain(2, 0.01, Double.POSITIVE_INFINITY, 1, new float[] {3, -5})),
            new Case(
                "a direction that is not finite",
                () -> constrain(2, 0.01, 1e-3, 1, new float[] {1, 2, Float.NaN, 1}))));
  }

  private void constrain(float norm, double rate, double limit, float factor, float[] inners) {
    double sum = 0;
    for (int i = 0; i < inners.length; i += 2) {
      sum += Math.abs((double) inners[i] + inners[i + 1]);
    }
    double nu = Math.min(1, Math.sqrt(limit / (rate * rate * sum)));
    double[] expected =
        Float.isNaN(factor)
            ? new double[] {norm, Double.NaN}
            : Double.isNaN(nu) ? NANS : new double[] {norm, nu};
    float[] parts = {(float) rate, (float) (rate - (float) rate)};
    try (Trial trial = new Trial(backend, rate + ", " + limit);
        FactorScalars scalars = backend.factorScalars()) {
      var x = trial.input("inners", DataType.F32, inners);
      var eta = trial.input("rate", DataType.F32, parts);
      var result = trial.inout("result", DataType.F32, new float[] {norm, factor});
      trial.run(
          stream -> scalars.constraint(stream, x.tensor(), eta.tensor(), limit, result.tensor()));
      expect(trial, result, expected, 0x1p-23);
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (FactorScalars scalars = backend.factorScalars();
        var stream = backend.newStream();
        Tensor square = backend.allocate(Shape.of(3, 3), DataType.F32, Layout.ROW_MAJOR);
        Tensor row = backend.allocate(Shape.of(3), DataType.F32, Layout.ROW_MAJOR);
        Tensor one = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
        Tensor two = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor pair = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements(
          "weights", pair, t -> scalars.measurement(stream, square, t, one, two));
      refusals.requireElements("gate", one, t -> scalars.measurement(stream, square, pair, t, two));
      refusals.requireElements(
          "scale", two, t -> scalars.measurement(stream, square, pair, one, t));
      refusals.requireElements(
          "shifts", two, t -> scalars.damping(stream, square, square, 1, one, t));
      Refusals.requireMessage(
          OperandException.class,
          () -> scalars.damping(stream, row, square, 1, one, two),
          "square");
      refusals.requireElements("rate", pair, t -> scalars.constraint(stream, pair, t, 1, two));
      Refusals.requireMessage(
          OperandException.class, () -> scalars.constraint(stream, row, pair, 1, two), "pairs");
      Refusals.requireMessage(
          OperandException.class, () -> scalars.constraint(stream, two, pair, 1, two), "overlap");
      Refusals.requireClosing(scalars, () -> scalars.constraint(stream, pair, pair, 1, two));
    }
  }
}
