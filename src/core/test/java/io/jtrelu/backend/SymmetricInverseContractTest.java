package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Inverses of symmetric matrices: their products with the matrix, worked out in binary64. */
class SymmetricInverseContractTest extends Contract {
  /** On both sides of the blocks of all backends. */
  private static final int[] SIZES = {1, 2, 3, 7, 16, 31, 32, 33, 47, 48, 49, 64, 65, 96, 97, 150};

  private IntStream sizes() {
    return IntStream.of(SIZES).filter(n -> n <= subject.largestMatrix());
  }

  @TestFactory
  Stream<DynamicTest> timesTheMatrixIsTheIdentity() {
    return tests(
        sizes()
            .boxed()
            .flatMap(
                n ->
                    Stream.of(1.0, 1e-3, 1e-6)
                        .map(
                            least ->
                                new Case(
                                    "symmetric inverse " + n + ", least " + least,
                                    () -> check(n, least, new SplittableRandom(n))))));
  }

  /**
   * @param least the smallest eigenvalue is about this share of the largest
   */
  private void check(int n, double least, SplittableRandom random) {
    float shift = (float) least;
    float[] f = gram(random, n, Math.max(1, n / 2)); // half of the eigenvalues are 0
    float[] lower = f.clone();
    for (int i = 0; i < n; i++) {
      Arrays.fill(lower, i * n + i + 1, (i + 1) * n, Float.NaN); // not read
    }
    try (Trial trial = new Trial(backend, n + " rows, shift " + shift);
        SymmetricInverse operation = backend.symmetricInverse(n)) {
      Shape square = Shape.of(n, n);
      var matrix = trial.input("matrix", DataType.F32, square, Layout.ROW_MAJOR, lower);
      var inverse = trial.output("inverse", DataType.F32, square, Layout.ROW_MAJOR);
      var residual = trial.output("residual", DataType.F32, 1);
      var shiftOnDevice = trial.input("shift", DataType.F32, new float[] {shift});
      int words = (int) Math.ceilDiv(operation.scratchBytes(), 4L);
      var scratch = trial.output("scratch", DataType.F32, words);
      boolean onDevice = least == 1e-3;
      trial.run(
          stream -> {
            if (onDevice) {
              operation.run(
                  stream,
                  matrix.tensor(),
                  shiftOnDevice.tensor(),
                  inverse.tensor(),
                  residual.tensor(),
                  n % 2 == 0 ? null : scratch.tensor());
            } else {
              operation.run(stream, matrix.tensor(), shift, inverse.tensor(), residual.tensor());
            }
          });
      float[] x = inverse.values();
      double[][] a = new double[n][n];
      double normA = 0;
      double normX = 0;
      for (int i = 0; i < n; i++) {
        double sumA = 0;
        double sumX = 0;
        for (int j = 0; j < n; j++) {
          assertEquals(x[i * n + j], x[j * n + i], "not symmetric at " + i + ", " + j);
          a[i][j] = f[i * n + j] + (i == j ? (double) shift : 0);
          sumA += Math.abs(a[i][j]);
          sumX += Math.abs(x[i * n + j]);
        }
        normA = Math.max(normA, sumA);
        normX = Math.max(normX, sumX);
      }
      // Cholesky's backward error, Higham 2002, theorem 10.3 and section 14.3: a small multiple of
      // n
      // roundings of |A| |X|; the roundings of X itself are one of them.
      double bound = (n + 4) * 0x1p-23 * normA * normX;
      double squares = 0;
      for (int i = 0; i < n; i++) {
        double left = SymmetricInverse.probe(i);
        for (int j = 0; j < n; j++) {
          double sum = 0;
          for (int k = 0; k < n; k++) {
            sum += a[i][k] * x[k * n + j];
          }
          double off = Math.abs(sum - (i == j ? 1 : 0));
          assertTrue(off <= bound, i + ", " + j + " is off by " + off + ", bound " + bound);
          left -= sum * SymmetricInverse.probe(j);
        }
        squares += left * left;
      }
      double expected = Math.sqrt(squares / n);
      assertTrue(
          Math.abs(residual.values()[0] - expected) <= 1e-4 * expected + 1e-9,
          "residual " + residual.values()[0] + ", expected " + expected);
      // So bad that the inverse is none: what binary64 is for.
      assertTrue(residual.values()[0] <= 1e-2 || least < 1e-5, "residual " + expected);
    }
  }

  /** X'X / m of m rows of normal numbers, rounded. */
  private static float[] gram(SplittableRandom random, int n, int m) {
    float[] x = Data.normals(random, (long) n * m, 1, DataType.F32);
    float[] f = new float[n * n];
    for (int i = 0; i < n; i++) {
      for (int j = 0; j <= i; j++) {
        double sum = 0;
        for (int k = 0; k < m; k++) {
          sum += (double) x[k * n + i] * x[k * n + j];
        }
        f[i * n + j] = (float) (sum / m);
        f[j * n + i] = f[i * n + j];
      }
    }
    return f;
  }

