package io.jtrelu.random;

import java.util.stream.IntStream;

/**
 * Haar-distributed (semi-)orthogonal matrices, row-major: G. W. Stewart, <i>The efficient
 * generation of random orthogonal matrices with an application to condition estimators</i>, SIAM J.
 * Numer. Anal. 17 (1980): a product of independent Householder reflections of Gaussian vectors, in
 * binary64.
 *
 * <p>With rows &gt;= cols the columns of the matrix over its gain are orthonormal, otherwise its
 * rows are. With m = max(rows, cols), k = min(rows, cols), draw for j = 0 .. k-1 a Gaussian vector
 * x_j of length m - j: its element i is normal number i of the {@link Philox} stream (seed,
 * sequence + j), normals taken in pairs from consecutive words. With s_j = (x_j[0] &gt;= 0 ? 1 :
 * -1), reflection H_j = I - 2 v v^T / (v^T v) acts on coordinates j .. m-1 with v = x_j + s_j |x_j|
 * e_0, so that H_j x_j = -s_j |x_j| e_0. Then Q = H_0 H_1 ... H_{k-1} D E, with E the first k
 * columns of the m x m identity and D = diag(-s_0, .., -s_{k-1}, 1, .., 1); the matrix is gain * Q,
 * or gain * Q^T where rows &lt; cols. This Q is the orthogonal factor of the QR factorisation with
 * positive diagonal of a Gaussian matrix, hence Haar (Mezzadri, Notices AMS 54, 2007).
 *
 * <p>The elements are the binary64 values rounded: max |Q^T Q - I| &lt;= 6e-7. They do not depend
 * on the number of threads; the work is spread over the common pool, and the methods may be called
 * by several threads at once. Time grows with m k^2 (1024x1024 takes about 0.4 s of one core),
 * memory for the time of the call is 16 bytes for each element.
 */
public final class OrthogonalMatrix {
  /** Columns of Q that are kept in a core's cache while the reflections pass by. */
  private static final int BLOCK = 32;

  private OrthogonalMatrix() {}

  /**
   * gain * Q.
   *
   * @param rows number of rows, at least 1
   * @param cols number of columns, at least 1
   * @param gain factor of the orthogonal matrix; finite
   * @param seed key of the generator
   * @param sequence first stream used; min(rows, cols) consecutive streams are
   * @return row-major [rows, cols], the caller's
   * @throws IllegalArgumentException if a size is below 1, the elements are more than an array
   *     holds, or the gain is not finite
   */
  public static float[] of(int rows, int cols, float gain, long seed, long sequence) {
    if (rows < 1 || cols < 1) {
      throw new IllegalArgumentException(
          "an orthogonal matrix needs at least one row and column, got " + rows + "x" + cols);
    }
    if ((long) rows * cols > Integer.MAX_VALUE - 8) {
      throw new IllegalArgumentException(
          "an orthogonal matrix of "
              + rows
              + "x"
              + cols
              + " has more elements than an array holds, "
              + (Integer.MAX_VALUE - 8));
    }
    if (!Float.isFinite(gain)) {
      throw new IllegalArgumentException(
          "the gain of an orthogonal matrix must be finite, but is " + gain);
    }
    int m = Math.max(rows, cols);
    int k = Math.min(rows, cols);
    double[][] reflections = new double[k][];
    double[] signs = new double[k];
    double[] squares = new double[k];
    IntStream.range(0, k)
        .parallel()
        .forEach(
            j -> {
              double[] v = gaussian(m - j, seed, sequence + j);
              signs[j] = v[0] >= 0 ? 1 : -1;
              v[0] += signs[j] * Math.sqrt(square(v));
              squares[j] = square(v);
              reflections[j] = v;
            });
    float[] matrix = new float[rows * cols];
    IntStream.range(0, (k + BLOCK - 1) / BLOCK)
        .parallel()
        .forEach(
            block -> {
              int first = block * BLOCK;
              int width = Math.min(BLOCK, k - first);
              double[] columns = columns(m, first, width, reflections, signs, squares);
              for (int i = 0; i < m; i++) {
                for (int c = 0; c < width; c++) {
                  int at = rows >= cols ? i * cols + first + c : (first + c) * cols + i;
                  matrix[at] = (float) (gain * columns[i * width + c]);
                }
              }
            });
    return matrix;
  }

