package io.jtrelu.benchmarks;

/** STREAM's triad, a = b + s * c, on one thread: this machine's practical ceiling for bytes. */
final class Bandwidth {
  private final float[] a;
  private final float[] b;
  private final float[] c;

  /**
   * @param bytes of the three arrays together: well below a cache's size for that cache, several
   *     times the last one's for memory
   */
  Bandwidth(long bytes) {
    int count = Math.toIntExact(bytes / 3 / Float.BYTES);
    a = new float[count];
    b = new float[count];
    c = new float[count];
    for (int i = 0; i < count; i++) {
      b[i] = i % 7;
      c[i] = i % 11;
    }
    triad();
    if (a[count - 1] != b[count - 1] + 3 * c[count - 1]) {
      throw new IllegalStateException("the triad computes " + a[count - 1]);
    }
  }

  /** One pass. */
  void triad() {
    for (int i = 0; i < a.length; i++) {
      a[i] = b[i] + 3 * c[i];
    }
  }

  /** Bytes that a pass reads and writes, without those that a write brings into the cache. */
  double bytes() {
    return 3.0 * a.length * Float.BYTES;
  }
}
