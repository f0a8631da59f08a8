package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Mean over all locations of an image.
 *
 * <pre>
 * forward   dst[n,0,0,c]      = 1/(h*w) * sum over p,q of src[n,p,q,c]
 * backward  diff_src[n,p,q,c] = ( [diff_src +] diff_dst[n,0,0,c] / (h*w) ) * psi'(src)
 * </pre>
 */
public abstract class GlobalMeanPool extends PreparedOperation {
  private final Shape src;
  private final Shape dst;
  private final DataType type;
  private final Rectifier srcActivation;

  /** For backends. */
  protected GlobalMeanPool(Device device, Shape src, DataType type, Rectifier srcActivation) {
    super("global mean-pool " + src, device);
    if (src.rank() != 4) {
      throw new IllegalArgumentException("global mean-pool needs an NHWC shape, got " + src);
    }
    this.src = src;
    this.dst = Shape.of(src.dim(0), 1, 1, src.dim(3));
    this.type = type;
    this.srcActivation = srcActivation;
  }

  /** Shape of src, NHWC. */
  public final Shape src() {
    return src;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** The rectifier that produced src. */
  public final Rectifier srcActivation() {
    return srcActivation;
  }

  /** Means over locations. */
  public final void forward(Stream stream, Tensor source, Tensor destination) {
    operands.require("src", source, src, type, Layout.NHWC);
    operands.require("dst", destination, dst, type, Layout.NHWC);
    operands.requireDistinct("src", source, "dst", destination);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(source).writes("dst", destination);
      runForward(stream, source, destination);
    }
  }

  /** Spreads the gradient over locations; source is read only for psi'. */
  public final void backward(
      Stream stream, Tensor diffDst, Tensor source, Tensor diffSrc, Write write) {
    operands.require("diff_dst", diffDst, dst, type, Layout.NHWC);
    operands.require("src", source, src, type, Layout.NHWC);
    operands.require("diff_src", diffSrc, src, type, Layout.NHWC);
    operands.requireDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    if (!srcActivation.isIdentity()) {
      operands.requireSameOrDistinct("src", source, "diff_src", diffSrc);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(source).writes("diff_src", diffSrc);
      runBackward(stream, diffDst, source, diffSrc, write);
    }
  }

  /** Implements {@link #forward}. */
  protected abstract void runForward(Stream stream, Tensor source, Tensor destination);

  /** Implements {@link #backward}. */
  protected abstract void runBackward(
      Stream stream, Tensor diffDst, Tensor source, Tensor diffSrc, Write write);
}
