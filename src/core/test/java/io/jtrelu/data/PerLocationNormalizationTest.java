package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class PerLocationNormalizationTest {
  /** The formula of the class comment, in double. */
  private static double[] expected(
      double[] values, int locations, double[] mean, double[] std, Homogeneous homogeneous) {
    int c = mean.length;
    double[] x = new double[values.length];
    double all = 0;
    for (int i = 0; i < x.length; i++) {
      x[i] = (values[i] - mean[i % c]) / std[i % c];
      all += x[i] * x[i] / x.length;
    }
    if (homogeneous == Homogeneous.NONE) {
      return x;
    }
    double[] y = new double[locations * (c + 1)];
    for (int p = 0; p < locations; p++) {
      double appended = homogeneous == Homogeneous.ONE ? 1 : Math.sqrt(all);
      double q = appended * appended / (c + 1);
      for (int k = 0; k < c; k++) {
        q += x[p * c + k] * x[p * c + k] / (c + 1);
      }
      for (int k = 0; k < c; k++) {
        y[p * (c + 1) + k] = x[p * c + k] / Math.sqrt(q);
      }
      y[p * (c + 1) + c] = appended / Math.sqrt(q);
    }
    return y;
  }

  private static Tensor floats(int n, int h, int w, int c) {
    return Tensor.allocate(Shape.of(n, h, w, c), DataType.F32, Layout.NHWC);
  }

  private static void assertMeanSquareOne(float[] y, int channels) {
    for (int p = 0; p < y.length; p += channels) {
      double q = 0;
      for (int k = 0; k < channels; k++) {
        q += (double) y[p + k] * y[p + k] / channels;
      }
      // Each output is rounded once (2^-24 relative), so q is within 2^-23.
      assertTrue(Math.abs(q - 1) <= 1.3e-7, "mean square " + q + " at location " + p / channels);
    }
  }

  @ParameterizedTest
  @EnumSource
  void followsItsFormulaOnBytesAndOnFloats(Homogeneous homogeneous) {
    Random random = new Random(7);
    for (int c : new int[] {1, 2, 3, 5}) {
      double[] mean = new double[c];
      double[] std = new double[c];
      for (int k = 0; k < c; k++) {
        mean[k] = random.nextDouble();
        std[k] = 0.1 + random.nextDouble();
      }
      PerLocationNormalization pln = new PerLocationNormalization(mean, std, homogeneous);
      int n = 3;
      int h = 4;
      int w = 5;
      try (Tensor bytes = Tensor.allocate(Shape.of(n, h, w, c), DataType.U8, Layout.NHWC);
          Tensor reals = floats(n, h, w, c);
          Tensor fromBytes = floats(n, h, w, pln.outputChannels());
          Tensor fromReals = floats(n, h, w, pln.outputChannels())) {
        int each = h * w * c;
        byte[] raw = new byte[n * each];
        random.nextBytes(raw);
        bytes.segment().copyFrom(MemorySegment.ofArray(raw));
        for (int i = 0; i < raw.length; i++) {
          reals.put(i, (raw[i] & 0xff) / 255f);
        }
        pln.apply(bytes, fromBytes);
        pln.apply(reals, fromReals);
        float[] a = fromBytes.toFloatArray();
        float[] b = fromReals.toFloatArray();
        for (int i = 0; i < n; i++) {
          double[] values = new double[each];
          for (int j = 0; j < each; j++) {
            values[j] = (raw[i * each + j] & 0xff) / 255.0;
          }
          double[] y = expected(values, h * w, mean, std, homogeneous);
          for (int j = 0; j < y.length; j++) {
            assertEquals(y[j], a[i * y.length + j], 1e-5);
            assertEquals(y[j], b[i * y.length + j], 1e-5);
          }
        }
        if (homogeneous != Homogeneous.NONE) {
          assertMeanSquareOne(a, c + 1);
          assertMeanSquareOne(b, c + 1);
        }
      }
    }
  }

  @Test
  void withoutAHomogeneousChannelValuesAreStandardisedAlone() {
    PerLocationNormalization pln =
        new PerLocationNormalization(
            new double[] {0.2, 0}, new double[] {0.4, 0.5}, Homogeneous.NONE);
    assertEquals(2, pln.outputChannels());
    float[] y = new float[4];
    pln.apply(new byte[] {51, 0, (byte) 255, 51}, y); // 0.2 0, 1 0.2
    assertArrayEquals(new float[] {0, 0, 2, 0.4f}, y, 1e-6f);
  }

  @Test
  void oneGrayPixelByHand() {
    // v = 51/255 = 0.2, x = (0.2 - 0.5) / 0.4 = -0.75, (x, 1) has length 1.25: (-0.6, 0.8) sqrt 2.
    PerLocationNormalization pln =
        new PerLocationNormalization(new double[] {0.5}, new double[] {0.4}, Homogeneous.ONE);
    float[] y = new float[2];
    pln.apply(new byte[] {51}, y);
    assertEquals(-0.6 * Math.sqrt(2), y[0], 1e-6);
    assertEquals(0.8 * Math.sqrt(2), y[1], 1e-6);
    pln.apply(new byte[] {(byte) 255}, y); // unsigned: x = 1.25
    assertEquals(1.25 / Math.sqrt((1.25 * 1.25 + 1) / 2), y[0], 1e-6);
  }

  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "NONE")
  void allZeroAndExtremeImagesKeepMeanSquareOne(Homogeneous homogeneous) {
    PerLocationNormalization pln = PerLocationNormalization.plain(3, homogeneous);
    for (float scale : new float[] {0, 1e-38f, 1e-30f, 1, 1e30f}) {
      try (Tensor src = floats(1, 2, 2, 3);
          Tensor dst = floats(1, 2, 2, 4)) {
        src.set(0, 0, 0, scale, 0, 0, scale, -scale, scale, -2 * scale, 3 * scale, scale);
        pln.apply(src, dst);
        assertMeanSquareOne(dst.toFloatArray(), 4);
        if (scale == 0) {
          assertArrayEquals(
              new float[] {0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2},
              dst.toFloatArray(),
              Float.MIN_VALUE); // -0 equals 0
        }
      }
    }
  }

  @Test
  void imageRmsIgnoresTheScaleOfTheImage() {
    PerLocationNormalization pln = PerLocationNormalization.plain(2, Homogeneous.IMAGE_RMS);
    try (Tensor src = floats(2, 1, 2, 2);
        Tensor dst = floats(2, 1, 2, 3)) {
      src.set(1, 2, -3, 0.5f, 8, 16, -24, 4); // the second image is 8 times the first
      pln.apply(src, dst);
      float[] y = dst.toFloatArray();
      for (int i = 0; i < 6; i++) {
        assertEquals(y[i], y[6 + i], 1e-6);
      }
    }
  }

  @Test
  void nanStaysVisible() {
    PerLocationNormalization pln = PerLocationNormalization.plain(1, Homogeneous.ONE);
    try (Tensor src = floats(1, 1, 2, 1);
        Tensor dst = floats(1, 1, 2, 2)) {
      src.set(Float.NaN, 1);
      pln.apply(src, dst);
      assertTrue(Float.isNaN(dst.get(0)));
      assertEquals(1, dst.get(2), 1e-6);
    }
  }

  @Test
  void constantsComeFromTheData() {
    // Two images of two locations: red 0, 51, 102, 153 (mean 0.3, std 0.2 sqrt(1.25)), green 7.
    ImageDataset data =
        ImageDataset.of(
            "two",
            Split.TRAIN,
            1,
            2,
            2,
            List.of("only"),
            new byte[][] {{0, 7, 51, 7}, {102, 7, (byte) 153, 7}},
            new int[] {0, 0});
    PerLocationNormalization pln = PerLocationNormalization.of(data);
    assertArrayEquals(new double[] {0.3, 7 / 255.0}, pln.mean(), 1e-12);
    assertArrayEquals(new double[] {0.2 * Math.sqrt(1.25), 1}, pln.std(), 1e-12);
    assertEquals(Homogeneous.ONE, pln.homogeneous());
    assertEquals(2, pln.channels());
    assertEquals(3, pln.outputChannels());
  }

  @Test
  void theEmbeddedSetHasTheConstantsThatNumPyFinds() {
    PerLocationNormalization pln = PerLocationNormalization.of(Datasets.open("embedded").train());
    assertEquals(0.2866816471588635, pln.mean()[0], 1e-12);
    assertEquals(0.3540125726600868, pln.std()[0], 1e-12);
  }

  @Test
  void refusesWhatDoesNotFit() {
    PerLocationNormalization pln = PerLocationNormalization.plain(3, Homogeneous.ONE);
    try (Tensor src = floats(1, 2, 2, 3);
        Tensor gray = floats(1, 2, 2, 1);
        Tensor dst = floats(1, 2, 2, 4);
        Tensor flat = Tensor.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR)) {
      assertThrows(IllegalArgumentException.class, () -> pln.apply(gray, dst));
      assertThrows(IllegalArgumentException.class, () -> pln.apply(src, src));
      assertThrows(IllegalArgumentException.class, () -> pln.apply(flat, dst));
      assertThrows(IllegalArgumentException.class, () -> pln.apply(dst, dst));
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> new PerLocationNormalization(new double[1], new double[] {0}, Homogeneous.ONE));
    assertThrows(
        IllegalArgumentException.class,
        () ->
            new PerLocationNormalization(
                new double[] {Double.NaN}, new double[] {1}, Homogeneous.ONE));
    assertThrows(
        IllegalArgumentException.class,
        () -> new PerLocationNormalization(new double[2], new double[] {1}, Homogeneous.ONE));
  }

  @Test
  void anEmptyBatchIsFine() {
    PerLocationNormalization pln = PerLocationNormalization.plain(1, Homogeneous.ONE);
    try (Tensor src = floats(0, 2, 2, 1);
        Tensor dst = floats(0, 2, 2, 2)) {
      pln.apply(src, dst);
      assertEquals(0, dst.segment().byteSize());
    }
  }

  /** What never varies is 0 in every image: nothing is divided by, and no rounding is blown up. */
  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "NONE")
  void constantImagesBecomeTheHomogeneousChannelAlone(Homogeneous homogeneous) {
    for (int value = 0; value < 256; value++) {
      byte[] flat = new byte[3 * 5 * 7];
      Arrays.fill(flat, (byte) value);
      ImageDataset data =
          ImageDataset.of(
              "flat", Split.TRAIN, 5, 7, 3, List.of("a"), new byte[][] {flat, flat}, new int[2]);
      float[] dst = new float[4 * 5 * 7];
      PerLocationNormalization.of(data, homogeneous).apply(flat, dst);
      for (int i = 0; i < dst.length; i++) {
        assertEquals(i % 4 == 3 ? 2f : 0f, dst[i], "value " + value + " at " + i); // sqrt(3 + 1)
      }
    }
  }
}
