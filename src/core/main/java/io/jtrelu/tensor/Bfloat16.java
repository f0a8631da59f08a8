package io.jtrelu.tensor;

/** Conversions between binary32 and bfloat16 (the upper 16 bits of a binary32). */
public final class Bfloat16 {
  private Bfloat16() {}

  /** Rounds to the nearest bfloat16, ties to even; a NaN stays a (quiet) NaN. */
  public static short fromFloat(float value) {
    int bits = Float.floatToRawIntBits(value);
    if (Float.isNaN(value)) {
      return (short) ((bits >>> 16) | 0x40);
    }
    return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
  }

  /** Widens exactly. */
  public static float toFloat(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }
}
