package io.jtrelu.backend;

import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** In Java and binary64, for backends that compute in the host's memory. */
final class HostFactorScalars extends FactorScalars {
  HostFactorScalars() {
    super(Device.CPU);
  }

  @Override
  protected void computeMeasurement(
      Stream stream, Tensor rows, Tensor weights, Tensor gate, Tensor scale) {
    boolean counts = !Float.isNaN(gate.get(0));
    for (long i = 0; counts && i < rows.shape().elements(); i++) {
      counts = Float.isFinite(rows.get(i));
    }
    for (int i = 0; i < 2; i++) {
      scale.put(i, counts ? weights.get(i) : Float.NaN);
    }
  }

  @Override
  protected void computeDamping(
      Stream stream, Tensor a, Tensor g, double damping, Tensor gate, Tensor shifts) {
    double mean = meanDiagonal(a) / meanDiagonal(g);
    double pi = mean > 0 && mean < Double.POSITIVE_INFINITY ? Math.sqrt(mean) : 1;
    double r = Math.sqrt(damping);
    boolean closed = Float.isNaN(gate.get(0));
    shifts.put(0, closed ? Float.NaN : (float) (pi * r));
    shifts.put(1, closed ? Float.NaN : (float) (r / pi));
  }

  private static double meanDiagonal(Tensor square) {
    int n = square.shape().dim(0);
    double sum = 0;
    for (int i = 0; i < n; i++) {
      sum += square.get((long) i * n + i);
    }
    return sum / n;
  }

  @Override
  protected void computeConstraint(
      Stream stream, Tensor inners, Tensor rate, double limit, Tensor result) {
    double sum = 0;
    for (long i = 0; i < inners.shape().elements(); i += 2) {
      sum += Math.abs((double) inners.get(i) + inners.get(i + 1));
    }
    double eta = (double) rate.get(0) + rate.get(1);
    float nu = (float) Math.min(1, Math.sqrt(limit / (eta * eta * sum)));
    if (!Float.isNaN(result.get(1))) {
      result.put(1, nu);
      if (Float.isNaN(nu)) {
        result.put(0, nu);
      }
    }
  }
}
