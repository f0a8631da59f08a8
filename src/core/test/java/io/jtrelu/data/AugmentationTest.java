package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class AugmentationTest {
  private static final int H = 4;
  private static final int W = 5;
  private static final int C = 2;

  /** Every value differs and none is 0, so that places can be told apart. */
  private static byte[] source() {
    byte[] image = new byte[H * W * C];
    for (int i = 0; i < image.length; i++) {
      image[i] = (byte) (i + 1);
    }
    return image;
  }

  /** Pixel by pixel: dst(y, x) = src(y + dy, x' + dx), x' = x or W-1-x, 0 outside. */
  private static byte[] shifted(int dy, int dx, boolean flip) {
    byte[] src = source();
    byte[] dst = new byte[src.length];
    for (int y = 0; y < H; y++) {
      for (int x = 0; x < W; x++) {
        int sy = y + dy;
        int sx = (flip ? W - 1 - x : x) + dx;
        for (int c = 0; c < C; c++) {
          if (sy >= 0 && sy < H && sx >= 0 && sx < W) {
            dst[(y * W + x) * C + c] = src[(sy * W + sx) * C + c];
          }
        }
      }
    }
    return dst;
  }

  private static byte[] apply(Augmentation how, long seed, long epoch, int index) {
    byte[] dst = new byte[H * W * C];
    Arrays.fill(dst, (byte) 77); // what was there before must not show
    how.apply(source(), dst, H, W, C, seed, epoch, index);
    return dst;
  }

  @Test
  void everyCropAndFlipOccursAboutEquallyOften() {
    int padding = 2;
    Map<String, Integer> count = new HashMap<>();
    for (int dy = -padding; dy <= padding; dy++) {
      for (int dx = -padding; dx <= padding; dx++) {
        count.put(Arrays.toString(shifted(dy, dx, false)), 0);
        count.put(Arrays.toString(shifted(dy, dx, true)), 0);
      }
    }
    assertEquals(50, count.size());
    int draws = 20_000;
    for (int i = 0; i < draws; i++) {
      String image = Arrays.toString(apply(new Augmentation(padding, true), 5, i / 100, i % 100));
      assertTrue(count.containsKey(image), image);
      count.merge(image, 1, Integer::sum);
    }
    // Chi-squared with 49 degrees of freedom: the 99.99 % quantile is 94.
    double chi = 0;
    double mean = draws / 50.0;
    for (int n : count.values()) {
      chi += (n - mean) * (n - mean) / mean;
    }
    assertTrue(chi <= 94, "chi-squared " + chi);
  }

  @Test
  void paddingBeyondTheImageGivesBlackOrAPieceOfIt() {
    List<String> valid = new ArrayList<>();
    for (int dy = -9; dy <= 9; dy++) {
      for (int dx = -9; dx <= 9; dx++) {
        valid.add(Arrays.toString(shifted(dy, dx, false)));
      }
    }
    for (int i = 0; i < 500; i++) {
      assertTrue(valid.contains(Arrays.toString(apply(new Augmentation(9, false), 1, 0, i))));
    }
  }

  @Test
  void dependsOnSeedEpochAndIndexAlone() {
    Augmentation how = new Augmentation(2, true);
    assertArrayEquals(apply(how, 1, 2, 3), apply(how, 1, 2, 3));
    for (long[] other : new long[][] {{2, 2, 3}, {1, 3, 3}, {1, 2, 4}}) {
      boolean differs = false;
      for (int i = 0; i < 10; i++) {
        differs |=
            !Arrays.equals(
                apply(how, 1, 2, 3 + 10 * i),
                apply(how, other[0], other[1], (int) other[2] + 10 * i));
      }
      assertTrue(differs);
    }
  }

  /** What a device is told to do is what the loader does. */
  @Test
  void windowsSayWhatIsApplied() {
    Augmentation how = new Augmentation(3, true);
    for (int i = 0; i < 300; i++) {
      Augmentation.Window window = how.window(7, 1, i);
      assertArrayEquals(
          shifted(window.dy(), window.dx(), window.flip()), apply(how, 7, 1, i), window.toString());
    }
  }

  @Test
  void noneChangesNothing() {
    assertTrue(Augmentation.NONE.isNone());
    assertArrayEquals(source(), apply(Augmentation.NONE, 1, 2, 3));
    assertThrows(IllegalArgumentException.class, () -> new Augmentation(-1, false));
  }

  @Test
  void randomNumbersAreThoseOfSplitMix64() {
    // First outputs of the published generator for seed 0 and 1234567.
    assertEquals(0xE220A8397B1DCDAFL, CounterRandom.value(0, 0));
    assertEquals(0x6E789E6AA1B965F4L, CounterRandom.value(0, 1));
    assertEquals(6457827717110365317L, CounterRandom.value(1234567, 0));
    assertEquals(3203168211198807973L, CounterRandom.value(1234567, 1));
  }
}
