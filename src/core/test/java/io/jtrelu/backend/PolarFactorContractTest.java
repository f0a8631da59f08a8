package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
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

/**
 * Polar factors of matrices whose singular vectors and values are known: the vectors stay, and the
 * values are what the polynomial makes of them, computed one by one in binary64.
 */
class PolarFactorContractTest extends Contract {
  private static final int[][] SIZES = {
    {1, 1, 1},
    {1, 7, 2},
    {7, 1, 1},
    {2, 2, 3},
    {3, 5, 1},
    {9, 4, 2},
    {16, 16, 1},
    {10, 64, 1},
    {64, 9, 1},
    {33, 70, 2},
    {32, 65, 1},
    {70, 66, 1}
  };

  @TestFactory
  Stream<DynamicTest> singularVectorsStayAndValuesBecomeThePolynomials() {
    return tests(
        Arrays.stream(SIZES)
            .filter(s -> Math.max(s[0], s[1]) <= subject.largestMatrix())
            .map(
                s ->
                    new Case(
                        "polar factors, " + s[2] + " of " + s[0] + "x" + s[1],
                        () -> check(s[0], s[1], s[2], new SplittableRandom(s[0] * 100L + s[1])))));
  }

  private void check(int rows, int columns, int count, SplittableRandom random) {
    float scale = pick(random, 1f, 0.5f, 3f);
    int side = Math.min(rows, columns);
    int size = rows * columns;
    float[] matrices = new float[count * size];
    double[] expected = new double[count * size];
    for (int matrix = 0; matrix < count; matrix++) {
      double[][] left = orthonormal(random, side, rows);
      double[][] right = orthonormal(random, side, columns);
      double[] values = new double[side];
      double squares = 0;
      for (int i = 0; i < side; i++) {
        values[i] = i == side - 1 && side > 2 ? 0 : Math.exp(-3 * random.nextDouble());
        squares += values[i] * values[i];
      }
      for (int i = 0; i < side; i++) {
        double polynomial = scale * polynomial(values[i] / Math.sqrt(squares));
        for (int e = 0; e < size; e++) {
          double product = left[i][e / columns] * right[i][e % columns];
          matrices[matrix * size + e] += (float) (0.01 * values[i] * product);
          expected[matrix * size + e] += polynomial * product;
        }
      }
    }
    float[] result = run(matrices, rows, columns, count, scale);
    // Roundings: of the matrices, of sums of up to max(rows, columns) terms, five times; and what
    // is
    // wrong in a direction that was small grows by 3.4445 each time.
    double grown = Math.pow(3.4445, 5);
    double bound = scale * grown * (2 * Math.max(rows, columns) + 20) * 0x1p-24;
    for (int matrix = 0; matrix < count; matrix++) {
      double distance = 0;
      for (int e = matrix * size; e < (matrix + 1) * size; e++) {
        distance += Math.pow(result[e] - expected[e], 2);
      }
      assertTrue(
          Math.sqrt(distance) <= bound,
          "matrix " + matrix + " is " + Math.sqrt(distance) + " away, bound " + bound);
    }
  }

  /** What five iterations make of a singular value, from the definition. */
  private static double polynomial(double x) {
    for (int i = 0; i < 5; i++) {
      x = 3.4445 * x - 4.7750 * Math.pow(x, 3) + 2.0315 * Math.pow(x, 5);
    }
    return x;
  }

  /** So many orthonormal vectors, by Gram and Schmidt, twice. */
  private static double[][] orthonormal(SplittableRandom random, int count, int length) {
    double[][] vectors = new double[count][length];
    for (int i = 0; i < count; i++) {
      Arrays.setAll(vectors[i], e -> random.nextGaussian());
      for (int pass = 0; pass < 2; pass++) {
        for (int j = 0; j < i; j++) {
          double inner = inner(vectors[i], vectors[j]);
          for (int e = 0; e < length; e++) {
            vectors[i][e] -= inner * vectors[j][e];
          }
        }
      }
      double norm = Math.sqrt(inner(vectors[i], vectors[i]));
      for (int e = 0; e < length; e++) {
        vectors[i][e] /= norm;
      }
    }
    return vectors;
  }

