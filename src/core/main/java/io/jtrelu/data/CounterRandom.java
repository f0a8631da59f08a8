package io.jtrelu.data;

/**
 * Random numbers addressed by key and counter, so that what a sample gets does not depend on which
 * thread asks first or how often. The n-th value of a key is SplitMix64's output function (Steele,
 * Lea, Flood 2014) at key + n * golden gamma; written out here because a run must repeat bitwise on
 * every JDK.
 */
final class CounterRandom {
  private static final long GOLDEN_GAMMA = 0x9E3779B97F4A7C15L;

  private CounterRandom() {}

  /** A key from a seed and the place it is used at. */
  static long key(long seed, long... place) {
    long key = mix(seed + GOLDEN_GAMMA);
    for (long part : place) {
      key = mix(key + GOLDEN_GAMMA * (part + 1));
    }
    return key;
  }

  /** The n-th value of a key, uniform in 0..bound-1 (bias below bound / 2^63). */
  static int below(long key, long n, int bound) {
    return (int) Math.multiplyHigh(value(key, n) >>> 1, (long) bound << 1);
  }

  /** The n-th value of a key, from 0. */
  static long value(long key, long n) {
    return mix(key + GOLDEN_GAMMA * (n + 1));
  }

  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }
}
