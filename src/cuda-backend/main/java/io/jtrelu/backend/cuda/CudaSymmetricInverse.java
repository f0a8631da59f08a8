package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** symmetric_inverse.cu. */
final class CudaSymmetricInverse extends SymmetricInverse {
  private static final int BLOCK = 32;
  private static final int TILE = 64;
  private static final int WARPS = 8;
  private static final int MOST_ROWS = 65_535; // of a grid

  private final CudaBackend backend;
  private final Kernel begin;
  private final Kernel diagonal;
  private final Kernel below;
  private final Kernel rest;
  private final Kernel row;
  private final Kernel product;
  private final Kernel solve;
  private final Kernel left;
  private final Kernel end;

  CudaSymmetricInverse(CudaBackend backend, int n) {
    super(backend.device(), n);
    if (n > MOST_ROWS) {
      throw new UnsupportedException(
          backend + " inverts matrices of up to " + MOST_ROWS + " rows, got " + n);
    }
    this.backend = backend;
    begin = kernel("begin");
    diagonal = kernel("diagonal");
    below = kernel("below");
    rest = kernel("rest");
    row = kernel("row");
    product = kernel("product");
    solve = kernel("solve");
    left = kernel("left");
    end = kernel("end");
  }

  private Kernel kernel(String step) {
    return backend.kernels().get("symmetric_inverse_" + step);
  }

  /** Two matrices and two vectors in binary64, and a flag. */
  @Override
  public long scratchBytes() {
    return (2L * n() * n() + 2L * n() + 1) * Double.BYTES;
  }

  @Override
  protected void compute(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual) {
    CudaStream on = backend.own(stream);
    long scratch = on.workspace(scratchBytes());
    new Problem(on, matrix, 0, shift, inverse, residual, scratch).invert();
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor matrix,
      Tensor shift,
      Tensor inverse,
      Tensor residual,
      @Nullable Tensor scratch) {
    CudaStream on = backend.own(stream);
    long work = scratch == null ? on.workspace(scratchBytes()) : scratch.address();
    new Problem(on, matrix, shift.address(), 0, inverse, residual, work).invert();
  }

  /** One matrix to be inverted. */
  private final class Problem {
    private final CudaStream on;
    private final Tensor matrix;
    private final long shiftAt;
    private final float shift;
    private final Tensor inverse;
    private final Tensor residual;
    private final long scratch;

    Problem(
        CudaStream on,
        Tensor matrix,
        long shiftAt,
        float shift,
        Tensor inverse,
        Tensor residual,
        long scratch) {
      this.on = on;
      this.matrix = matrix;
      this.shiftAt = shiftAt;
      this.shift = shift;
      this.inverse = inverse;
      this.residual = residual;
      this.scratch = scratch;
    }

    void invert() {
      int blocks = Math.ceilDiv(n(), BLOCK);
      launch(begin, 0, begin.blocksFor(n()), n());
      for (int j = 0; j < blocks; j++) {
        launch(diagonal, j, 1, 1);
        int tiles = Math.ceilDiv(Math.max(0, n() - (j + 1) * BLOCK), TILE);
        launch(below, j, blocks - j - 1, 1);
        launch(rest, j, tiles, tiles);
      }
      for (int i = 1; i < blocks; i++) {
        launch(row, i, i, 1);
      }
      int tiles = Math.ceilDiv(n(), TILE);
      launch(product, 0, tiles, tiles);
      launch(solve, 0, Math.ceilDiv(n(), WARPS), 1);
      launch(left, 0, Math.ceilDiv(n(), WARPS), 1);
      launch(end, 0, end.blocksFor(n()), n());
    }

    /** struct SymmetricInverseParameters. */
    private void launch(Kernel kernel, int block, long columns, int rows) {
      long square = (long) n() * n() * Double.BYTES;
      long line = (long) n() * Double.BYTES;
      on.arguments()
          .pointer(matrix)
          .pointer(shiftAt)
          .pointer(inverse)
          .pointer(residual)
          .pointer(scratch)
          .pointer(scratch + square)
          .pointer(scratch + 2 * square)
          .pointer(scratch + 2 * square + line)
          .pointer(scratch + 2 * (square + line))
          .i32(n())
          .i32(block)
          .f32(shift);
      on.launch(kernel, columns, rows);
    }
  }
}