  private static double inner(double[] a, double[] b) {
    double sum = 0;
    for (int e = 0; e < a.length; e++) {
      sum += a[e] * b[e];
    }
    return sum;
  }

  private float[] run(float[] matrices, int rows, int columns, int count, float scale) {
    String description = count + " of " + rows + "x" + columns + ", scale " + scale;
    try (Trial trial = new Trial(backend, description);
        PolarFactor operation = backend.polarFactor(rows, columns, count, scale)) {
      var operand = trial.inout("matrices", DataType.F32, matrices);
      float[] garbage = new float[Math.toIntExact(operation.scratchElements())];
      Arrays.fill(garbage, Float.NaN); // what scratch holds does not count
      var scratch = trial.inout("scratch", DataType.F32, garbage);
      trial.run(stream -> operation.run(stream, operand.tensor(), scratch.tensor()));
      return operand.values();
    }
  }

  @Test
  void aScaleOfTwoChangesNoBit() {
    float[] matrices = Data.normals(new SplittableRandom(1), 480, 1, DataType.F32);
    float[] scaled = matrices.clone();
    for (int e = 0; e < scaled.length; e++) {
      scaled[e] *= 0x1p-40f;
    }
    assertArrayEquals(run(matrices, 12, 20, 2, 1), run(scaled, 12, 20, 2, 1));
  }

  @Test
  void zerosStayZerosAndNanStaysWhereItIs() {
    int size = 5 * 6;
    float[] matrices = Data.normals(new SplittableRandom(2), 4L * size, 1, DataType.F32);
    float[] alone = run(Arrays.copyOf(matrices, size), 5, 6, 1, 2);
    Arrays.fill(matrices, size, 2 * size, 0);
    matrices[2 * size + 7] = Float.NaN;
    matrices[3 * size] = Float.POSITIVE_INFINITY;
    float[] result = run(matrices, 5, 6, 4, 2);
    assertArrayEquals(alone, Arrays.copyOf(result, size), 1e-6f);
    for (int e = size; e < 2 * size; e++) {
      assertEquals(0f, result[e], "a matrix of zeros, element " + e);
    }
    for (int e = 2 * size; e < 4 * size; e++) {
      assertTrue(Float.isNaN(result[e]), "a matrix with what is not finite, element " + e);
    }
  }

  @Test
  void unsuitableOperands() {
    assertThrows(IllegalArgumentException.class, () -> backend.polarFactor(0, 2, 1, 1));
    assertThrows(IllegalArgumentException.class, () -> backend.polarFactor(2, 2, 0, 1));
    assertThrows(IllegalArgumentException.class, () -> backend.polarFactor(2, 2, 1, Float.NaN));
    try (PolarFactor operation = backend.polarFactor(2, 3, 1, 1);
        var stream = backend.newStream();
        Tensor matrices = backend.allocate(Shape.of(6), DataType.F32, Layout.ROW_MAJOR);
        Tensor few = backend.allocate(Shape.of(5), DataType.F32, Layout.ROW_MAJOR);
        Tensor scratch = backend.allocate(Shape.of(14), DataType.F32, Layout.ROW_MAJOR)) {
      assertEquals(14, operation.scratchElements()); // another [2, 3], and two of [2, 2]
      Refusals.requireMessage(
          OperandException.class, () -> operation.run(stream, few, scratch), "matrices");
      Refusals.requireMessage(
          OperandException.class, () -> operation.run(stream, matrices, few), "scratch");
      Refusals.requireMessage(
          OperandException.class, () -> operation.run(stream, matrices, matrices), "scratch");
    }
  }
}
