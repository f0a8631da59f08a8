package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * A Haar-distributed (semi-)orthogonal matrix times a gain: G. W. Stewart, <i>The efficient
 * generation of random orthogonal matrices with an application to condition estimators</i>, SIAM J.
 * Numer. Anal. 17 (1980): a product of independent Householder reflections of Gaussian vectors.
 *
 * <p>With rows &gt;= cols the columns of dst / gain are orthonormal, otherwise its rows are. With m
 * = max(rows, cols), k = min(rows, cols), draw for j = 0 .. k-1 a Gaussian vector x_j of length m -
 * j: its element i is normal number i of the {@link Philox} stream (seed, sequence + j), normals
 * taken in pairs from consecutive words. With s_j = (x_j[0] &gt;= 0 ? 1 : -1), reflection H_j = I -
 * 2 v v^T / (v^T v) acts on coordinates j .. m-1 with v = x_j + s_j |x_j| e_0, so that H_j x_j =
 * -s_j |x_j| e_0. Then Q = H_0 H_1 ... H_{k-1} D E, with E the first k columns of the m x m
 * identity and D = diag(-s_0, .., -s_{k-1}, 1, .., 1); dst = gain * Q, or gain * Q^T where rows
 * &lt; cols. This Q is the orthogonal factor of the QR factorisation with positive diagonal of a
 * Gaussian matrix, hence Haar (Mezzadri, Notices AMS 54, 2007).
 *
 * <p>Every backend yields the same matrix from the same seed, within rounding: max |Q^T Q - I|
 * &lt;= 6e-7 in F32.
 */
public abstract class Orthogonal implements Operation {
  private final int rows;
  private final int cols;
  private final float gain;
  private final Operands operands;

  /** For backends. */
  protected Orthogonal(Device device, int rows, int cols, float gain) {
    if (rows < 1 || cols < 1) {
      throw new IllegalArgumentException(
          "an orthogonal matrix needs at least one row and column, got " + rows + "x" + cols);
    }
    this.rows = rows;
    this.cols = cols;
    this.gain = gain;
    this.operands = new Operands("orthogonal " + rows + "x" + cols, device);
  }

  /** Number of rows. */
  public final int rows() {
    return rows;
  }

  /** Number of columns. */
  public final int cols() {
    return cols;
  }

  /** Factor of the orthogonal matrix. */
  public final float gain() {
    return gain;
  }

  /**
   * Fills dst.
   *
   * @param dst F32 ROW_MAJOR [rows, cols]
   * @param seed key of the generator
   * @param sequence first stream used; min(rows, cols) consecutive streams are
   */
  public final void fill(Stream stream, Tensor dst, long seed, long sequence) {
    operands.require("dst", dst, Shape.of(rows, cols), DataType.F32, Layout.ROW_MAJOR);
    compute(stream, dst, seed, sequence);
  }

  /** Implements {@link #fill}. */
  protected abstract void compute(Stream stream, Tensor dst, long seed, long sequence);
}
