package io.jtrelu.backend.reference;

import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Philox;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** One reflection after the other, in binary64. */
final class ReferenceOrthogonal extends Orthogonal {
  private final Lifetime lifetime = new Lifetime("orthogonal generator");

  ReferenceOrthogonal(int rows, int cols, float gain) {
    super(Device.CPU, rows, cols, gain);
  }

  @Override
  protected void compute(Stream stream, Tensor dst, long seed, long sequence) {
    lifetime.requireOpen(stream);
    int m = Math.max(rows(), cols());
    int k = Math.min(rows(), cols());
    double[][] columns = new double[k][m]; // Q by columns, beginning as the first k unit vectors
    for (int j = k - 1; j >= 0; j--) {
      double[] v = gaussian(m - j, seed, sequence + j);
      double norm = Math.sqrt(dot(v, v));
      double sign = v[0] >= 0 ? 1 : -1;
      columns[j][j] = -sign; // D; columns before j are zero from row j on, so H_j leaves them
      v[0] += sign * norm;
      double square = dot(v, v);
      for (int c = j; c < k && square > 0; c++) {
        reflect(columns[c], j, v, square);
      }
    }
    float[] values = new float[m * k];
    for (int row = 0; row < rows(); row++) {
      for (int col = 0; col < cols(); col++) {
        double element = rows() >= cols() ? columns[col][row] : columns[row][col];
        values[row * cols() + col] = (float) (gain() * element);
      }
    }
    dst.set(values);
  }

  /** x = (I - 2 v v^T / (v^T v)) x on the coordinates from {@code first} on. */
  private static void reflect(double[] x, int first, double[] v, double square) {
    double projection = 0;
    for (int i = 0; i < v.length; i++) {
      projection += v[i] * x[first + i];
    }
    double factor = 2 * projection / square;
    for (int i = 0; i < v.length; i++) {
      x[first + i] -= factor * v[i];
    }
  }

  private static double dot(double[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }

  private static double[] gaussian(int length, long seed, long sequence) {
    double[] x = new double[length];
    int[] words = new int[4];
    float[] normals = new float[4];
    for (int i = 0; i < length; i++) {
      if (i % 4 == 0) {
        Philox.block(seed, sequence, i / 4, words);
        Philox.normals(words[0], words[1], normals, 0);
        Philox.normals(words[2], words[3], normals, 2);
      }
      x[i] = normals[i % 4];
    }
    return x;
  }

  @Override
  public void close() {
    lifetime.close();
  }
}
