package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * A change of layout: NCHW to NHWC and back for images and activations, KCRS (OIHW) to KRSC and
 * back for convolution weights. Elements of any type are moved, bit by bit.
 *
 * <pre>
 * NCHW to NHWC   dst[n,h,w,c] = src[n,c,h,w]          KCRS to KRSC   dst[k,r,s,c] = src[k,c,r,s]
 * NHWC to NCHW   dst[n,c,h,w] = src[n,h,w,c]          KRSC to KCRS   dst[k,c,r,s] = src[k,r,s,c]
 * </pre>
 *
 * <p>All four are one thing, the transposition of each matrix of a batch:
 *
 * <pre>
 * dst[i][c][r] = src[i][r][c]     i &lt; batch, r &lt; rows, c &lt; cols
 * </pre>
 *
 * where batch is the first extent, and one of rows and cols is the channels, the other height times
 * width. An empty tensor is allowed: then nothing is done. dst must not overlap src.
 */
public abstract class Reorder extends PreparedOperation {
  private final Shape src;
  private final Shape dst;
  private final DataType type;
  private final Layout from;
  private final Layout to;
  private final long rows;
  private final long cols;

  /**
   * For backends.
   *
   * @param src shape of the source
   * @throws IllegalArgumentException if no reorder leads from one layout to the other, or the shape
   *     has not four extents
   */
  protected Reorder(Device device, Shape src, DataType type, Layout from, Layout to) {
    super("reorder " + src + " from " + from + " to " + to, device);
    boolean channelsFirst = leadsToOurs(from, to);
    if (!channelsFirst && !leadsToOurs(to, from)) {
      throw new IllegalArgumentException(
          "no reorder leads from "
              + from
              + " to "
              + to
              + "; those that there are lead from NCHW to NHWC, from KCRS to KRSC, and back");
    }
    if (src.rank() != 4) {
      throw new IllegalArgumentException("a reorder from " + from + " needs four axes, got " + src);
    }
    long image = channelsFirst ? (long) src.dim(2) * src.dim(3) : (long) src.dim(1) * src.dim(2);
    this.src = src;
    this.dst =
        channelsFirst
            ? Shape.of(src.dim(0), src.dim(2), src.dim(3), src.dim(1))
            : Shape.of(src.dim(0), src.dim(3), src.dim(1), src.dim(2));
    this.rows = channelsFirst ? src.dim(1) : image;
    this.cols = channelsFirst ? image : src.dim(3);
    this.type = type;
    this.from = from;
    this.to = to;
  }

  /** Whether a reorder from one layout to the other brings channels from first place to last. */
  private static boolean leadsToOurs(Layout from, Layout to) {
    return switch (from) {
      case NCHW -> to == Layout.NHWC;
      case KCRS -> to == Layout.KRSC;
      case ROW_MAJOR, NHWC, KRSC -> false;
    };
  }

  /** Shape of the source, its extents in the order of {@link #from}. */
  public final Shape src() {
    return src;
  }

  /** Shape of the destination, its extents in the order of {@link #to}. */
  public final Shape dst() {
    return dst;
  }

  /** Storage type of both. */
  public final DataType type() {
    return type;
  }

  /** Layout of the source. */
  public final Layout from() {
    return from;
  }

  /** Layout of the destination. */
  public final Layout to() {
    return to;
  }

  /** Number of matrices. */
  public final int batch() {
    return src.dim(0);
  }

  /** Rows of a matrix of the source. */
  public final long rows() {
    return rows;
  }

  /** Columns of a matrix of the source. */
  public final long cols() {
    return cols;
  }

  /** Whether the elements keep their order, as a row or a column does: then it is a copy. */
  protected final boolean isCopy() {
    return rows == 1 || cols == 1;
  }

  /**
   * Fills dst with the elements of src.
   *
   * @throws OperandException if a tensor does not fit, or the two overlap
   */
  public final void run(Stream stream, Tensor srcTensor, Tensor dstTensor) {
    operands.require("src", srcTensor, src, type, from);
    operands.require("dst", dstTensor, dst, type, to);
    operands.requireDistinct("src", srcTensor, "dst", dstTensor);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(srcTensor).writes("dst", dstTensor);
      compute(stream, srcTensor, dstTensor);
    }
  }

  /** Implements {@link #run}; operands are checked, and may be empty. */
  protected abstract void compute(Stream stream, Tensor srcTensor, Tensor dstTensor);
}
