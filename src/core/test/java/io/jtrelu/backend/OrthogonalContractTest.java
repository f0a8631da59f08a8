package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Random orthogonal matrices: the very matrix of the definition, orthonormal, and Haar. */
class OrthogonalContractTest extends Contract {
  /** Largest |Q^T Q - I| in binary32. */
  private static final double ORTHONORMAL = 6e-7;

  /** Rows and columns: each side of blocks of reflections, wide, tall, single. */
  private static final int[][] SIZES = {
    {1, 1}, {1, 2}, {2, 1}, {2, 2}, {3, 3}, {1, 9}, {9, 1}, {7, 4}, {4, 7}, {8, 8}, {15, 16},
    {16, 15}, {16, 16}, {17, 17}, {31, 33}, {33, 31}, {32, 32}, {64, 10}, {10, 64}, {63, 64},
    {64, 64}, {65, 65}, {66, 3}, {3, 66}, {49, 48}, {48, 49}, {129, 66}, {66, 129}, {67, 1}, {1, 67}
  };

  @TestFactory
  Stream<DynamicTest> matrixOfTheDefinition() {
    List<Case> cases = new ArrayList<>();
    for (int[] size : SIZES) {
      String id = "orthogonal " + size[0] + "x" + size[1];
      cases.add(new Case(id, () -> check(size[0], size[1], 1.5f, id.hashCode(), 1L << 33)));
    }
    return tests(
        Stream.concat(
            cases.stream(),
            random(
                "orthogonal",
                0.1,
                random ->
                    check(
                        random.nextInt(1, 40),
                        random.nextInt(1, 40),
                        (float) random.nextDouble(0.5, 2),
                        random.nextLong(),
                        random.nextLong()))));
  }

