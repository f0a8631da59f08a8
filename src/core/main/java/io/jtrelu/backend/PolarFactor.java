package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;

/**
 * About the polar factor of each of several matrices of one size, in place: what Muon makes of its
 * momentum.
 *
 * <pre>
 * X = M / |M|_F                               0 for a matrix of zeros
 * five times   X = a X + (b G + c G^2) X      G = X X'; for more rows than columns X (b G + c G^2), G = X' X
 * M = scale * X                               a = 3.4445, b = -4.7750, c = 2.0315
 * </pre>
 *
 * <p>With M = U S V', the result is scale * U p(S) V', where p, odd and of degree 3125, takes all
 * of [0.01, 1] to between 0.68 and 1.14: singular vectors stay, singular values become about one.
 * The polynomial is Jordan's (Muon, 2024, kellerjordan.github.io/posts/muon), a Newton-Schulz
 * iteration whose coefficients let small singular values grow fast instead of converging.
 *
 * <p>Sums are F32, in an order that the sizes alone decide. A value that is not finite makes NaN of
 * its matrix, and of no other.
 */
public abstract class PolarFactor extends PreparedOperation {
  private static final int ITERATIONS = 5; // odd: so they end where they began
  private static final float LINEAR = 3.4445f;
  private static final float CUBIC = -4.7750f;
  private static final float QUINTIC = 2.0315f;

  private final Backend backend;
  private final int rows;
  private final int columns;
  private final int count;
  private final float scale;
  private final int side; // of G
  private final MatrixProduct gram;
  private final MatrixProduct square;
  private final MatrixProduct apply;
  private final Deque<MatrixProduct> owned = new ArrayDeque<>();

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if rows, columns or count are below 1, or the scale is not
   *     finite
   * @throws UnsupportedException if the backend has no products of matrices
   */
  protected PolarFactor(Backend backend, int rows, int columns, int count, float scale) {
    super("polar factor", backend.device());
    if (rows < 1 || columns < 1 || count < 1 || !Float.isFinite(scale)) {
      throw new IllegalArgumentException(
          "polar factors need 1 row, column and matrix or more, and a finite scale; got "
              + count
              + " of ["
              + rows
              + ", "
              + columns
              + "], scale "
              + scale);
    }
    this.backend = backend;
    this.rows = rows;
    this.columns = columns;
    this.count = count;
    this.scale = scale;
    side = Math.min(rows, columns);
    boolean wide = isWide();
    gram = product(side, side, wide ? columns : rows, !wide, wide);
    square = product(side, side, side, false, false);
    apply = product(rows, columns, side, false, false);
  }

  private MatrixProduct product(int m, int n, int k, boolean transposeA, boolean transposeB) {
    var sizes = MatrixProduct.Sizes.dense(m, n, k, transposeA, transposeB).times(count);
    try {
      MatrixProduct product = backend.matrixProduct(sizes);
      owned.push(product);
      return product;
    } catch (RuntimeException | Error failure) {
      release();
      throw failure;
    }
  }

  private boolean isWide() {
    return rows <= columns;
  }

  /** Rows of each matrix. */
  public final int rows() {
    return rows;
  }

  /** Columns of each matrix. */
  public final int columns() {
    return columns;
  }

  /** Number of matrices. */
  public final int count() {
    return count;
  }

  /** What the factors are multiplied by. */
  public final float scale() {
    return scale;
  }

  /** Elements of all matrices. */
  public final long elements() {
    return (long) count * rows * columns;
  }

  private long squares() {
    return (long) count * side * side;
  }

  /** F32 elements that it needs beside the matrices. */
  public final long scratchElements() {
    return scratchElements(rows, columns, count);
  }

  /** The same of matrices for which nothing is prepared yet. */
  public static long scratchElements(int rows, int columns, int count) {
    long side = Math.min(rows, columns);
    return count * ((long) rows * columns + 2 * side * side);
  }

  /**
   * Computes the factors.
   *
   * @param matrices F32, row-major, one behind the other; the factors take their place
   * @param scratch F32, at least {@link #scratchElements}, which may serve other operations before
   *     and after
   * @throws OperandException if an operand does not fit
   */
  public final void run(Stream stream, Tensor matrices, Tensor scratch) {
    operands.requireElements("matrices", matrices, elements(), DataType.F32);
    operands.requireAtLeast("scratch", scratch, scratchElements(), DataType.F32);
    operands.requireDistinct("matrices", matrices, "scratch", scratch);
    try (BackendStream.Use use = operands.use(stream)) {
      use.writes("matrices", matrices).writes("scratch", scratch);
      Tensor from = part(scratch, 0, elements());
      Tensor to = part(matrices, 0, elements());
      Tensor g = part(scratch, elements(), squares());
      Tensor polynomial = part(scratch, elements() + squares(), squares());
      normalize(stream, to, from);
      for (int i = 1; i <= ITERATIONS; i++) {
        float last = i == ITERATIONS ? scale : 1;
        gram.run(stream, 1, from, from, 0, g);
        backend.copy(stream, g, polynomial);
        square.run(stream, QUINTIC, g, g, CUBIC, polynomial);
        backend.copy(stream, from, to);
        apply.run(
            stream,
            last,
            isWide() ? polynomial : from,
            isWide() ? from : polynomial,
            last * LINEAR,
            to);
        Tensor next = from;
        from = to;
        to = next;
      }
    }
  }

  private static Tensor part(Tensor of, long first, long elements) {
    return of.slice(first, Shape.of(Math.toIntExact(elements)), Layout.ROW_MAJOR);
  }

  /** Divides each matrix by its Frobenius norm, and leaves zeros zeros. */
  protected abstract void normalize(Stream stream, Tensor matrices, Tensor normalized);

  @Override
  protected void release() {
    owned.forEach(MatrixProduct::close);
  }
}
