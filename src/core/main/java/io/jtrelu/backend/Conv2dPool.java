package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;

/**
 * A convolution and the max-pooling of its result as one operation: the tensor between them, the
 * largest of a network that begins so, is never stored, and neither is its gradient. It is for a
 * network's first convolution, as it leads no gradient back to src.
 *
 * <pre>
 * forward          between       = phi( conv(src, weights) + bias )                  rounded to the type
 *                  dst, places   = maxima of between, and where they lie
 * backwardWeights  diff_between  = pool^T(diff_dst, places) * phi'(between)          rounded to the type
 *                  diff_weights, diff_bias = [themselves +] as {@link Conv2d} defines them, of src
 *                                  and diff_between
 * </pre>
 *
 * with phi the activation of the convolution and the {@code srcActivation} of the pooling. A
 * backend may multiply by the scale of phi' behind the sums instead. Which element of a window wins
 * is as {@link MaxPool2d} says. Types, layouts, signs and empty batches are those of {@link
 * Conv2d}; weights are packed by the convolution, which may run by itself as well.
 *
 * <p>What {@code places} holds is the backend's affair: only its own backward pass reads it.
 */
public abstract class Conv2dPool extends PreparedOperation {
  private final Conv2d convolution;
  private final MaxPool2d pooling;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if the pooling does not read what the convolution writes
   */
  protected Conv2dPool(Device device, Conv2d convolution, MaxPool2d pooling) {
    super("pooled conv2d " + convolution.descriptor() + " " + pooling.descriptor(), device);
    if (!convolution.descriptor().dst().equals(pooling.descriptor().src())
        || convolution.type() != pooling.type()
        || !convolution.activation().equals(pooling.srcActivation())) {
      throw new IllegalArgumentException(
          String.format(
              "the pooling must read what the convolution writes, but that ends with %s%s and %s,"
                  + " the pooling begins with %s%s and %s",
              convolution.type(),
              convolution.descriptor().dst(),
              convolution.activation(),
              pooling.type(),
              pooling.descriptor().src(),
              pooling.srcActivation()));
    }
    this.convolution = convolution;
    this.pooling = pooling;
  }

  /** The convolution that reads src. */
  public final Conv2d convolution() {
    return convolution;
  }

  /** The pooling that writes dst. */
  public final MaxPool2d pooling() {
    return pooling;
  }

  /** As {@link Conv2d#scratchBytes}. */
  public long scratchBytes() {
    return 0;
  }

  /**
   * dst from src.
   *
   * @param weights packed by the convolution
   * @param bias F32 [oc]
   * @param places U8 NHWC of dst's shape, for {@link #backwardWeights}
   * @throws OperandException if a tensor does not fit
   */
  public final void forward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor places) {
    operands.require("src", src, convolution.descriptor().src(), convolution.type(), Layout.NHWC);
    requireBias("bias", bias);
    operands.require("dst", dst, pooling.descriptor().dst(), pooling.type(), Layout.NHWC);
    requirePlaces(places);
    operands.requireDistinct("src", src, "dst", dst);
    operands.requireDistinct("src", src, "places", places);
    operands.requireDistinct("bias", bias, "dst", dst);
    operands.requireDistinct("bias", bias, "places", places);
    operands.requireDistinct("dst", dst, "places", places);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(bias).writes("dst", dst).writes("places", places);
      use.holds(convolution.operands.lifetime()).holds(pooling.operands.lifetime());
      if (convolution.descriptor().n() > 0) {
        runForward(stream, src, weights, bias, dst, places);
      }
    }
  }

  /**
   * Gradients of weights and bias.
   *
   * @param diffDst gradient of dst
   * @param places as {@link #forward} left them
   * @param diffWeights F32 KRSC
   * @param diffBias F32 [oc]
   * @param write whether the gradients replace what is there or are added to it
   * @throws OperandException if a tensor does not fit
   */
  public final void backwardWeights(
      Stream stream,
      Tensor src,
      Tensor diffDst,
      Tensor places,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    operands.require("src", src, convolution.descriptor().src(), convolution.type(), Layout.NHWC);
    operands.require("diff_dst", diffDst, pooling.descriptor().dst(), pooling.type(), Layout.NHWC);
    requirePlaces(places);
    operands.require(
        "diff_weights", diffWeights, convolution.descriptor().weights(), DataType.F32, Layout.KRSC);
    requireBias("diff_bias", diffBias);
    operands.requireDistinct("src", src, "diff_weights", diffWeights);
    operands.requireDistinct("src", src, "diff_bias", diffBias);
    operands.requireDistinct("diff_dst", diffDst, "diff_weights", diffWeights);
    operands.requireDistinct("diff_dst", diffDst, "diff_bias", diffBias);
    operands.requireDistinct("places", places, "diff_weights", diffWeights);
    operands.requireDistinct("places", places, "diff_bias", diffBias);
    operands.requireDistinct("diff_weights", diffWeights, "diff_bias", diffBias);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(diffDst).reads(places);
      use.writes("diff_weights", diffWeights).writes("diff_bias", diffBias);
      use.holds(convolution.operands.lifetime()).holds(pooling.operands.lifetime());
      runBackwardWeights(stream, src, diffDst, places, diffWeights, diffBias, write);
    }
  }

  private void requireBias(String name, Tensor bias) {
    operands.require(name, bias, convolution.descriptor().bias(), DataType.F32, Layout.ROW_MAJOR);
  }

  private void requirePlaces(Tensor places) {
    operands.require("places", places, pooling.descriptor().dst(), DataType.U8, Layout.NHWC);
  }

  /** Implements {@link #forward}; operands are checked and the batch is not empty. */
  protected abstract void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor places);

  /** Implements {@link #backwardWeights}; operands are checked, the batch may be empty. */
  protected abstract void runBackwardWeights(
      Stream stream,
      Tensor src,
      Tensor diffDst,
      Tensor places,
      Tensor diffWeights,
      Tensor diffBias,
      Write write);
}
