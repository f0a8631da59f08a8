package io.jtrelu.backend.onednn;

import java.util.function.DoubleUnaryOperator;

/**
 * A function of one variable as cubic Hermite pieces over [-16, 16), for evaluating it many times:
 * with pieces of width h = 1/64 the error is below h^4 / 384 * max |f''''| = 2e-10 max |f''''|, far
 * below binary32. Outside the range, and in a piece that holds a breakpoint of the function, it is
 * evaluated itself.
 */
final class FunctionTable {
  private static final double RANGE = 16;
  private static final int PIECES_PER_UNIT = 64;
  private static final int PIECES = (int) (2 * RANGE * PIECES_PER_UNIT);

  private final DoubleUnaryOperator function;
  private final double[] coefficients = new double[4 * PIECES];

  /**
   * @param function f
   * @param derivative f'
   * @param breakpoints where f or a derivative is not smooth
   */
  FunctionTable(
      DoubleUnaryOperator function, DoubleUnaryOperator derivative, double[] breakpoints) {
    this.function = function;
    double h = 1.0 / PIECES_PER_UNIT;
    for (int i = 0; i < PIECES; i++) {
      double left = i * h - RANGE;
      double y0 = function.applyAsDouble(left);
      double y1 = function.applyAsDouble(left + h);
      double d0 = h * derivative.applyAsDouble(left);
      double d1 = h * derivative.applyAsDouble(left + h);
      coefficients[4 * i] = y0;
      coefficients[4 * i + 1] = d0;
      coefficients[4 * i + 2] = 3 * (y1 - y0) - 2 * d0 - d1;
      coefficients[4 * i + 3] = 2 * (y0 - y1) + d0 + d1;
      for (double point : breakpoints) {
        if (point >= left && point <= left + h) {
          coefficients[4 * i] = Double.NaN; // marks a piece that does not stand for the function
        }
      }
    }
  }

  /** f(x). */
  double value(double x) {
    double position = (x + RANGE) * PIECES_PER_UNIT;
    if (!(position >= 0 && position < PIECES)) {
      return function.applyAsDouble(x); // NaN comes here too
    }
    int piece = (int) position;
    double t = position - piece;
    int at = 4 * piece;
    double y =
        coefficients[at]
            + t * (coefficients[at + 1] + t * (coefficients[at + 2] + t * coefficients[at + 3]));
    return Double.isNaN(y) ? function.applyAsDouble(x) : y;
  }
}
