package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

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
    check(matrix, inverse, residual);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(matrix).writes("inverse", inverse).writes("residual", residual);
      compute(stream, matrix, shift, inverse, residual);
    }
  }

  /**
   * As above with a shift that lies on the device, so that a recorded inversion takes another each
   * time it runs; with a shift of NaN there is no inverse.
   *
   * @param shift F32 [1]
   * @param scratch at least {@link #scratchBytes} bytes in F32, for several inversions that run one
   *     after the other; null where the stream is to bring its own
   */
  public final void run(
      Stream stream,
      Tensor matrix,
      Tensor shift,
      Tensor inverse,
      Tensor residual,
      @Nullable Tensor scratch) {
    check(matrix, inverse, residual);
    operands.requireElements("shift", shift, 1, DataType.F32);
    operands.requireDistinct("shift", shift, "inverse", inverse);
    operands.requireDistinct("shift", shift, "residual", residual);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(matrix).reads(shift).writes("inverse", inverse).writes("residual", residual);
      if (scratch != null) {
        long words = Math.ceilDiv(scratchBytes(), (long) Float.BYTES);
        operands.requireAtLeast("scratch", scratch, words, DataType.F32);
        operands.requireDistinct("scratch", scratch, "matrix", matrix);
        operands.requireDistinct("scratch", scratch, "shift", shift);
        operands.requireDistinct("scratch", scratch, "inverse", inverse);
        operands.requireDistinct("scratch", scratch, "residual", residual);
        use.writes("scratch", scratch);
      }
      compute(stream, matrix, shift, inverse, residual, scratch);
    }
  }

  private void check(Tensor matrix, Tensor inverse, Tensor residual) {
    Shape square = Shape.of(n, n);
    operands.require("matrix", matrix, square, DataType.F32, Layout.ROW_MAJOR);
    operands.require("inverse", inverse, square, DataType.F32, Layout.ROW_MAJOR);
    operands.requireElements("residual", residual, 1, DataType.F32);
    operands.requireDistinct("matrix", matrix, "inverse", inverse);
    operands.requireDistinct("matrix", matrix, "residual", residual);
    operands.requireDistinct("inverse", inverse, "residual", residual);
  }

  /**
   * Bytes of device memory that an inversion needs while it runs; 0 on a CPU, which has its own.
   */
  public long scratchBytes() {
    return 0;
  }

  /** Implements {@link #run(Stream, Tensor, float, Tensor, Tensor)}. */
  protected abstract void compute(
      Stream stream, Tensor matrix, float shift, Tensor inverse, Tensor residual);

  /** Implements the other; this one is for devices whose memory the host can read. */
  protected void compute(
      Stream stream,
      Tensor matrix,
      Tensor shift,
      Tensor inverse,
      Tensor residual,
      @Nullable Tensor scratch) {
    compute(stream, matrix, shift.get(0), inverse, residual);
  }

  /** The fixed vector's elements: ones and minus ones without a pattern, by Weyl's sequence. */
  public static float probe(int index) {
    return (index * 0x9E3779B9) < 0 ? -1 : 1;
  }
}
