package io.jtrelu.random;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.concurrent.ForkJoinPool;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Orthonormal, the matrix of the definition, and Haar. */
class OrthogonalMatrixTest {

  @ParameterizedTest
  @CsvSource({
    "1,1", "1,9", "9,1", "2,2", "31,33", "33,31", "32,32", "64,64", "65,65", "129,66", "66,129",
    "576,64", "64,576", "300,300"
  })
  void orthonormal(int rows, int cols) {
    float[] q = OrthogonalMatrix.of(rows, cols, 1, 7, 0);
    assertEquals(rows * cols, q.length);
    int k = Math.min(rows, cols);
    int m = Math.max(rows, cols);
    for (int a = 0; a < k; a++) {
      for (int b = 0; b <= a; b++) {
        double sum = 0;
        for (int i = 0; i < m; i++) {
          sum +=
              rows >= cols
                  ? (double) q[i * cols + a] * q[i * cols + b]
                  : (double) q[a * cols + i] * q[b * cols + i];
        }
        double error = Math.abs(sum - (a == b ? 1 : 0));
        assertTrue(error <= 6e-7, "|Q^T Q - I| at " + a + ", " + b + " is " + error);
      }
    }
  }

  /** Each column by itself: D e_c, then H_{k-1}, .., H_0 applied to the whole vector. */
  @ParameterizedTest
  @CsvSource({"1,1", "2,2", "7,4", "4,7", "40,35", "35,40", "70,70", "33,1", "1,33"})
  void matrixOfTheDefinition(int rows, int cols) {
    long seed = 0x123456789abcdefL;
    long sequence = -17; // streams wrap around
    int m = Math.max(rows, cols);
    int k = Math.min(rows, cols);
    float[] actual = OrthogonalMatrix.of(rows, cols, 1.5f, seed, sequence);
    for (int c = 0; c < k; c++) {
      double[] x = new double[m];
      x[c] = normal(seed, sequence + c, 0) >= 0 ? -1 : 1;
      for (int j = k - 1; j >= 0; j--) {
        double[] v = new double[m];
        double square = 0;
        for (int i = j; i < m; i++) {
          v[i] = normal(seed, sequence + j, i - j);
          square += v[i] * v[i];
        }
        v[j] += v[j] >= 0 ? Math.sqrt(square) : -Math.sqrt(square);
        double vv = 0;
        double vx = 0;
        for (int i = 0; i < m; i++) {
          vv += v[i] * v[i];
          vx += v[i] * x[i];
        }
        for (int i = 0; i < m; i++) {
          x[i] -= 2 * v[i] * vx / vv;
        }
      }
      for (int i = 0; i < m; i++) {
        float element = rows >= cols ? actual[i * cols + c] : actual[c * cols + i];
        assertEquals(1.5 * x[i], element, 2e-7, "element " + i + " of vector " + c);
      }
    }
  }

  /** Normal number i of a stream by Box and Muller, written out once more. */
  private static double normal(long seed, long sequence, int i) {
    int[] words = new int[4];
    Philox.block(seed, sequence, i / 4, words);
    int pair = i % 4 & 2;
    double radius = Math.sqrt(-2 * Math.log(Philox.uniform(words[pair])));
    double angle = 2 * Math.PI * Philox.uniform(words[pair + 1]);
    return (float) (radius * (i % 2 == 0 ? Math.cos(angle) : Math.sin(angle)));
  }

  /**
   * On O(4): the trace's moments are those of a standard normal up to the fourth (Diaconis and
   * Shahshahani, 1994), entries are symmetric with E q^2 = 1/n and E q^4 = 3/(n(n+2)), the
   * determinant is 1 or -1 equally often.
   */
  @Test
  void haarMoments() {
    int n = 4;
    int samples = 4000;
    Mean trace = new Mean();
    Mean trace2 = new Mean();
    Mean trace4 = new Mean();
    Mean determinant = new Mean();
    Mean[] entry = new Mean[n * n];
    Mean[] entry2 = new Mean[n * n];
    Mean[] entry4 = new Mean[n * n];
    for (int i = 0; i < n * n; i++) {
      entry[i] = new Mean();
      entry2[i] = new Mean();
      entry4[i] = new Mean();
    }
    Mean neighbours = new Mean();
    double before = 0;
    for (int sample = 0; sample < samples; sample++) {
      float[] q = OrthogonalMatrix.of(n, n, 1, 2024, (long) sample * n);
      double sum = q[0] + q[5] + q[10] + q[15];
      trace.add(sum);
      trace2.add(sum * sum);
      trace4.add(sum * sum * sum * sum);
      determinant.add(determinant(q, n));
      for (int i = 0; i < n * n; i++) {
        double square = q[i] * q[i];
        entry[i].add(q[i]);
        entry2[i].add(square);
        entry4[i].add(square * square);
      }
      neighbours.add(q[0] * before);
      before = q[0];
    }
    trace.expect("trace", 0);
    trace2.expect("trace^2", 1);
    trace4.expect("trace^4", 3);
    determinant.expect("determinant", 0);
    for (int i = 0; i < n * n; i++) {
      entry[i].expect("entry " + i, 0);
      entry2[i].expect("entry^2 " + i, 1.0 / n);
      entry4[i].expect("entry^4 " + i, 3.0 / (n * (n + 2)));
    }
    neighbours.expect("products of consecutive matrices", 0);
  }

