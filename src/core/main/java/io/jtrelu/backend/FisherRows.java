package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * What a convolution's block of the Fisher matrix is made of: rows of what its filters saw, and of
 * the gradients at its results.
 *
 * <pre>
 * patch[n, t, (r, s, c)] = src[n, y strideH - padTop + r dilationH, x strideW - padLeft + s dilationW, c]
 * patch[n, t, kh kw ic]  = 1                                                 for the bias
 *
 * reduce:  inputs[n]       = 1/T sum over t of patch[n, t]        gradients[n]       = sum over t of diff_dst[n, t]
 * expand:  inputs[n T + t] = 1/sqrt(T) patch[n, t]                gradients[n T + t] = diff_dst[n, t]
 * </pre>
 *
 * at the place t = y ow + x of T = oh ow; outside of the image src is 0. With these rows as a and
 * g, and N samples, K-FAC's factors are the sums of a a' and g g' over all rows, divided by N
 * (Eschenhagen et al. 2023, <i>Kronecker-factored approximate curvature for modern neural network
 * architectures</i>, arXiv 2311.00636).
 */
public abstract class FisherRows extends PreparedOperation {
  private final Conv2dDescriptor descriptor;
  private final DataType type;
  private final Form form;

  /** How the places of an image, which share their weights, make up one block. */
  public enum Form {
    /** A row for each sample: exact where the gradients are the same at all places. */
    REDUCE,
    /**
     * A row for each place, as if each were a sample of its own: exact where the gradients at
     * different places are independent.
     */
    EXPAND
  }

  /** For backends. */
  protected FisherRows(Device device, Conv2dDescriptor descriptor, DataType type, Form form) {
    super("fisher rows", device);
    if (descriptor.groups() != 1) {
      throw new UnsupportedException(
          "fisher rows: a convolution in groups has a block for each of them, which is not there: "
              + descriptor);
    }
    this.descriptor = descriptor;
    this.type = type;
    this.form = form;
  }

  /** The convolution. */
  public final Conv2dDescriptor descriptor() {
    return descriptor;
  }

  /** Storage type of src and diff_dst. */
  public final DataType type() {
    return type;
  }

  /** How places make up rows. */
  public final Form form() {
    return form;
  }

  /** Rows of a sample. */
  public static int rows(Conv2dDescriptor descriptor, Form form) {
    return form == Form.REDUCE ? 1 : Math.multiplyExact(descriptor.oh(), descriptor.ow());
  }

  /** Elements of a row of inputs: kh kw ic + 1. */
  public static int inputs(Conv2dDescriptor descriptor) {
    return Math.toIntExact((long) descriptor.kh() * descriptor.kw() * descriptor.ic() + 1);
  }

  /**
   * Computes the rows.
   *
   * @param src NHWC, as the convolution read it
   * @param diffDst NHWC, gradients at the convolution's results, before any activation
   * @param inputs F32 [n rows, kh kw ic + 1], with one row a sample, or T
   * @param gradients F32 [n rows, oc]
   * @throws OperandException if an operand does not fit
   */
  public final void run(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients) {
    Conv2dDescriptor d = descriptor;
    int rows = Math.multiplyExact(d.n(), rows(d, form));
    Shape inputShape = Shape.of(rows, inputs(d));
    Shape gradientShape = Shape.of(rows, d.oc());
    operands.require("src", src, d.src(), type, Layout.NHWC);
    operands.require("diff_dst", diffDst, d.dst(), type, Layout.NHWC);
    operands.require("inputs", inputs, inputShape, DataType.F32, Layout.ROW_MAJOR);
    operands.require("gradients", gradients, gradientShape, DataType.F32, Layout.ROW_MAJOR);
    operands.requireDistinct("src", src, "inputs", inputs);
    operands.requireDistinct("src", src, "gradients", gradients);
    operands.requireDistinct("diff_dst", diffDst, "inputs", inputs);
    operands.requireDistinct("diff_dst", diffDst, "gradients", gradients);
    operands.requireDistinct("inputs", inputs, "gradients", gradients);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(diffDst).writes("inputs", inputs).writes("gradients", gradients);
      compute(stream, src, diffDst, inputs, gradients);
    }
  }

  /** Implements {@link #run}. */
  protected abstract void compute(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients);
}
