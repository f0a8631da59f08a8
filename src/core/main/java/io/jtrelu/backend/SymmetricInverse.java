package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * The inverse of a symmetric positive definite matrix with something added to its diagonal.
 *
 * <pre>
 * inverse  = (F + shift I)^-1
 * residual = |v - (F + shift I) inverse v| / |v|       for a fixed v of ones and minus ones
 * </pre>
 *
 * <p>Of F the lower triangle is read; the inverse is written whole, symmetric to the bit. Where F +
 * shift I is not positive definite, or the result would not be finite, the residual is NaN and the
 * inverse keeps what it held.
 */
public abstract class SymmetricInverse extends PreparedOperation {
  private final int n;

  /** For backends. */
  protected SymmetricInverse(Device device, int n) {
    super("symmetric inverse", device);
    if (n < 1) {
      throw new IllegalArgumentException("a matrix to be inverted has 1 row or more, got " + n);
    }
    this.n = n;
  }

  /** Rows and columns. */
  public final int n() {
    return n;
  }

  /**
   * Computes the inverse.
   *
   * @param matrix F32 [n, n]: F
   * @param inverse F32 [n, n]; must not overlap the matrix
   * @param residual F32 [1]
   * @throws OperandException if an operand does not fit
   */
  public final void run(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual) {
    Shape square = Shape.of(n, n);
    operands.require("matrix", matrix, square, DataType.F32, Layout.ROW_MAJOR);
    operands.require("inverse", inverse, square, DataType.F32, Layout.ROW_MAJOR);
    operands.requireElements("residual", residual, 1, DataType.F32);
    operands.requireDistinct("matrix", matrix, "inverse", inverse);
    operands.requireDistinct("matrix", matrix, "residual", residual);
    operands.requireDistinct("inverse", inverse, "residual", residual);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(matrix).writes("inverse", inverse).writes("residual", residual);
      compute(stream, matrix, shift, inverse, residual);
    }
  }

  /** Implements {@link #run}. */
  protected abstract void compute(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual);

  /** The fixed vector's elements: ones and minus ones without a pattern, by Weyl's sequence. */
  public static float probe(int index) {
    return (index * 0x9E3779B9) < 0 ? -1 : 1;
  }
}
