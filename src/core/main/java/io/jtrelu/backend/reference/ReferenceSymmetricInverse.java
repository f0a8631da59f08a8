package io.jtrelu.backend.reference;

import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * Gauss-Jordan elimination in binary64, without pivoting, as a positive definite matrix needs none.
 */
final class ReferenceSymmetricInverse extends SymmetricInverse {
  ReferenceSymmetricInverse(int n) {
    super(Device.CPU, n);
  }

  @Override
  protected void compute(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual) {
    ReferenceStream.require(stream);
    int n = n();
    double[][] a = new double[n][n];
    double[][] x = new double[n][n];
    for (int i = 0; i < n; i++) {
      for (int j = 0; j <= i; j++) {
        a[i][j] = matrix.get(i * n + j);
        a[j][i] = a[i][j];
      }
      a[i][i] += shift;
      x[i][i] = 1;
    }
    double[][] original = new double[n][];
    for (int i = 0; i < n; i++) {
      original[i] = a[i].clone();
    }
    for (int p = 0; p < n; p++) {
      double pivot = a[p][p];
      if (!(pivot > 0 && pivot < Double.POSITIVE_INFINITY)) {
        residual.put(0, Float.NaN);
        return;
      }
      for (int j = 0; j < n; j++) {
        a[p][j] /= pivot;
        x[p][j] /= pivot;
      }
      for (int i = 0; i < n; i++) {
        double factor = a[i][p];
        if (i != p && factor != 0) {
          for (int j = 0; j < n; j++) {
            a[i][j] -= factor * a[p][j];
            x[i][j] -= factor * x[p][j];
          }
        }
      }
    }
    float[] rounded = new float[n * n];
    boolean finite = true;
    for (int i = 0; i < n; i++) {
      for (int j = 0; j <= i; j++) {
        float mean = (float) ((x[i][j] + x[j][i]) / 2);
        rounded[i * n + j] = mean;
        rounded[j * n + i] = mean;
        finite &= Float.isFinite(mean);
      }
    }
    if (!finite) {
      residual.put(0, Float.NaN);
      return;
    }
    inverse.set(rounded);
    residual.put(0, (float) residual(original, rounded));
  }

  private double residual(double[][] matrix, float[] inverse) {
    int n = n();
    double[] solved = new double[n];
    for (int i = 0; i < n; i++) {
      for (int j = 0; j < n; j++) {
        solved[i] += (double) inverse[i * n + j] * probe(j);
      }
    }
    double squares = 0;
    for (int i = 0; i < n; i++) {
      double left = probe(i);
      for (int j = 0; j < n; j++) {
        left -= matrix[i][j] * solved[j];
      }
      squares += left * left;
    }
    return Math.sqrt(squares / n);
  }
}
