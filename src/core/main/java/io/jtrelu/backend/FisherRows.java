package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * What a convolution's block of the Fisher matrix is made of, a row for each sample: the mean patch
 * that its filters saw, and the sum of the gradients at its results.
 *
 * <pre>
 * inputs[n, (r, s, c)] = 1/(oh ow) sum over y, x of src[n, y strideH - padTop + r dilationH, x strideW - padLeft + s dilationW, c]
 * inputs[n, kh kw ic]  = 1                                                   for the bias
 * gradients[n, k]      = sum over y, x of diff_dst[n, y, x, k]
 * </pre>
 *
 * Outside of the image src is 0. With these rows as a and g, K-FAC's factors in the <i>reduce</i>
 * form are the means of a a' and g g' (Eschenhagen et al. 2023, <i>Kronecker-factored approximate
 * curvature for modern neural network architectures</i>, arXiv 2311.00636).
 */
public abstract class FisherRows extends PreparedOperation {
  private final Conv2dDescriptor descriptor;
  private final DataType type;

  /** For backends. */
  protected FisherRows(Device device, Conv2dDescriptor descriptor, DataType type) {
    super("fisher rows", device);
    if (descriptor.groups() != 1) {
      throw new UnsupportedException(
          "fisher rows: a convolution in groups has a block for each of them, which is not there: "
              + descriptor);
    }
    this.descriptor = descriptor;
    this.type = type;
  }

  /** The convolution. */
  public final Conv2dDescriptor descriptor() {
    return descriptor;
  }

  /** Storage type of src and diff_dst. */
  public final DataType type() {
    return type;
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
   * @param inputs F32 [n, kh kw ic + 1]
   * @param gradients F32 [n, oc]
   * @throws OperandException if an operand does not fit
   */
  public final void run(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients) {
    Conv2dDescriptor d = descriptor;
    Shape inputShape = Shape.of(d.n(), inputs(d));
    Shape gradientShape = Shape.of(d.n(), d.oc());
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
