package io.jtrelu.shaping;

import java.util.function.DoubleUnaryOperator;

/**
 * E[f(z)], z ~ N(0, 1), by adaptive bisection with the 7-point Gauss and 15-point Kronrod rules: a
 * quadrature that shares no nodes with those of the library.
 */
final class GaussKronrod {
  private static final double[] NODES = {
    0.9914553711208126,
    0.9491079123427585,
    0.8648644233597691,
    0.7415311855993945,
    0.5860872354676911,
    0.4058451513773972,
    0.20778495500789848,
    0
  };
  private static final double[] KRONROD = {
    0.022935322010529224,
    0.06309209262997856,
    0.10479001032225019,
    0.14065325971552592,
    0.1690047266392679,
    0.19035057806478542,
    0.20443294007529889,
    0.20948214108472782
  };
  private static final double[] GAUSS = {
    0.1294849661688697, 0.27970539148927664, 0.3818300505051189, 0.4179591836734694
  };

  private GaussKronrod() {}

  static double mean(DoubleUnaryOperator f, double... breakpoints) {
    double[] cuts = new double[breakpoints.length + 2];
    cuts[0] = -11;
    cuts[cuts.length - 1] = 11;
    System.arraycopy(breakpoints, 0, cuts, 1, breakpoints.length);
    java.util.Arrays.sort(cuts);
    DoubleUnaryOperator weighted =
        z -> f.applyAsDouble(z) * Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
    double sum = 0;
    for (int i = 0; i + 1 < cuts.length; i++) {
      sum += integral(weighted, cuts[i], cuts[i + 1], 30);
    }
    return sum;
  }

  private static double integral(DoubleUnaryOperator f, double from, double to, int depth) {
    double middle = (from + to) / 2;
    double radius = (to - from) / 2;
    double kronrod = 0;
    double gauss = 0;
    for (int i = 0; i < NODES.length; i++) {
      double value = f.applyAsDouble(middle + radius * NODES[i]);
      if (NODES[i] != 0) {
        value += f.applyAsDouble(middle - radius * NODES[i]);
      }
      kronrod += KRONROD[i] * value;
      if (i % 2 == 1) {
        gauss += GAUSS[i / 2] * value;
      }
    }
    double error = radius * Math.abs(kronrod - gauss);
    if (depth == 0 || error <= 1e-13 * Math.max(radius * Math.abs(kronrod), 1e-3)) {
      return radius * kronrod;
    }
    return integral(f, from, middle, depth - 1) + integral(f, middle, to, depth - 1);
  }
}