  @TestFactory
  Stream<DynamicTest> powersOfTwoOnTheDiagonalAreExact() {
    return tests(sizes().mapToObj(n -> new Case("diagonal inverse " + n, () -> diagonal(n))));
  }

  private void diagonal(int n) {
    float[] f = new float[n * n];
    double[] expected = new double[n * n];
    for (int i = 0; i < n; i++) {
      f[i * n + i] = (float) (Math.scalb(1.0, 2 * (i % 5)) - 0.5);
      expected[i * n + i] = Math.scalb(1.0, -2 * (i % 5));
    }
    try (Trial trial = new Trial(backend, "diagonal of " + n);
        SymmetricInverse operation = backend.symmetricInverse(n)) {
      Shape square = Shape.of(n, n);
      var matrix = trial.input("matrix", DataType.F32, square, Layout.ROW_MAJOR, f);
      var inverse = trial.output("inverse", DataType.F32, square, Layout.ROW_MAJOR);
      var residual = trial.output("residual", DataType.F32, 1);
      trial.run(
          stream ->
              operation.run(stream, matrix.tensor(), 0.5f, inverse.tensor(), residual.tensor()));
      trial.expectExactly(inverse, expected);
      trial.expectExactly(residual, new double[] {0});
    }
  }

  /** Nothing is written where there is no inverse, wherever in the matrix that shows. */
  @TestFactory
  Stream<DynamicTest> whatHasNoInverseKeepsTheOneBefore() {
    return tests(
        Stream.of(Float.NaN, Float.POSITIVE_INFINITY, -1f)
            .flatMap(
                bad ->
                    Stream.of(0, 40, Math.min(subject.largestMatrix(), 100) - 1)
                        .map(
                            at ->
                                new Case(
                                    "no inverse: " + bad + " at " + at, () -> refuse(bad, at)))));
  }

  private void refuse(float bad, int at) {
    int n = Math.min(subject.largestMatrix(), 100);
    float[] f = gram(new SplittableRandom(at), n, 2 * n);
    f[at * n + at] = bad;
    float[] old = Data.normals(new SplittableRandom(1), (long) n * n, 1, DataType.F32);
    try (Trial trial = new Trial(backend, bad + " at " + at);
        SymmetricInverse operation = backend.symmetricInverse(n)) {
      Shape square = Shape.of(n, n);
      var matrix = trial.input("matrix", DataType.F32, square, Layout.ROW_MAJOR, f);
      var inverse = trial.inout("inverse", DataType.F32, square, Layout.ROW_MAJOR, old);
      var residual = trial.output("residual", DataType.F32, 1);
      trial.run(
          stream ->
              operation.run(stream, matrix.tensor(), 0.25f, inverse.tensor(), residual.tensor()));
      trial.expectExactly(inverse, Data.wide(old));
      assertTrue(Float.isNaN(residual.values()[0]), "residual " + residual.values()[0]);
    }
  }

  @Test
  void aShiftOfNanLeavesTheInverse() {
    float[] old = {1, 2, 3, 4};
    Shape square = Shape.of(2, 2);
    try (Trial trial = new Trial(backend, "no shift");
        SymmetricInverse operation = backend.symmetricInverse(2)) {
      var matrix =
          trial.input("matrix", DataType.F32, square, Layout.ROW_MAJOR, new float[] {2, 1, 1, 2});
      var shift = trial.input("shift", DataType.F32, new float[] {Float.NaN});
      var inverse = trial.inout("inverse", DataType.F32, square, Layout.ROW_MAJOR, old);
      var residual = trial.output("residual", DataType.F32, 1);
      trial.run(
          stream ->
              operation.run(
                  stream,
                  matrix.tensor(),
                  shift.tensor(),
                  inverse.tensor(),
                  residual.tensor(),
                  null));
      trial.expectExactly(inverse, Data.wide(old));
      assertTrue(Float.isNaN(residual.values()[0]), "residual " + residual.values()[0]);
    }
  }

  @Test
  void unsuitableOperands() {
    assertThrows(IllegalArgumentException.class, () -> backend.symmetricInverse(0));
    Refusals refusals = new Refusals(backend);
    Shape square = Shape.of(3, 3);
    try (SymmetricInverse operation = backend.symmetricInverse(3);
        var stream = backend.newStream();
        Tensor f = backend.allocate(square, DataType.F32, Layout.ROW_MAJOR);
        Tensor x = backend.allocate(square, DataType.F32, Layout.ROW_MAJOR);
        Tensor r = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
        Tensor s = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.require("matrix", f, t -> operation.run(stream, t, 1, x, r));
      refusals.require("inverse", x, t -> operation.run(stream, f, 1, t, r));
      refusals.requireElements("residual", r, t -> operation.run(stream, f, 1, x, t));
      refusals.requireElements("shift", r, t -> operation.run(stream, f, t, x, s, null));
      Refusals.requireMessage(
          OperandException.class, () -> operation.run(stream, f, s, x, r, x), "scratch");
      Refusals.requireMessage(
          OperandException.class, () -> operation.run(stream, f, 1, f, r), "overlap");
      Refusals.requireClosing(operation, () -> operation.run(stream, f, 1, x, r));
    }
  }
}
