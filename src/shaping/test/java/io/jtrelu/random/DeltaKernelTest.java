package io.jtrelu.random;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Where the numbers of a Delta kernel lie, and what they do to a signal. */
class DeltaKernelTest {

  /** Every layout against its definition: the matrix of the group at the centre, zero elsewhere. */
  @ParameterizedTest
  @CsvSource({
    "1,1,1,1,1",
    "4,3,1,1,1",
    "4,3,3,3,1",
    "3,4,3,5,1",
    "8,4,5,1,2",
    "6,9,3,3,3",
    "5,5,3,3,5",
    "10,5,7,7,5"
  })
  void layouts(int oc, int ic, int kh, int kw, int groups) {
    DeltaKernel kernel = new DeltaKernel(oc, ic, kh, kw, groups);
    float[] krsc = kernel.krsc(0.75, 11, 100);
    float[] oihw = kernel.oihw(0.75, 11, 100);
    float[] hwio = kernel.hwio(0.75, 11, 100);
    int rows = oc / groups;
    int cols = ic / groups;
    int elements = oc * cols * kh * kw;
    assertEquals(elements, krsc.length);
    assertEquals(elements, oihw.length);
    assertEquals(elements, hwio.length);
    for (int k = 0; k < oc; k++) {
      long sequence = 100 + (long) (k / rows) * Math.min(rows, cols);
      float[] matrix = OrthogonalMatrix.linear(rows, cols, 0.75, 11, sequence);
      for (int c = 0; c < cols; c++) {
        for (int r = 0; r < kh; r++) {
          for (int s = 0; s < kw; s++) {
            boolean centre = 2 * r + 1 == kh && 2 * s + 1 == kw;
            float expected = centre ? matrix[k % rows * cols + c] : 0;
            String at = "(" + k + ", " + c + ", " + r + ", " + s + ")";
            assertEquals(expected, krsc[((k * kh + r) * kw + s) * cols + c], at);
            assertEquals(expected, oihw[((k * cols + c) * kh + r) * kw + s], at);
            assertEquals(expected, hwio[((r * kw + s) * cols + c) * oc + k], at);
          }
        }
      }
    }
  }

  /** From fewer channels to as many or more: |W x|^2 / oc = |x|^2 / ic for every x. */
  @ParameterizedTest
  @CsvSource({"16,16", "64,16", "17,5"})
  void wideLayersKeepTheMeanSquare(int oc, int ic) {
    Random random = new Random(3);
    float[] w = centre(oc, ic, 0);
    for (int trial = 0; trial < 10; trial++) {
      double[] x = random.doubles(ic, -1, 1).toArray();
      assertEquals(meanSquare(x), meanSquare(times(w, oc, x)), 2e-6 * meanSquare(x));
    }
  }

  /** To fewer channels it holds on average over directions. */
  @Test
  void narrowLayersKeepTheMeanSquareOnAverage() {
    Random random = new Random(3);
    Mean ratio = new Mean();
    for (int trial = 0; trial < 2000; trial++) {
      double[] x = random.doubles(12, -1, 1).toArray();
      ratio.add(meanSquare(times(centre(4, 12, trial), 4, x)) / meanSquare(x));
    }
    ratio.expect("the ratio of mean squares", 1);
  }

  private static float[] centre(int oc, int ic, long seed) {
    float[] krsc = DeltaKernel.of(oc, ic, 3, 3).krsc(1, seed, 0);
    float[] matrix = new float[oc * ic];
    for (int k = 0; k < oc; k++) {
      System.arraycopy(krsc, (k * 9 + 4) * ic, matrix, k * ic, ic);
    }
    return matrix;
  }

  private static double[] times(float[] w, int rows, double[] x) {
    double[] y = new double[rows];
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < x.length; j++) {
        y[i] += w[i * x.length + j] * x[j];
      }
    }
    return y;
  }

  private static double meanSquare(double[] x) {
    return Arrays.stream(x).map(v -> v * v).average().orElseThrow();
  }

  @Test
  void seedsSequencesAndGroupsDiffer() {
    DeltaKernel kernel = DeltaKernel.of(6, 6, 3, 3);
    float[] values = kernel.oihw(1, 1, 2);
    assertArrayEquals(values, kernel.oihw(1, 1, 2));
    assertFalse(Arrays.equals(values, kernel.oihw(1, 2, 2)));
    assertFalse(Arrays.equals(values, kernel.oihw(1, 1, 3)));
    float[] grouped = new DeltaKernel(8, 8, 1, 1, 2).oihw(1, 1, 2);
    assertFalse(
        Arrays.equals(Arrays.copyOf(grouped, 16), Arrays.copyOfRange(grouped, 16, 32)),
        "two groups with one matrix");
  }

  @Test
  void refusals() {
    refused(() -> DeltaKernel.of(4, 4, 2, 3), "2x3");
    refused(() -> DeltaKernel.of(4, 4, 3, 4), "3x4");
    refused(() -> DeltaKernel.of(0, 4, 3, 3), "oc 0");
    refused(() -> DeltaKernel.of(4, -1, 3, 3), "ic -1");
    refused(() -> DeltaKernel.of(4, 4, 0, 3), "0x3");
    refused(() -> new DeltaKernel(4, 4, 3, 3, 0), "groups 0");
    refused(() -> new DeltaKernel(4, 6, 3, 3, 4), "4 groups");
    refused(() -> new DeltaKernel(6, 4, 3, 3, 4), "4 groups");
    refused(() -> DeltaKernel.of(65535, 65535, 3, 3), "65535");
    refused(() -> DeltaKernel.of(4, 4, 3, 3).krsc(Double.NaN, 1, 1), "gain");
    refused(() -> DeltaKernel.of(4, 4, 3, 3).hwio(Double.NEGATIVE_INFINITY, 1, 1), "gain");
  }

  private static void refused(Runnable call, String said) {
    String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
    assertTrue(message.contains(said), message);
  }
}
