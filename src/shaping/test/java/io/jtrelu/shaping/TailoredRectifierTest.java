package io.jtrelu.shaping;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.math.BigDecimal;
import java.math.MathContext;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import org.junit.jupiter.api.Test;

class TailoredRectifierTest {
  private static final MathContext DIGITS = new MathContext(50);

  /**
   * sin t - t cos t at 1 - cos t = e with 50 digits: t^2 = 2 sum (2e)^n / (n^2 binomial(2n, n)),
   * then the power series in t.
   */
  private static BigDecimal sineMinusCosine(double e) {
    BigDecimal twice = new BigDecimal(e).multiply(BigDecimal.valueOf(2));
    BigDecimal power = BigDecimal.ONE;
    BigDecimal binomial = BigDecimal.ONE;
    BigDecimal t2 = BigDecimal.ZERO;
    for (int n = 1; n < 260; n++) {
      power = power.multiply(twice, DIGITS);
      binomial =
          binomial
              .multiply(BigDecimal.valueOf(2L * (2 * n - 1)), DIGITS)
              .divide(BigDecimal.valueOf(n), DIGITS);
      t2 =
          t2.add(
              power.divide(binomial.multiply(BigDecimal.valueOf((long) n * n), DIGITS), DIGITS),
              DIGITS);
    }
    t2 = t2.multiply(BigDecimal.valueOf(2));
    BigDecimal term = t2.multiply(t2.sqrt(DIGITS), DIGITS).divide(BigDecimal.valueOf(3), DIGITS);
    BigDecimal sum = BigDecimal.ZERO;
    for (int n = 1; n < 40; n++) {
      sum = sum.add(term, DIGITS);
      term = term.multiply(t2, DIGITS).divide(BigDecimal.valueOf(-2L * n * (2 * n + 3)), DIGITS);
    }
    return sum;
  }

  @Property(tries = 300)
  void distanceFromOneKeepsThirteenDigits(
      @ForAll @DoubleRange(min = -18, max = 0.1) double logE,
      @ForAll @DoubleRange(min = 0, max = 1) double slope) {
    double e = Math.pow(10, logE);
    var rectifier = new TailoredRectifier(slope);
    BigDecimal gain = sineMinusCosine(e).multiply(new BigDecimal(rectifier.curvature()), DIGITS);
    double expected = new BigDecimal(e).subtract(gain).doubleValue();
    assertEquals(expected, rectifier.e(e), 1e-13 * expected);
    assertEquals(gain.doubleValue(), rectifier.gain(e), 1e-13 * gain.doubleValue());
  }

  @Test
  void distanceFromOneKeepsThirteenDigitsAtTheSmallest() {
    for (double e : new double[] {1e-16, 1.1e-16, 3e-15, 1e-12, 1e-8, 0.2, 0.25, 0.3, 1}) {
      var rectifier = new TailoredRectifier(0);
      double expected =
          new BigDecimal(e)
              .subtract(sineMinusCosine(e).multiply(new BigDecimal(1 / Math.PI), DIGITS))
              .doubleValue();
      assertEquals(expected, rectifier.e(e), 1e-13 * expected, "e = " + e);
    }
  }

  @Property(tries = 50)
  void mapsAreThoseOfTheFunction(@ForAll @DoubleRange(min = 0, max = 1) double slope) {
    var rectifier = new TailoredRectifier(slope);
    assertEquals(1, GaussKronrod.mean(z -> square(rectifier.value(z)), 0), 1e-12);
    double mean = GaussKronrod.mean(rectifier::value, 0);
    assertEquals(mean * mean, rectifier.c(0), 1e-12);
    assertEquals(1, rectifier.c(1));
    // At c = -1: E[phi(z) phi(-z)].
    double opposite = GaussKronrod.mean(z -> rectifier.value(z) * rectifier.value(-z), 0);
    assertEquals(opposite, rectifier.c(-1), 1e-12);
    double h = 1e-5;
    for (double c = -0.95; c < 1; c += 0.1) {
      assertEquals((rectifier.c(c + h) - rectifier.c(c - h)) / (2 * h), rectifier.cSlope(c), 1e-8);
      assertEquals(
          (rectifier.cSlope(c + h) - rectifier.cSlope(c - h)) / (2 * h),
          rectifier.cCurvature(c),
          1e-7);
    }
  }

  @Property(tries = 50)
  void momentsAreThoseOfTheFunction(@ForAll @DoubleRange(min = 0, max = 0.99) double slope) {
    var rectifier = new TailoredRectifier(slope);
    Moments closed = rectifier.moments();
    Moments integrated = Moments.of(rectifier.transformed());
    assertEquals(closed.q(), integrated.q(), 1e-12);
    assertEquals(closed.qSlope(), integrated.qSlope(), 1e-12);
    assertEquals(closed.c0(), integrated.c0(), 1e-12);
    assertEquals(closed.cSlope(), integrated.cSlope(), 1e-12);
    assertEquals(closed.cCurvature(), integrated.cCurvature());
    assertEquals(closed.fourth(), integrated.fourth(), 1e-11);
  }

  @Test
  void slopesOutsideTheUnitIntervalAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> new TailoredRectifier(-0.1));
    assertThrows(IllegalArgumentException.class, () -> new TailoredRectifier(1.1));
    assertThrows(IllegalArgumentException.class, () -> new TailoredRectifier(Double.NaN));
  }

  private static double square(double x) {
    return x * x;
  }
}
