package io.jtrelu.random;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

/** The generator against the published vectors, and its numbers against their distributions. */
class PhiloxTest {
  /** The three vectors of Random123's kat_vectors for philox4x32-10. */
  @Test
  void knownAnswers() {
    expect(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    expect(-1, -1, -1, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    // Counter and key from the digits of pi: 243f6a88 85a308d3 13198a2e 03707344, a4093822
    // 299f31d0.
    expect(
        0x299f31d0_a4093822L,
        0x03707344_13198a2eL,
        0x85a308d3_243f6a88L,
        0xd16cfe09,
        0x94fdcceb,
        0x5001e420,
        0x24126ea1);
  }

  private static void expect(long seed, long sequence, long block, int... expected) {
    int[] words = new int[4];
    Philox.block(seed, sequence, block, words);
    assertArrayEquals(expected, words);
  }

  @Test
  void uniformIsNeverZero() {
    assertEquals(0x1p-25f, Philox.uniform(0));
    assertEquals(1f, Philox.uniform(-1)); // rounded; its logarithm is zero, not infinite
    assertEquals(0.5f, Philox.uniform(0x80000000));
  }

  /** Mean and variance of uniforms, first four moments of normals: within five standard errors. */
  @Test
  void moments() {
    int blocks = 50_000;
    int[] words = new int[4];
    float[] normals = new float[4];
    double uniform = 0;
    double square = 0;
    double[] moments = new double[5];
    double correlation = 0;
    for (int block = 0; block < blocks; block++) {
      Philox.block(12345, 6, block, words);
      for (int word : words) {
        double u = Philox.uniform(word);
        uniform += u;
        square += (u - 0.5) * (u - 0.5);
      }
      Philox.normals(words[0], words[1], normals, 0);
      Philox.normals(words[2], words[3], normals, 2);
      correlation += normals[0] * normals[1] + normals[2] * normals[3];
      for (float x : normals) {
        for (int power = 1; power <= 4; power++) {
          moments[power] += Math.pow(x, power);
        }
      }
    }
    double n = 4.0 * blocks;
    close(0.5, uniform / n, Math.sqrt(1.0 / 12 / n));
    close(1.0 / 12, square / n, Math.sqrt(1.0 / 180 / n));
    close(0, moments[1] / n, Math.sqrt(1 / n));
    close(1, moments[2] / n, Math.sqrt(2 / n));
    close(0, moments[3] / n, Math.sqrt(15 / n));
    close(3, moments[4] / n, Math.sqrt(96 / n));
    close(0, correlation / (n / 2), Math.sqrt(1 / (n / 2)));
  }

  private static void close(double expected, double mean, double standardError) {
    assertTrue(
        Math.abs(mean - expected) <= 5 * standardError, mean + " is too far from " + expected);
  }
}
