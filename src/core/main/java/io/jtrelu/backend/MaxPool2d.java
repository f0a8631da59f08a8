package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;

/**
 * Max-pooling. The winner is the first maximum in row-major order of the window; a NaN wins.
 *
 * <pre>
 * forward   dst[n,p,q,c] = max over the window of src;  argmax[n,p,q,c] = r*kernel + s of the winner
 * backward  diff_src     = ( [diff_src +] sum of diff_dst over the windows that the element won ) * psi'(src)
 * </pre>
 *
 * <p>Where {@link #marksPositive}, argmax is {@link #POSITIVE} more for a maximum above 0: all that
 * psi' needs to know of src, which is then not read again, except to add to diff_src.
 */
public abstract class MaxPool2d extends PreparedOperation {
  /** The bit of argmax that says that the maximum is above 0. */
  public static final int POSITIVE = 128;

  private final MaxPool2dDescriptor descriptor;
  private final DataType type;
  private final Rectifier srcActivation;

  /** For backends. */
  protected MaxPool2d(
      Device device, MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    super("max-pool " + descriptor, device);
    this.descriptor = descriptor;
    this.type = type;
    this.srcActivation = srcActivation;
  }

  /** The sizes. */
  public final MaxPool2dDescriptor descriptor() {
    return descriptor;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** The rectifier that produced src. */
  public final Rectifier srcActivation() {
    return srcActivation;
  }

  /**
   * Whether argmax tells maxima above 0 apart: where psi is not the identity and the places of a
   * window {@linkplain #leavesBit leave a bit} of a byte, that is for kernels up to 11.
   */
  public final boolean marksPositive() {
    return !srcActivation.isIdentity() && leavesBit(descriptor);
  }

  /** Whether the places of a window leave a bit of a byte. */
  public static boolean leavesBit(MaxPool2dDescriptor descriptor) {
    return descriptor.kernel() * descriptor.kernel() <= POSITIVE;
  }

  /**
   * Maximum and its place in each window.
   *
   * @param argmax U8 NHWC of dst's shape
   */
  public final void forward(Stream stream, Tensor src, Tensor dst, Tensor argmax) {
    operands.require("src", src, descriptor.src(), type, Layout.NHWC);
    operands.require("dst", dst, descriptor.dst(), type, Layout.NHWC);
    operands.require("argmax", argmax, descriptor.dst(), DataType.U8, Layout.NHWC);
    operands.requireDistinct("src", src, "dst", dst);
    operands.requireDistinct("src", src, "argmax", argmax);
    operands.requireDistinct("dst", dst, "argmax", argmax);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).writes("dst", dst).writes("argmax", argmax);
      runForward(stream, src, dst, argmax);
    }
  }

  /**
   * Routes each gradient to the element that won.
   *
   * @param argmax as {@link #forward} left it
   * @param src read only for psi', and not where {@link #marksPositive} and diff_src is
   *     overwritten: then it may hold anything by now
   */
  public final void backward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write) {
    operands.require("diff_dst", diffDst, descriptor.dst(), type, Layout.NHWC);
    operands.require("argmax", argmax, descriptor.dst(), DataType.U8, Layout.NHWC);
    operands.require("src", src, descriptor.src(), type, Layout.NHWC);
    operands.require("diff_src", diffSrc, descriptor.src(), type, Layout.NHWC);
    operands.requireDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    operands.requireDistinct("argmax", argmax, "diff_src", diffSrc);
    if (!srcActivation.isIdentity()) {
      operands.requireSameOrDistinct("src", src, "diff_src", diffSrc);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(argmax).reads(src).writes("diff_src", diffSrc);
      runBackward(stream, diffDst, argmax, src, diffSrc, write);
    }
  }

  /** Implements {@link #forward}. */
  protected abstract void runForward(Stream stream, Tensor src, Tensor dst, Tensor argmax);

  /** Implements {@link #backward}. */
  protected abstract void runBackward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write);
}
