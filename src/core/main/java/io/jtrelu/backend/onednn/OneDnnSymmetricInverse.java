package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/**
 * F + shift I = L L', X = L^-1, inverse = X' X, in blocks: what lies on the diagonal is factorised
 * and inverted in binary64 in Java, and all else, n^3 operations in all, is products of matrices in
 * F32. Where the matrix is too ill-conditioned for those, as the residual tells, everything is done
 * once more in binary64, some fifty times slower.
 *
 * <p>Golub and Van Loan, <i>Matrix Computations</i>, 4.2.6 (the factorisation in blocks).
 */
final class OneDnnSymmetricInverse extends SymmetricInverse {
  private static final int BLOCK = 48;
  private static final double GOOD_RESIDUAL = 1e-2;

  private final Dnnl library;

  OneDnnSymmetricInverse(Dnnl library, int n) {
    super(Device.CPU, n);
    this.library = library;
  }

  @Override
  protected void compute(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long square = (long) n() * n() * Float.BYTES;
    long work = lane.workspace(2 * square + (long) n() * BLOCK * Float.BYTES);
    Problem problem = new Problem(matrix.address(), shift, work, work + square);
    boolean found = problem.solve();
    double left = found ? problem.residual() : Double.NaN;
    if (!(left <= GOOD_RESIDUAL)) { // or NaN
      found = problem.solveInDouble();
      left = found ? problem.residual() : Double.NaN;
    }
    if (found) {
      Elements.copy(work, inverse.address(), square);
    }
    Elements.put(residual.address(), (float) left);
  }

  /** One matrix to be inverted. Addresses are of F32 matrices [n, n]. */
  private final class Problem {
    private final int n = n();
    private final long matrix;
    private final float shift;
    private final long l; // first F + shift I, then L, then the inverse
    private final long x;
    private final long panel; // [n, BLOCK]

    Problem(long matrix, float shift, long l, long x) {
      this.matrix = matrix;
      this.shift = shift;
      this.l = l;
      this.x = x;
      this.panel = x + (long) n * n * Float.BYTES;
    }

    private long at(long matrix, int row, int column) {
      return matrix + ((long) row * n + column) * Float.BYTES;
    }

    private int width(int first) {
      return Math.min(BLOCK, n - first);
    }

    /** Leaves the inverse in l; false where the matrix is not positive definite, or not finite. */
    boolean solve() {
      for (int i = 0; i < n; i++) {
        Elements.copy(at(matrix, i, 0), at(l, i, 0), (i + 1L) * Float.BYTES);
        Elements.put(at(l, i, i), Elements.get(at(l, i, i)) + shift);
      }
      Elements.zero(x, (long) n * n * Float.BYTES);
      for (int j = 0; j < n; j += BLOCK) {
        if (!factorizeDiagonal(j)) {
          return false;
        }
        factorizeBelow(j);
      }
      invert();
      multiply();
      return mirror();
    }

    /** Puts the inverse of L's block on the diagonal into X. */
    private boolean factorizeDiagonal(int j) {
      int b = width(j);
      double[][] a = new double[b][b];
      for (int r = 0; r < b; r++) {
        for (int c = 0; c <= r; c++) {
          a[r][c] = Elements.get(at(l, j + r, j + c));
        }
      }
      double[][] inverse = new double[b][b];
      if (!invertFactor(a, inverse)) {
        return false;
      }
      for (int r = 0; r < b; r++) {
        for (int c = 0; c <= r; c++) {
          Elements.put(at(x, j + r, j + c), (float) inverse[r][c]);
        }
      }
      return true;
    }

    /** L below block j, and what it takes off the columns to the right. */
    private void factorizeBelow(int j) {
      int b = width(j);
      int below = j + b;
      int rows = n - below;
      if (rows == 0) {
        return;
      }
      library.sgemm(false, true, rows, b, b, 1, at(l, below, j), n, at(x, j, j), n, 0, panel, b);
      for (int r = 0; r < rows; r++) {
        Elements.copy(
            panel + (long) r * b * Float.BYTES, at(l, below + r, j), (long) b * Float.BYTES);
      }
      for (int k = below; k < n; k += BLOCK) {
        library.sgemm(
            false, true, n - k, width(k), b, -1, at(l, k, j), n, at(l, k, j), n, 1, at(l, k, k), n);
      }
    }

