package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;

/**
 * A convolution whose result enters a normalised sum, as one operation: the end of a residual
 * block.
 *
 * <pre>
 * forward   dst = phi( branchWeight * (conv(src, weights) + bias) + shortcutWeight * shortcut )
 * </pre>
 *
 * <p>It saves writing and reading the convolution's result and has no gradients of its own: that
 * result is linear in the sum, so nobody needs its value. With g the gradient before phi, {@link
 * WeightedSum#backwardA} gives the shortcut's gradient and {@link WeightedSum#backwardB} that of
 * the convolution's result, which is diff_dst of {@link Conv2d#backwardData} and {@link
 * Conv2d#backwardWeights}.
 *
 * <p>A backend may round the convolution's result to the storage type before the sum. dst must
 * overlap neither src nor shortcut; these may be one tensor.
 */
public abstract class Conv2dSum extends PreparedOperation {
  private final Conv2d convolution;
  private final float shortcutWeight;
  private final float branchWeight;
  private final Rectifier activation;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if the convolution has an activation
   */
  protected Conv2dSum(
      Device device,
      Conv2d convolution,
      float shortcutWeight,
      float branchWeight,
      Rectifier activation) {
    super("conv2d sum " + convolution.descriptor(), device);
    if (!convolution.activation().isIdentity()) {
      throw new IllegalArgumentException(
          "a convolution within a sum has no activation of its own, got "
              + convolution.activation());
    }
    this.convolution = convolution;
    this.shortcutWeight = shortcutWeight;
    this.branchWeight = branchWeight;
    this.activation = activation;
  }

  /** The convolution. */
  public final Conv2d convolution() {
    return convolution;
  }

  /** Factor of the shortcut. */
  public final float shortcutWeight() {
    return shortcutWeight;
  }

  /** Factor of the convolution's result. */
  public final float branchWeight() {
    return branchWeight;
  }

  /** The rectifier applied to the sum. */
  public final Rectifier activation() {
    return activation;
  }

  /**
   * dst = phi(branchWeight * (conv(src, weights) + bias) + shortcutWeight * shortcut).
   *
   * @param weights packed by the convolution
   * @param shortcut of the shape and type of dst
   * @throws OperandException if a tensor does not fit
   */
  public final void forward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor shortcut, Tensor dst) {
    Conv2dDescriptor d = convolution.descriptor();
    DataType type = convolution.type();
    operands.require("src", src, d.src(), type, Layout.NHWC);
    operands.require("bias", bias, d.bias(), DataType.F32, Layout.ROW_MAJOR);
    operands.require("shortcut", shortcut, d.dst(), type, Layout.NHWC);
    operands.require("dst", dst, d.dst(), type, Layout.NHWC);
    operands.requireDistinct("src", src, "dst", dst);
    operands.requireDistinct("shortcut", shortcut, "dst", dst);
    operands.requireDistinct("bias", bias, "dst", dst);
    try (BackendStream.Use use = operands.use(stream)) {
      use.holds(convolution.operands.lifetime())
          .reads(src)
          .reads(bias)
          .reads(shortcut)
          .writes("dst", dst);
      if (d.n() > 0) {
        runForward(stream, src, weights, bias, shortcut, dst);
      }
    }
  }

  /** Implements {@link #forward}; operands are checked and the batch is not empty. */
  protected abstract void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor shortcut, Tensor dst);
}