  /**
   * The weights of a linear layer: {@link #of} with the gain times {@link #scaleCorrection}, the
   * scaled-corrected uniform orthogonal (SUO) matrix (Martens et al., arXiv 2110.01765), which
   * preserves the mean square of signals at wide and narrow layers alike.
   *
   * @param out number of outputs, at least 1
   * @param in number of inputs, at least 1
   * @param gain further factor, 1 for tailored activations; finite
   * @param seed key of the generator
   * @param sequence first stream used; min(out, in) consecutive streams are
   * @return row-major [out, in], so that y = W x, the caller's
   * @throws IllegalArgumentException as {@link #of} does
   */
  public static float[] linear(int out, int in, double gain, long seed, long sequence) {
    return of(out, in, (float) (gain * scaleCorrection(out, in)), seed, sequence);
  }

  /**
   * max(sqrt(out / in), 1): the factor that makes an orthogonal out x in matrix keep mean squares.
   */
  public static double scaleCorrection(int out, int in) {
    return Math.max(Math.sqrt((double) out / in), 1);
  }

  /**
   * Columns first .. first + width - 1 of Q, as [m, width]. Each element is computed by the same
   * operations in the same order whatever the block, so the result is that of one column alone.
   */
  private static double[] columns(
      int m, int first, int width, double[][] reflections, double[] signs, double[] squares) {
    double[] q = new double[m * width];
    double[] factors = new double[width];
    for (int j = first + width - 1; j >= 0; j--) {
      double[] v = reflections[j];
      // Columns before j are still zero from row j on, so H_j leaves them.
      if (j >= first) {
        q[j * width + j - first] = -signs[j]; // D
      }
      if (squares[j] > 0) {
        reflect(q, width, j, Math.max(0, j - first), v, squares[j], factors);
      }
    }
    return q;
  }

  /**
   * x = (I - 2 v v^T / (v^T v)) x for the columns x of q from {@code begin} on, on the coordinates
   * from {@code j} on. Four rows at a time, each added on its own, as the order of additions
   * counts.
   */
  private static void reflect(
      double[] q, int width, int j, int begin, double[] v, double square, double[] factors) {
    int n = v.length;
    int fours = n & ~3;
    for (int c = begin; c < width; c++) {
      factors[c] = 0;
    }
    for (int i = 0; i < fours; i += 4) {
      int row0 = (j + i) * width;
      int row1 = row0 + width;
      int row2 = row1 + width;
      int row3 = row2 + width;
      double v0 = v[i];
      double v1 = v[i + 1];
      double v2 = v[i + 2];
      double v3 = v[i + 3];
      for (int c = begin; c < width; c++) {
        factors[c] =
            factors[c] + v0 * q[row0 + c] + v1 * q[row1 + c] + v2 * q[row2 + c] + v3 * q[row3 + c];
      }
    }
    for (int i = fours; i < n; i++) {
      int row = (j + i) * width;
      for (int c = begin; c < width; c++) {
        factors[c] += v[i] * q[row + c];
      }
    }
    for (int c = begin; c < width; c++) {
      factors[c] = 2 * factors[c] / square;
    }
    for (int i = 0; i < n; i++) {
      int row = (j + i) * width;
      double vi = v[i];
      for (int c = begin; c < width; c++) {
        q[row + c] -= factors[c] * vi;
      }
    }
  }

  private static double square(double[] x) {
    double sum = 0;
    for (double value : x) {
      sum += value * value;
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
}
