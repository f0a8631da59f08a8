package io.jtrelu.random;

/**
 * Philox4x32-10 (Salmon et al., <i>Parallel random numbers: as easy as 1, 2, 3</i>, SC 2011): a
 * counter-based generator, so that any element of any stream can be computed by itself, the same on
 * every device.
 *
 * <p>Element i of the stream (seed, sequence) is word i mod 4 of the block whose counter is (i/4
 * low, i/4 high, sequence low, sequence high) under the key (seed low, seed high).
 */
public final class Philox {
  private static final int M0 = 0xD2511F53;
  private static final int M1 = 0xCD9E8D57;
  private static final int W0 = 0x9E3779B9;
  private static final int W1 = 0xBB67AE85;

  private Philox() {}

  /**
   * One block of four words.
   *
   * @param words receives the words at [0, 4)
   */
  public static void block(long seed, long sequence, long block, int[] words) {
    int c0 = (int) block;
    int c1 = (int) (block >>> 32);
    int c2 = (int) sequence;
    int c3 = (int) (sequence >>> 32);
    int k0 = (int) seed;
    int k1 = (int) (seed >>> 32);
    for (int round = 0; round < 10; round++) {
      long p0 = (M0 & 0xffffffffL) * (c0 & 0xffffffffL);
      long p1 = (M1 & 0xffffffffL) * (c2 & 0xffffffffL);
      c0 = (int) (p1 >>> 32) ^ c1 ^ k0;
      c1 = (int) p1;
      c2 = (int) (p0 >>> 32) ^ c3 ^ k1;
      c3 = (int) p0;
      k0 += W0;
      k1 += W1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
  }

  /**
   * A word as a uniform number in (0, 1]: (top 24 bits + 1/2, rounded to binary32) / 2^24. Half of
   * the words lose the 1/2 in the rounding, to even; 1 itself occurs once in 2^24 words.
   */
  public static float uniform(int word) {
    return ((word >>> 8) + 0.5f) * 0x1p-24f;
  }

  /**
   * Two words as a standard normal pair by Box and Muller: r = sqrt(-2 ln u0), (r cos 2 pi u1, r
   * sin 2 pi u1), computed in binary64 and rounded.
   *
   * @param normals receives the pair at [offset, offset + 2)
   */
  public static void normals(int word0, int word1, float[] normals, int offset) {
    double radius = Math.sqrt(-2 * Math.log(uniform(word0)));
    double angle = 2 * Math.PI * uniform(word1);
    normals[offset] = (float) (radius * Math.cos(angle));
    normals[offset + 1] = (float) (radius * Math.sin(angle));
  }
}