  /** Rows of a wide matrix are uniform on the sphere of R^5. */
  @Test
  void rowsOfWideMatricesAreUniform() {
    Mean entry = new Mean();
    Mean entry2 = new Mean();
    Mean entry4 = new Mean();
    for (int sample = 0; sample < 4000; sample++) {
      double q = OrthogonalMatrix.of(3, 5, 1, sample, 9)[2 * 5 + 1];
      entry.add(q);
      entry2.add(q * q);
      entry4.add(q * q * q * q);
    }
    entry.expect("entry", 0);
    entry2.expect("entry^2", 1.0 / 5);
    entry4.expect("entry^4", 3.0 / (5 * 7));
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

  @Test
  void sameArgumentsSameMatrixOnAnyNumberOfThreads() throws Exception {
    float[] q = OrthogonalMatrix.of(100, 70, 1, 5, 6);
    assertArrayEquals(q, OrthogonalMatrix.of(100, 70, 1, 5, 6));
    for (int threads : new int[] {1, 3}) {
      ForkJoinPool pool = new ForkJoinPool(threads);
      try {
        assertArrayEquals(q, pool.submit(() -> OrthogonalMatrix.of(100, 70, 1, 5, 6)).get());
      } finally {
        pool.shutdown();
      }
    }
  }

  @Test
  void seedsAndSequencesDiffer() {
    float[] q = OrthogonalMatrix.of(8, 8, 1, 5, 6);
    assertFalse(Arrays.equals(q, OrthogonalMatrix.of(8, 8, 1, 6, 6)));
    assertFalse(Arrays.equals(q, OrthogonalMatrix.of(8, 8, 1, 5 + (1L << 32), 6)));
    assertFalse(Arrays.equals(q, OrthogonalMatrix.of(8, 8, 1, 5, 7)));
    assertFalse(Arrays.equals(q, OrthogonalMatrix.of(8, 8, 1, 5, 6 + (1L << 32))));
  }

  @Test
  void wideIsTheTransposeOfTall() {
    float[] tall = OrthogonalMatrix.of(37, 11, 1, 5, 6);
    float[] wide = OrthogonalMatrix.of(11, 37, 1, 5, 6);
    for (int i = 0; i < 37; i++) {
      for (int j = 0; j < 11; j++) {
        assertEquals(tall[i * 11 + j], wide[j * 37 + i]);
      }
    }
  }

  /** A power of two scales exactly. */
  @Test
  void gainIsAFactor() {
    float[] q = OrthogonalMatrix.of(9, 6, 1, 5, 6);
    float[] scaled = OrthogonalMatrix.of(9, 6, -4, 5, 6);
    for (int i = 0; i < q.length; i++) {
      assertEquals(-4 * q[i], scaled[i]);
    }
  }

  @Test
  void linearIsScaleCorrected() {
    assertArrayEquals(
        OrthogonalMatrix.of(36, 4, 1.5f, 1, 2), OrthogonalMatrix.linear(36, 4, 0.5, 1, 2));
    assertArrayEquals(
        OrthogonalMatrix.of(4, 36, 0.5f, 1, 2), OrthogonalMatrix.linear(4, 36, 0.5, 1, 2));
    assertEquals(3, OrthogonalMatrix.scaleCorrection(36, 4));
    assertEquals(1, OrthogonalMatrix.scaleCorrection(4, 36));
    assertEquals(1, OrthogonalMatrix.scaleCorrection(5, 5));
  }

  @Test
  void refusals() {
    refused(() -> OrthogonalMatrix.of(0, 4, 1, 1, 1), "0x4");
    refused(() -> OrthogonalMatrix.of(3, -1, 1, 1, 1), "3x-1");
    refused(() -> OrthogonalMatrix.of(65536, 65536, 1, 1, 1), "65536x65536");
    refused(() -> OrthogonalMatrix.of(2, 2, Float.NaN, 1, 1), "gain");
    refused(() -> OrthogonalMatrix.of(2, 2, Float.POSITIVE_INFINITY, 1, 1), "gain");
    refused(() -> OrthogonalMatrix.linear(2, 2, 1e300, 1, 1), "gain");
  }

  private static void refused(Runnable call, String said) {
    String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
    assertTrue(message.contains(said), message);
  }
}