    /** X below the diagonal: row i of blocks is -X[i, i] L[i, j to i) X[j to i, j]. */
    private void invert() {
      for (int i = BLOCK; i < n; i += BLOCK) {
        int b = width(i);
        for (int j = 0; j < i; j += BLOCK) {
          library.sgemm(
              false, false, b, BLOCK, i - j, 1, at(l, i, j), n, at(x, j, j), n, 0, panel, BLOCK);
          library.sgemm(
              false, false, b, BLOCK, b, -1, at(x, i, i), n, panel, BLOCK, 0, at(x, i, j), n);
        }
      }
    }

    /** The lower triangle of X' X, into l. */
    private void multiply() {
      for (int a = 0; a < n; a += BLOCK) {
        int b = width(a);
        library.sgemm(
            true, false, b, a + b, n - a, 1, at(x, a, a), n, at(x, a, 0), n, 0, at(l, a, 0), n);
      }
    }

    /** Makes the whole inverse of its lower triangle; false where it is not finite. */
    private boolean mirror() {
      boolean finite = true;
      for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++) {
          float value = Elements.get(at(l, i, j));
          finite &= Float.isFinite(value);
          Elements.put(at(l, j, i), value);
        }
      }
      return finite;
    }

    boolean solveInDouble() {
      double[][] a = new double[n][n];
      float[] row = new float[n];
      for (int i = 0; i < n; i++) {
        Elements.load(DataType.F32, at(matrix, i, 0), row, i + 1);
        for (int j = 0; j <= i; j++) {
          a[i][j] = row[j];
        }
        a[i][i] += shift;
      }
      double[][] inverse = new double[n][n]; // L^-1
      if (!invertFactor(a, inverse)) {
        return false;
      }
      double[] sums = new double[n];
      for (int i = 0; i < n; i++) {
        Arrays.fill(sums, 0);
        for (int k = i; k < n; k++) {
          add(inverse[k][i], inverse[k], sums, i + 1);
        }
        for (int j = 0; j <= i; j++) {
          row[j] = (float) sums[j];
        }
        Elements.store(DataType.F32, row, at(l, i, 0), i + 1);
      }
      return mirror();
    }

    /** See {@link SymmetricInverse}. */
    double residual() {
      float[] row = new float[n];
      double[] solved = new double[n];
      for (int i = 0; i < n; i++) {
        Elements.load(DataType.F32, at(l, i, 0), row, n);
        for (int j = 0; j < n; j++) { // symmetric: a row is a column
          solved[j] += (double) row[j] * probe(i);
        }
      }
      double[] left = new double[n];
      for (int i = 0; i < n; i++) {
        Elements.load(DataType.F32, at(matrix, i, 0), row, i + 1);
        double sum = 0;
        for (int j = 0; j < i; j++) {
          sum += row[j] * solved[j];
          left[j] -= row[j] * solved[i];
        }
        left[i] += probe(i) - sum - ((double) row[i] + shift) * solved[i];
      }
      double squares = 0;
      for (double value : left) {
        squares += value * value;
      }
      return Math.sqrt(squares / n);
    }
  }

  /**
   * The inverse of the lower triangular L of a = L L'.
   *
   * @param a lower triangle; overwritten with L
   * @param inverse zeros at first
   * @return false if a is not positive definite
   */
  private static boolean invertFactor(double[][] a, double[][] inverse) {
    int n = a.length;
    for (int i = 0; i < n; i++) {
      // Row i of L solves L[0 to i) y = a[i]; the same eliminations make row i of the inverse.
      double[] row = a[i];
      for (int k = 0; k < i; k++) {
        double sum = row[k];
        for (int j = 0; j < k; j++) {
          sum -= row[j] * a[k][j];
        }
        row[k] = sum * inverse[k][k];
      }
      double pivot = row[i];
      for (int j = 0; j < i; j++) {
        pivot -= row[j] * row[j];
      }
      if (!(pivot > 0 && pivot < Double.POSITIVE_INFINITY)) {
        return false;
      }
      row[i] = Math.sqrt(pivot);
      for (int k = 0; k < i; k++) {
        add(-row[k], inverse[k], inverse[i], k + 1);
      }
      double factor = 1 / row[i];
      for (int j = 0; j < i; j++) {
        inverse[i][j] *= factor;
      }
      inverse[i][i] = factor;
    }
    return true;
  }

  /** to += factor * from. */
  private static void add(double factor, double[] from, double[] to, int count) {
    for (int j = 0; j < count; j++) {
      to[j] += factor * from[j];
    }
  }
}
