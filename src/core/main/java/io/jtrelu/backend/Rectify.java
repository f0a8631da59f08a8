package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * A rectifier as an operation of its own, for places where it cannot be fused into its producer
 * (the pre-activation value is needed elsewhere too).
 *
 * <pre>
 * forward   dst      = phi(src)                                       dst may be src
 * backward  diff_src = [diff_src +] diff_dst * scale * (dst &gt; 0 ? 1 : slope)   diff_src may be diff_dst
 * </pre>
 *
 * Here diff_dst is the gradient <i>after</i> the activation: this operation is the activation.
 */
public abstract class Rectify extends PreparedOperation {
  private final long elements;
  private final DataType type;
  private final Rectifier rectifier;

  /** For backends. */
  protected Rectify(Device device, long elements, DataType type, Rectifier rectifier) {
    super("rectify", device);
    this.elements = Operands.requireCount("rectify", elements);
    this.type = type;
    this.rectifier = rectifier;
  }

  /** Number of elements. */
  public final long elements() {
    return elements;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** The function. */
  public final Rectifier rectifier() {
    return rectifier;
  }

  /** dst = phi(src); dst may be src itself. */
  public final void forward(Stream stream, Tensor src, Tensor dst) {
    operands.requireElements("src", src, elements, type);
    operands.requireElements("dst", dst, elements, type);
    operands.requireSameOrDistinct("src", src, "dst", dst);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).writes("dst", dst);
      runForward(stream, src, dst);
    }
  }

  /** diff_src = [diff_src +] diff_dst * phi'; diff_src may be diff_dst itself when overwriting. */
  public final void backward(
      Stream stream, Tensor dst, Tensor diffDst, Tensor diffSrc, Write write) {
    operands.requireElements("dst", dst, elements, type);
    operands.requireElements("diff_dst", diffDst, elements, type);
    operands.requireElements("diff_src", diffSrc, elements, type);
    operands.requireSameOrDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    operands.requireSameOrDistinct("dst", dst, "diff_src", diffSrc);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(dst).reads(diffDst).writes("diff_src", diffSrc);
      runBackward(stream, dst, diffDst, diffSrc, write);
    }
  }

  /** Implements {@link #forward}. */
  protected abstract void runForward(Stream stream, Tensor src, Tensor dst);

  /** Implements {@link #backward}. */
  protected abstract void runBackward(
      Stream stream, Tensor dst, Tensor diffDst, Tensor diffSrc, Write write);
}
