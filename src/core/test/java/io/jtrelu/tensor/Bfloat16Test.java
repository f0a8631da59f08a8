package io.jtrelu.tensor;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import org.junit.jupiter.api.Test;

/** Rounding to bfloat16 against rounding by arithmetic in binary64. */
class Bfloat16Test {
  private static final double LARGEST = 0x1.fep127;

  /** The nearest multiple of the spacing at that size, ties to even; beyond the range, infinity. */
  private static double nearest(double value) {
    int exponent = Math.max(-126, Math.getExponent(value));
    double spacing = Math.scalb(1.0, exponent - 7);
    double rounded = Math.rint(value / spacing) * spacing;
    return Math.abs(rounded) > LARGEST ? Math.copySign(Double.POSITIVE_INFINITY, value) : rounded;
  }

  private static float round(float value) {
    return Bfloat16.toFloat(Bfloat16.fromFloat(value));
  }

  private static void check(float value) {
    float rounded = round(value);
    if (Float.isNaN(value)) {
      assertTrue(Float.isNaN(rounded), "NaN became " + rounded);
    } else if (Float.isInfinite(value)) {
      assertEquals(value, rounded);
    } else {
      assertEquals((float) nearest(value), rounded, () -> "rounding " + Float.toHexString(value));
    }
  }

  @Property(tries = 20_000)
  void anyBits(@ForAll int bits) {
    check(Float.intBitsToFloat(bits));
  }

  /** Every number of the type comes back; beside and at each tie the rounding is right. */
  @Test
  void everyNumberAndTie() {
    for (int high = 0; high < 1 << 16; high++) {
      float exact = Float.intBitsToFloat(high << 16);
      if (!Float.isNaN(exact)) {
        assertEquals((short) high, Bfloat16.fromFloat(exact));
        assertEquals(exact, Bfloat16.toFloat((short) high));
      }
      for (int low : new int[] {0x0001, 0x7fff, 0x8000, 0x8001, 0xffff}) {
        check(Float.intBitsToFloat(high << 16 | low));
      }
    }
  }

  @Test
  void edges() {
    assertEquals(Float.POSITIVE_INFINITY, round(Float.MAX_VALUE));
    assertEquals(Float.NEGATIVE_INFINITY, round(-Float.MAX_VALUE));
    assertEquals((float) LARGEST, round((float) LARGEST));
    assertEquals((short) 0x8000, Bfloat16.fromFloat(-0f));
    // A NaN whose payload lies in the lower half alone must not become infinity.
    assertTrue(Float.isNaN(round(Float.intBitsToFloat(0x7f800001))));
    assertTrue(Float.isNaN(round(Float.intBitsToFloat(0xff80ffff))));
    assertEquals(1f, round(1 + 0x1p-8f)); // a tie, to even below
    assertEquals(1 + 0x1p-6f, round(1 + 0x1p-7f + 0x1p-8f)); // a tie, to even above
  }
}
