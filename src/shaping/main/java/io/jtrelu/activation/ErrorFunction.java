package io.jtrelu.activation;

/**
 * erf and erfc to a few units in the last place, in some ten nanoseconds: activations evaluate them
 * tens of thousands of times a solve, which the incomplete gamma function is too slow for.
 *
 * <p>By the rational approximations of W. J. Cody, <i>Rational Chebyshev approximations for the
 * error function</i>, Mathematics of Computation 23 (1969): erf(x) = x R(x^2) near 0, exp(x^2)
 * erfc(x) = R(x) further out, and 1/sqrt(pi) - R(1/x^2) / x^2 over x beyond that.
 */
public final class ErrorFunction {
  private static final double FIRST_BELOW = 0.46875;
  private static final double SECOND_BELOW = 4;

  /** Beyond it erfc underflows. */
  private static final double LARGEST = 28;

  /** Below minus it erfc rounds to 2. */
  private static final double TWO_BEYOND = 6;

  private static final double INVERSE_ROOT_PI = 0.5641895835477563;
  private static final double INVERSE_ROOT_2 = 0.7071067811865476;
  private static final double INVERSE_ROOT_2_PI = 0.3989422804014327;

  private ErrorFunction() {}

  /** erf x. */
  public static double erf(double x) {
    double z = Math.abs(x);
    if (z <= FIRST_BELOW) {
      return central(x);
    }
    return z > TWO_BEYOND ? Math.signum(x) : Math.copySign(1 - tail(z), x);
  }

  /** erfc x = 1 - erf x, without cancellation. */
  public static double erfc(double x) {
    double z = Math.abs(x);
    if (z <= FIRST_BELOW) {
      return 1 - central(x);
    }
    if (x < 0) {
      return z > TWO_BEYOND ? 2 : 2 - tail(z);
    }
    return x > LARGEST ? 0 : tail(x);
  }

  private static double central(double x) {
    double y = x * x;
    double top =
        (((0.18577770618460315 * y + 3.1611237438705655) * y + 113.86415415105016) * y
                    + 377.485237685302)
                * y
            + 3209.3775891384694;
    double bottom =
        (((y + 23.601290952344122) * y + 244.02463793444417) * y + 1282.6165260773723) * y
            + 2844.236833439171;
    return x * top / bottom;
  }

  /** erfc for z above {@link #FIRST_BELOW}. */
  private static double tail(double z) {
    // exp magnifies the rounding of z^2, so it is carried along.
    double square = z * z;
    double rounding = Math.fma(z, z, -square);
    double scaled = z <= SECOND_BELOW ? scaledTail(z) : scaledFarTail(z, 1 / square);
    return Math.exp(-square) * (1 - rounding) * scaled;
  }

  private static double scaledTail(double z) {
    double top = 2.1531153547440383e-08;
    top = top * z + 0.5641884969886701;
    top = top * z + 8.883149794388377;
    top = top * z + 66.11919063714163;
    top = top * z + 298.6351381974001;
    top = top * z + 881.952221241769;
    top = top * z + 1712.0476126340707;
    top = top * z + 2051.0783778260716;
    top = top * z + 1230.3393547979972;
    double bottom = z + 15.744926110709835;
    bottom = bottom * z + 117.6939508913125;
    bottom = bottom * z + 537.1811018620099;
    bottom = bottom * z + 1621.3895745666903;
    bottom = bottom * z + 3290.7992357334597;
    bottom = bottom * z + 4362.619090143247;
    bottom = bottom * z + 3439.3676741437216;
    bottom = bottom * z + 1230.3393548037495;
    return top / bottom;
  }

  private static double scaledFarTail(double z, double y) {
    double top = 0.016315387137302097;
    top = top * y + 0.30532663496123236;
    top = top * y + 0.36034489994980445;
    top = top * y + 0.12578172611122926;
    top = top * y + 0.016083785148742275;
    top = top * y + 0.0006587491615298378;
    double bottom = y + 2.568520192289822;
    bottom = bottom * y + 1.8729528499234604;
    bottom = bottom * y + 0.5279051029514285;
    bottom = bottom * y + 0.06051834131244132;
    bottom = bottom * y + 0.0023352049762686918;
    return (INVERSE_ROOT_PI - y * top / bottom) / z;
  }

  /** The normal distribution function. */
  public static double normalCdf(double x) {
    return erfc(-x * INVERSE_ROOT_2) / 2;
  }

  /** The normal density. */
  public static double normalDensity(double x) {
    return Math.exp(-x * x / 2) * INVERSE_ROOT_2_PI;
  }
}
