package io.jtrelu.backend;

import io.jtrelu.random.OrthogonalMatrix;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * A Haar-distributed (semi-)orthogonal matrix times a gain: the matrix that {@link
 * OrthogonalMatrix#of} defines, dst = gain * Q, or gain * Q^T where rows &lt; cols.
 *
 * <p>Every backend yields the same matrix from the same seed, within rounding: max |Q^T Q - I|
 * &lt;= 6e-7 in F32.
 */
public abstract class Orthogonal extends PreparedOperation {
  private final int rows;
  private final int cols;
  private final float gain;

  /** For backends. */
  protected Orthogonal(Device device, int rows, int cols, float gain) {
    super("orthogonal " + rows + "x" + cols, device);
    if (rows < 1 || cols < 1) {
      throw new IllegalArgumentException(
          "an orthogonal matrix needs at least one row and column, got " + rows + "x" + cols);
    }
    this.rows = rows;
    this.cols = cols;
    this.gain = gain;
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
    try (BackendStream.Use use = operands.use(stream)) {
      use.writes("dst", dst);
      compute(stream, dst, seed, sequence);
    }
  }

  /** Implements {@link #fill}. */
  protected abstract void compute(Stream stream, Tensor dst, long seed, long sequence);
}
