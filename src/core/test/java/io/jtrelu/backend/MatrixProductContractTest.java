package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.MatrixProduct.Sizes;
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

/** Products of matrices, dense and as parts of wider ones, against sums in binary64. */
class MatrixProductContractTest extends Contract {
  private static final int[] EXTENTS = {1, 2, 3, 5, 16, 31, 33, 64, 70};

  @TestFactory
  Stream<DynamicTest> wholeNumbersAreExact() {
    return tests(random("matrix product whole", 0.2, random -> check(random, true)));
  }

  @TestFactory
  Stream<DynamicTest> realNumbersAreWithinTheirRoundings() {
    return tests(random("matrix product real", 0.2, random -> check(random, false)));
  }

  private static int extent(SplittableRandom random) {
    return EXTENTS[random.nextInt(EXTENTS.length)];
  }

  private void check(SplittableRandom random, boolean whole) {
    check(random, whole, extent(random), extent(random), extent(random));
  }

  private void check(SplittableRandom random, boolean whole, int m, int n, int k) {
    boolean ta = random.nextBoolean();
    boolean tb = random.nextBoolean();
    Sizes sizes =
        new Sizes(
            m,
            n,
            k,
            ta,
            tb,
            (ta ? m : k) + random.nextInt(3),
            (tb ? k : n) + random.nextInt(3),
            n + random.nextInt(3),
            pick(random, 1, 1, 1, 2, 3));
    float alpha = pick(random, 1f, -1f, 0.5f, 2f);
    float beta = pick(random, 0f, 1f, -0.5f);
    float[] a = values(random, sizes.elementsA(), whole);
    float[] b = values(random, sizes.elementsB(), whole);
    float[] c = values(random, sizes.elementsC(), whole);
    double[] expected = Data.wide(c);
    double[] bound = new double[c.length];
    for (int row = 0; row < sizes.count() * m; row++) {
      int product = row / m;
      int i = row % m;
      int atA = product * sizes.lda() * (ta ? k : m);
      int atB = product * sizes.ldb() * (tb ? n : k);
      for (int j = 0; j < n; j++) {
        int at = row * sizes.ldc() + j;
        double sum = beta == 0 ? 0 : (double) beta * c[at];
        double magnitude = Math.abs(sum);
        for (int l = 0; l < k; l++) {
          double term =
              (double) alpha
                  * a[atA + (ta ? l * sizes.lda() + i : i * sizes.lda() + l)]
                  * b[atB + (tb ? j * sizes.ldb() + l : l * sizes.ldb() + j)];
          sum += term;
          magnitude += Math.abs(term);
        }
        expected[at] = sum;
        // k products, k sums, alpha, beta: each rounds by at most 2^-24 of the sum of magnitudes.
        bound[at] = whole ? 0 : (2 * k + 3) * 0x1p-24 * magnitude;
        if (beta == 0) {
          c[at] = Float.NaN; // counts for nothing
        }
      }
    }
    try (Trial trial = new Trial(backend, sizes);
        MatrixProduct product = backend.matrixProduct(sizes)) {
      var x = trial.input("a", DataType.F32, a);
      var y = trial.input("b", DataType.F32, b);
      var z = trial.inout("c", DataType.F32, c);
      var scale = trial.input("scale", DataType.F32, new float[] {alpha, beta});
      boolean onDevice = random.nextBoolean();
      trial.run(
          stream -> {
            if (onDevice) {
              product.run(stream, scale.tensor(), x.tensor(), y.tensor(), z.tensor());
            } else {
              product.run(stream, alpha, x.tensor(), y.tensor(), beta, z.tensor());
            }
          });
      trial.expectWithin(z, expected, bound);
    }
  }

  private static float[] values(SplittableRandom random, long count, boolean whole) {
    return whole ? Data.integers(random, count, 8) : Data.normals(random, count, 1, DataType.F32);
  }

  /** What K-FAC multiplies: long sums for a few elements, and columns. */
  @TestFactory
  Stream<DynamicTest> thinProducts() {
    return tests(
        Stream.of(new int[] {1, 1, 1000}, new int[] {1, 9, 300}, new int[] {9, 1, 300})
            .map(
                s ->
                    new Case(
                        "thin product " + Arrays.toString(s),
                        () -> check(new SplittableRandom(1), true, s[0], s[1], s[2]))));
  }

  @Test
  void aFactorOfNanLeavesEverything() {
    for (int n : new int[] {1, 5, 40}) {
      Sizes sizes = Sizes.dense(n, n, 3, false, false);
      float[] old = Data.normals(new SplittableRandom(n), (long) n * n, 1, DataType.F32);
      try (Trial trial = new Trial(backend, sizes);
          MatrixProduct product = backend.matrixProduct(sizes)) {
        var a = trial.input("a", DataType.F32, new float[3 * n]);
        var b = trial.input("b", DataType.F32, new float[3 * n]);
        var c = trial.inout("c", DataType.F32, old);
        var scale = trial.input("scale", DataType.F32, new float[] {Float.NaN, 0});
        trial.run(
            stream -> product.run(stream, scale.tensor(), a.tensor(), b.tensor(), c.tensor()));
        trial.expectExactly(c, Data.wide(old));
      }
    }
  }

  @Test
  void unsuitableOperands() {
    for (int[] bad : new int[][] {{0, 1, 1, 1, 1, 1}, {1, 1, 0, 1, 1, 1}, {2, 3, 4, 3, 3, 3}}) {
      assertThrows(
          IllegalArgumentException.class,
          () -> new Sizes(bad[0], bad[1], bad[2], false, false, bad[3], bad[4], bad[5]),
          Arrays.toString(bad));
    }
    try (MatrixProduct product = backend.matrixProduct(Sizes.dense(2, 3, 4, false, false));
        var stream = backend.newStream();
        Tensor a = backend.allocate(Shape.of(8), DataType.F32, Layout.ROW_MAJOR);
        Tensor b = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor c = backend.allocate(Shape.of(6), DataType.F32, Layout.ROW_MAJOR);
        Tensor few = backend.allocate(Shape.of(5), DataType.F32, Layout.ROW_MAJOR);
        Tensor whole = backend.allocate(Shape.of(12), DataType.I32, Layout.ROW_MAJOR)) {
      Refusals.requireMessage(
          OperandException.class,
          () -> product.run(stream, 1, few, b, 0, c),
          "a must hold at least");
      Refusals.requireMessage(
          OperandException.class, () -> product.run(stream, 1, a, whole, 0, c), "b must hold");
      Refusals.requireMessage(
          OperandException.class, () -> product.run(stream, 1, a, b, 0, few), "c must hold");
      Refusals.requireMessage(
          OperandException.class, () -> product.run(stream, 1, a, b, 0, b), "overlap");
      Refusals.requireMessage(
          OperandException.class, () -> product.run(stream, few, a, b, c), "scale must hold");
      Refusals.requireClosing(product, () -> product.run(stream, 1, a, b, 0, c));
    }
  }
}
