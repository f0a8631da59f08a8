package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * The product of two row-major F32 matrices, which may be transposed, or parts of wider ones; or
 * the products of several pairs.
 *
 * <pre>
 * C = alpha * op(A) op(B) + beta * C          op(A) [m, k], op(B) [k, n], C [m, n]
 * </pre>
 *
 * <p>Sums are F32 in an order that the backend chooses, and that is the same every time. With beta
 * = 0 what C held before does not count, be it NaN.
 */
public abstract class MatrixProduct extends PreparedOperation {
  /**
   * Sizes of the product.
   *
   * @param m rows of C
   * @param n columns of C
   * @param k terms of each sum
   * @param transposeA whether A lies in memory as [k, m]
   * @param transposeB whether B lies in memory as [n, k]
   * @param lda elements from one row of A, as it lies in memory, to the next
   * @param ldb the same of B
   * @param ldc the same of C
   * @param count of products: all A lie one behind the other, with their rows at equal distances
   *     throughout, and so do all B and all C
   */
  public record Sizes(
      int m,
      int n,
      int k,
      boolean transposeA,
      boolean transposeB,
      int lda,
      int ldb,
      int ldc,
      int count) {
    /**
     * @throws IllegalArgumentException if a size or the count is below 1, or rows are longer than
     *     what lies between them
     */
    public Sizes {
      if (count < 1) {
        throw new IllegalArgumentException("products of matrices are 1 or more, got " + count);
      }
      if (m < 1
          || n < 1
          || k < 1
          || lda < (transposeA ? m : k)
          || ldb < (transposeB ? k : n)
          || ldc < n) {
        throw new IllegalArgumentException(
            "a matrix product needs extents of 1 or more and rows no longer than their distance,"
                + " got m "
                + m
                + ", n "
                + n
                + ", k "
                + k
                + (transposeA ? ", A transposed" : "")
                + (transposeB ? ", B transposed" : "")
                + ", rows "
                + lda
                + ", "
                + ldb
                + " and "
                + ldc
                + " apart");
      }
    }

    /** Of one product. */
    public Sizes(
        int m, int n, int k, boolean transposeA, boolean transposeB, int lda, int ldb, int ldc) {
      this(m, n, k, transposeA, transposeB, lda, ldb, ldc, 1);
    }

    /** As many products of these sizes. */
    public Sizes times(int products) {
      return new Sizes(m, n, k, transposeA, transposeB, lda, ldb, ldc, products);
    }

    /** Of matrices that lie densely. */
    public static Sizes dense(int m, int n, int k, boolean transposeA, boolean transposeB) {
      return new Sizes(m, n, k, transposeA, transposeB, transposeA ? m : k, transposeB ? k : n, n);
    }

    /** Elements from one A to the next. */
    public long strideA() {
      return (long) (transposeA ? k : m) * lda;
    }

    /** Elements from one B to the next. */
    public long strideB() {
      return (long) (transposeB ? n : k) * ldb;
    }

    /** Elements from one C to the next. */
    public long strideC() {
      return (long) m * ldc;
    }

    // From the first to the last: behind the last row nothing is needed.

    long elementsA() {
      return count * strideA() - lda + (transposeA ? m : k);
    }

    long elementsB() {
      return count * strideB() - ldb + (transposeB ? k : n);
    }

    long elementsC() {
      return count * strideC() - ldc + n;
    }
  }

  private final Sizes sizes;

  /** For backends. */
  protected MatrixProduct(Device device, Sizes sizes) {
    super("matrix product", device);
    this.sizes = sizes;
  }

  /** Its sizes. */
  public final Sizes sizes() {
    return sizes;
  }

  /**
   * Computes C.
   *
   * @param a F32, of at least as many elements as lie between A's first and last
   * @param b the same of B
   * @param c the same of C; must not overlap the others
   * @throws OperandException if an operand does not fit
   */
  public final void run(Stream stream, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    check(a, b, c);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(a).reads(b).writes("c", c);
      compute(stream, alpha, a, b, beta, c);
    }
  }

  /**
   * As above with factors that lie on the device, so that a recorded product takes others each time
   * it runs; where alpha is NaN, C stays as it is.
   *
   * @param scale F32 [2]: alpha, beta
   */
  public final void run(Stream stream, Tensor scale, Tensor a, Tensor b, Tensor c) {
    operands.requireElements("scale", scale, 2, DataType.F32);
    check(a, b, c);
    operands.requireDistinct("scale", scale, "c", c);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(scale).reads(a).reads(b).writes("c", c);
      compute(stream, scale, a, b, c);
    }
  }

  private void check(Tensor a, Tensor b, Tensor c) {
    operands.requireAtLeast("a", a, sizes.elementsA(), DataType.F32);
    operands.requireAtLeast("b", b, sizes.elementsB(), DataType.F32);
    operands.requireAtLeast("c", c, sizes.elementsC(), DataType.F32);
    operands.requireDistinct("a", a, "c", c);
    operands.requireDistinct("b", b, "c", c);
  }

  /** Implements {@link #run(Stream, float, Tensor, Tensor, float, Tensor)}. */
  protected abstract void compute(
      Stream stream, float alpha, Tensor a, Tensor b, float beta, Tensor c);

  /** Implements the other; this one is for devices whose memory the host can read. */
  protected void compute(Stream stream, Tensor scale, Tensor a, Tensor b, Tensor c) {
    float alpha = scale.get(0);
    if (!Float.isNaN(alpha)) {
      compute(stream, alpha, a, b, scale.get(1), c);
    }
  }
}