  private void check(int rows, int cols, float gain, long seed, long sequence) {
    String description =
        "orthogonal " + rows + "x" + cols + " gain " + gain + " seed " + seed + " " + sequence;
    try (Trial trial = new Trial(backend, description);
        Orthogonal orthogonal = backend.orthogonal(rows, cols, gain)) {
      var dst = trial.output("dst", DataType.F32, Shape.of(rows, cols), Layout.ROW_MAJOR);
      trial.run(stream -> orthogonal.fill(stream, dst.tensor(), seed, sequence));
      double[][] q = definition(Math.max(rows, cols), Math.min(rows, cols), seed, sequence, true);
      double[] expected = new double[rows * cols];
      double[] bound = new double[rows * cols];
      for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols; j++) {
          expected[i * cols + j] = gain * (rows >= cols ? q[i][j] : q[j][i]);
          bound[i * cols + j] = 2e-6 * gain;
        }
      }
      trial.expectWithin(dst, expected, bound);
    }
  }

  /**
   * H_0 H_1 ... H_{k-1} D E with the reflections written out as matrices and multiplied from the
   * left.
   *
   * @param signs whether D is applied; without it the result is what a QR routine gives
   */
  private static double[][] definition(int m, int k, long seed, long sequence, boolean signs) {
    double[][] product = identity(m);
    double[] diagonal = new double[m];
    for (int j = 0; j < k; j++) {
      double[] x = normals(m - j, seed, sequence + j);
      double square = 0;
      for (double value : x) {
        square += value * value;
      }
      double sign = x[0] >= 0 ? 1 : -1;
      diagonal[j] = -sign;
      double[] v = x.clone();
      v[0] += sign * Math.sqrt(square);
      double vv = square - x[0] * x[0] + v[0] * v[0];
      double[][] h = identity(m);
      for (int a = j; a < m; a++) {
        for (int b = j; b < m; b++) {
          h[a][b] -= 2 * v[a - j] * v[b - j] / vv;
        }
      }
      product = multiply(product, h);
    }
    double[][] q = new double[m][k];
    for (int i = 0; i < m; i++) {
      for (int j = 0; j < k; j++) {
        q[i][j] = product[i][j] * (signs ? diagonal[j] : 1);
      }
    }
    return q;
  }

  private static double[][] identity(int m) {
    double[][] matrix = new double[m][m];
    for (int i = 0; i < m; i++) {
      matrix[i][i] = 1;
    }
    return matrix;
  }

  private static double[][] multiply(double[][] a, double[][] b) {
    int m = a.length;
    double[][] c = new double[m][m];
    for (int i = 0; i < m; i++) {
      for (int j = 0; j < m; j++) {
        for (int l = 0; l < m && a[i][j] != 0; l++) {
          c[i][l] += a[i][j] * b[j][l];
        }
      }
    }
    return c;
  }

  /** Normal numbers of a stream by Box and Muller, written out once more. */
  private static double[] normals(int count, long seed, long sequence) {
    double[] normals = new double[count];
    int[] words = new int[4];
    for (int i = 0; i < count; i++) {
      Philox.block(seed, sequence, i / 4, words);
      double radius = Math.sqrt(-2 * Math.log(Philox.uniform(words[i % 4 & 2])));
      double angle = 2 * Math.PI * Philox.uniform(words[(i % 4 & 2) + 1]);
      normals[i] = (float) (radius * (i % 2 == 0 ? Math.cos(angle) : Math.sin(angle)));
    }
    return normals;
  }

  @TestFactory
  Stream<DynamicTest> orthonormal() {
    List<Case> cases = new ArrayList<>();
    for (int[] size :
        new int[][] {
          {100, 100}, {128, 128}, {256, 256}, {300, 65}, {65, 300}, {576, 64}, {193, 193}
        }) {
      int k = Math.min(size[0], size[1]);
      long work = 2L * size[0] * size[1] * k;
      if (work <= 20 * subject.largestConvolution()) {
        String id = "orthonormal " + size[0] + "x" + size[1];
        cases.add(new Case(id, () -> checkOrthonormal(size[0], size[1])));
      }
    }
    return tests(cases.stream());
  }

  private void checkOrthonormal(int rows, int cols) {
    float[] q = matrix(rows, cols, 7, 0);
    int k = Math.min(rows, cols);
    int m = Math.max(rows, cols);
    double worst = 0;
    for (int a = 0; a < k; a++) {
      for (int b = 0; b <= a; b++) {
        double sum = 0;
        for (int i = 0; i < m; i++) {
          sum +=
              rows >= cols
                  ? (double) q[i * cols + a] * q[i * cols + b]
                  : (double) q[a * cols + i] * q[b * cols + i];
        }
        worst = Math.max(worst, Math.abs(sum - (a == b ? 1 : 0)));
      }
    }
    assertTrue(worst <= ORTHONORMAL, "largest |Q^T Q - I| is " + worst);
  }

  private float[] matrix(int rows, int cols, long seed, long sequence) {
    try (Trial trial = new Trial(backend, "orthogonal " + rows + "x" + cols);
        Orthogonal orthogonal = backend.orthogonal(rows, cols, 1)) {
      var dst = trial.output("dst", DataType.F32, Shape.of(rows, cols), Layout.ROW_MAJOR);
      trial.run(stream -> orthogonal.fill(stream, dst.tensor(), seed, sequence));
      return dst.values();
    }
  }

  /** Sample mean of a statistic against its expectation, within five standard errors. */
  private static final class Mean {
    private double sum;
    private double squares;
    private int count;

    void add(double value) {
      sum += value;
      squares += value * value;
      count++;
    }

    /** Distance from an expectation in standard errors. */
    double errorsFrom(double expectation) {
      double mean = sum / count;
      double variance = squares / count - mean * mean;
      return Math.abs(mean - expectation) / Math.sqrt(variance / count);
    }

    void expect(String name, double expectation) {
      assertTrue(
          errorsFrom(expectation) <= 5,
          "mean of "
              + name
              + " is "
              + sum / count
              + ", "
              + errorsFrom(expectation)
              + " standard errors from "
              + expectation);
    }
  }

  /**
   * Moments of the Haar measure on O(4): the trace's first four are those of a standard normal
   * (Diaconis and Shahshahani, 1994), entries are symmetric with E q^2 = 1/n and E q^4 =
   * 3/(n(n+2)), the determinant is 1 or -1 equally often.
   */
  @Test
  void haarMoments() {
    int n = 4;
    int samples = Math.min(4000, 15 * subject.randomCases());
    Mean trace = new Mean();
    Mean trace2 = new Mean();
    Mean trace4 = new Mean();
    Mean determinant = new Mean();
    Mean[] entries = new Mean[n * n];
    Mean entry2 = new Mean();
    Mean entry4 = new Mean();
    Mean neighbours = new Mean();
    float[] before = new float[n * n];
    try (Orthogonal orthogonal = backend.orthogonal(n, n, 1);
        var stream = backend.newStream();
        Tensor dst = backend.allocate(Shape.of(n, n), DataType.F32, Layout.ROW_MAJOR);
        Tensor host = Tensor.allocate(Shape.of(n, n), DataType.F32, Layout.ROW_MAJOR)) {
      for (int sample = 0; sample < samples; sample++) {
        orthogonal.fill(stream, dst, 2024, (long) sample * n);
        backend.copy(stream, dst, host);
        stream.synchronize();
        float[] q = host.toFloatArray();
        double sum = 0;
        for (int i = 0; i < n; i++) {
          sum += q[i * n + i];
        }
        trace.add(sum);
        trace2.add(sum * sum);
        trace4.add(sum * sum * sum * sum);
        determinant.add(determinant(q, n));
        for (int i = 0; i < n * n; i++) {
          entries[i] = entries[i] == null ? new Mean() : entries[i];
          entries[i].add(q[i]);
        }
        entry2.add(q[5] * q[5]);
        entry4.add(Math.pow(q[5], 4));
        if (sample > 0) {
          neighbours.add(q[0] * before[0]);
        }
        before = q;
      }
    }
    trace.expect("trace", 0);
    trace2.expect("trace^2", 1);
    trace4.expect("trace^4", 3);
    determinant.expect("determinant", 0);
    for (int i = 0; i < n * n; i++) {
      entries[i].expect("entry " + i, 0);
    }
    entry2.expect("entry^2", 1.0 / n);
    entry4.expect("entry^4", 3.0 / (n * (n + 2)));
    neighbours.expect("products of consecutive matrices", 0);
  }

  private static double determinant(float[] q, int n) {
    if (n == 1) {
      return q[0];
    }
    double sum = 0;
    for (int column = 0; column < n; column++) {
      float[] minor = new float[(n - 1) * (n - 1)];
      int at = 0;
      for (int i = n; i < n * n; i++) {
        if (i % n != column) {
          minor[at++] = q[i];
        }
      }
      sum += (column % 2 == 0 ? 1 : -1) * q[column] * determinant(minor, n - 1);
    }
    return sum;
  }

  /**
   * The classic error, a QR factor without sign correction, has E q_00 = -2/pi for 2x2; the test of
   * symmetry must see it, and must not see it here.
   */
  @Test
  void notTheUncorrectedFactor() {
    int samples = Math.min(2000, 10 * subject.randomCases());
    Mean classic = new Mean();
    Mean ours = new Mean();
    for (int i = 0; i < samples; i++) {
      classic.add(definition(2, 2, 99, 2L * i, false)[0][0]);
      ours.add(definition(2, 2, 99, 2L * i, true)[0][0]);
    }
    classic.expect("uncorrected q_00", -2 / Math.PI);
    assertTrue(classic.errorsFrom(0) > 20, "the test must tell them apart");
    ours.expect("q_00", 0);
    check(2, 2, 1, 99, 0);
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (Orthogonal orthogonal = backend.orthogonal(3, 4, 1);
        var stream = backend.newStream();
        Tensor dst = backend.allocate(Shape.of(3, 4), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.require("dst", dst, t -> orthogonal.fill(stream, t, 1, 0));
      Refusals.requireMessage(
          IllegalArgumentException.class, () -> backend.orthogonal(0, 4, 1).close(), "0x4");
      Refusals.requireClosing(orthogonal, () -> orthogonal.fill(stream, dst, 1, 0));
    }
  }
}
