package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Two convolutions, one after the other, as one operation: the tensor between them is never stored.
 * It is worth it where that tensor is the widest of the three, as between the blocks of a
 * bottleneck network without shortcuts: nothing else reads it there, and the backward pass computes
 * it again.
 *
 * <pre>
 * forward    mid          = phi( conv1(src, weights1) + bias1 )                  rounded to the type
 *            dst          = chi( conv2(mid, weights2) + bias2 )
 * backward   diff_mid     = conv2^T(diff_dst, weights2) * phi'(mid)              rounded to the type
 *            diff_src     = ( [diff_src +] conv1^T(diff_mid, weights1) ) * psi'(src)
 *            diff_weights1, diff_bias1, diff_weights2, diff_bias2 = [themselves +] as {@link Conv2d}
 *                           defines them, of src and diff_mid, and of mid and diff_dst
 * </pre>
 *
 * with psi the {@code srcActivation} of the first convolution, phi its activation and the {@code
 * srcActivation} of the second, chi the activation of the second, and diff_dst the gradient before
 * chi. Types, layouts, signs and empty batches are those of {@link Conv2d}; weights are packed by
 * the two convolutions, which may run by themselves as well.
 *
 * <p><b>Overlap.</b> What is written must overlap nothing else that is read or written; src is not
 * read for psi' by {@link #backwardBySigns}, but for the gradient of the weights.
 */
public abstract class Conv2dChain extends PreparedOperation {
  /**
   * What a convolution multiplies with and adds.
   *
   * @param packed from its {@link Conv2d#newPackedWeights}
   * @param bias F32 [oc]
   */
  public record Weights(PackedWeights packed, Tensor bias) {}

  /**
   * Where a convolution's gradients go.
   *
   * @param weights F32 KRSC
   * @param bias F32 [oc]
   */
  public record Gradients(Tensor weights, Tensor bias) {}

  private final Conv2d first;
  private final Conv2d second;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if the second does not begin with what the first ends with
   */
  protected Conv2dChain(Device device, Conv2d first, Conv2d second) {
    super("conv2d chain " + first.descriptor() + " " + second.descriptor(), device);
    if (!first.descriptor().dst().equals(second.descriptor().src())
        || first.type() != second.type()
        || !first.activation().equals(second.srcActivation())) {
      throw new IllegalArgumentException(
          String.format(
              "the second convolution of a chain must read what the first writes, but the first"
                  + " ends with %s%s and %s, the second begins with %s%s and %s",
              first.type(),
              first.descriptor().dst(),
              first.activation(),
              second.type(),
              second.descriptor().src(),
              second.srcActivation()));
    }
    this.first = first;
    this.second = second;
  }

  /** The convolution that reads src. */
  public final Conv2d first() {
    return first;
  }

  /** The convolution that writes dst. */
  public final Conv2d second() {
    return second;
  }

  /** As {@link Conv2d#scratchBytes}. */
  public long scratchBytes() {
    return 0;
  }

  /**
   * dst from src.
   *
   * @throws OperandException if a tensor does not fit
   */
  public final void forward(
      Stream stream, Tensor src, Weights ofFirst, Weights ofSecond, Tensor dst) {
    forward(stream, src, ofFirst, ofSecond, dst, null);
  }

  /**
   * As {@link #forward}, and leaves which elements of dst are positive.
   *
   * @param signs U8 {@link Conv2d#signs signs(dst)}
   * @throws OperandException if a tensor does not fit
   * @throws UnsupportedException where {@link Conv2d#keepsSigns} of the second is false
   */
  public final void forwardWithSigns(
      Stream stream, Tensor src, Weights ofFirst, Weights ofSecond, Tensor dst, Tensor signs) {
    requireSigns(second);
    operands.require(
        "signs", signs, Conv2d.signs(second.descriptor().dst()), DataType.U8, Layout.ROW_MAJOR);
    forward(stream, src, ofFirst, ofSecond, dst, signs);
  }

  private void forward(
      Stream stream,
      Tensor src,
      Weights ofFirst,
      Weights ofSecond,
      Tensor dst,
      @Nullable Tensor signs) {
    operands.require("src", src, first.descriptor().src(), first.type(), Layout.NHWC);
    requireBias("bias1", ofFirst.bias(), first);
    requireBias("bias2", ofSecond.bias(), second);
    operands.require("dst", dst, second.descriptor().dst(), second.type(), Layout.NHWC);
    List<Named> read =
        List.of(
            new Named("src", src),
            new Named("bias1", ofFirst.bias()),
            new Named("bias2", ofSecond.bias()));
    List<Named> written = new ArrayList<>(List.of(new Named("dst", dst)));
    if (signs != null) {
      written.add(new Named("signs", signs));
    }
    try (BackendStream.Use use = use(stream, read, written)) {
      use.holds(first.operands.lifetime()).holds(second.operands.lifetime());
      if (first.descriptor().n() > 0) {
        runForward(stream, src, ofFirst, ofSecond, dst, signs);
      }
    }
  }

  /**
   * All gradients.
   *
   * @param ofSecond packed weights; its bias is not read
   * @param diffDst gradient before the second convolution's activation
   * @param write ACCUMULATE adds to diff_src before the multiplication by psi'
   * @param writeWeights whether the gradients of weights and biases replace what is there or are
   *     added to it
   * @throws OperandException if a tensor does not fit
   */
  public final void backward(
      Stream stream,
      Tensor src,
      Tensor diffDst,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights) {
    backward(
        stream,
        new Sources(src, null, diffDst),
        ofFirst,
        ofSecond,
        diffSrc,
        write,
        diffFirst,
        diffSecond,
        writeWeights);
  }

  /**
   * As {@link #backward}, with psi' by the signs of src.
   *
   * @param signs U8 {@link Conv2d#signs signs(src)}
   * @throws OperandException if a tensor does not fit
   * @throws UnsupportedException where {@link Conv2d#keepsSigns} of the first is false
   */
  public final void backwardBySigns(
      Stream stream,
      Tensor src,
      Tensor signs,
      Tensor diffDst,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights) {
    requireSigns(first);
    operands.require(
        "signs", signs, Conv2d.signs(first.descriptor().src()), DataType.U8, Layout.ROW_MAJOR);
    backward(
        stream,
        new Sources(src, signs, diffDst),
        ofFirst,
        ofSecond,
        diffSrc,
        write,
        diffFirst,
        diffSecond,
        writeWeights);
  }

  /**
   * What a backward pass reads of both ends.
   *
   * @param src of the first convolution
   * @param signs of src, where psi' is taken from them
   * @param diffDst of the second
   */
  protected record Sources(Tensor src, @Nullable Tensor signs, Tensor diffDst) {}

  private void backward(
      Stream stream,
      Sources sources,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights) {
    Conv2dDescriptor d1 = first.descriptor();
    Conv2dDescriptor d2 = second.descriptor();
    operands.require("src", sources.src(), d1.src(), first.type(), Layout.NHWC);
    operands.require("diff_dst", sources.diffDst(), d2.dst(), second.type(), Layout.NHWC);
    requireBias("bias1", ofFirst.bias(), first);
    operands.require("diff_src", diffSrc, d1.src(), first.type(), Layout.NHWC);
    requireWeights("diff_weights1", diffFirst.weights(), first);
    requireBias("diff_bias1", diffFirst.bias(), first);
    requireWeights("diff_weights2", diffSecond.weights(), second);
    requireBias("diff_bias2", diffSecond.bias(), second);
    List<Named> read =
        new ArrayList<>(
            List.of(
                new Named("src", sources.src()),
                new Named("diff_dst", sources.diffDst()),
                new Named("bias1", ofFirst.bias())));
    if (sources.signs() != null) {
      read.add(new Named("signs", sources.signs()));
    }
    List<Named> written =
        List.of(
            new Named("diff_src", diffSrc),
            new Named("diff_weights1", diffFirst.weights()),
            new Named("diff_bias1", diffFirst.bias()),
            new Named("diff_weights2", diffSecond.weights()),
            new Named("diff_bias2", diffSecond.bias()));
    try (BackendStream.Use use = use(stream, read, written)) {
      use.holds(first.operands.lifetime()).holds(second.operands.lifetime());
      runBackward(
          stream, sources, ofFirst, ofSecond, diffSrc, write, diffFirst, diffSecond, writeWeights);
    }
  }

  /** An operand, for messages. */
  private record Named(String name, Tensor tensor) {}

  private BackendStream.Use use(Stream stream, List<Named> read, List<Named> written) {
    for (int i = 0; i < written.size(); i++) {
      for (Named other : read) {
        requireDistinct(other, written.get(i));
      }
      for (Named other : written.subList(0, i)) {
        requireDistinct(other, written.get(i));
      }
    }
    BackendStream.Use use = operands.use(stream);
    try {
      read.forEach(each -> use.reads(each.tensor()));
      written.forEach(each -> use.writes(each.name(), each.tensor()));
      return use;
    } catch (RuntimeException refused) {
      use.close();
      throw refused;
    }
  }

  private void requireDistinct(Named one, Named other) {
    operands.requireDistinct(one.name(), one.tensor(), other.name(), other.tensor());
  }

  private void requireBias(String name, Tensor bias, Conv2d of) {
    operands.require(name, bias, of.descriptor().bias(), DataType.F32, Layout.ROW_MAJOR);
  }

  private void requireWeights(String name, Tensor weights, Conv2d of) {
    operands.require(name, weights, of.descriptor().weights(), DataType.F32, Layout.KRSC);
  }

  private void requireSigns(Conv2d of) {
    if (!of.keepsSigns()) {
      throw new UnsupportedException(
          "conv2d " + of.descriptor() + " keeps no signs here: keepsSigns()");
    }
  }

  /**
   * Implements {@link #forward} and {@link #forwardWithSigns}; operands are checked and the batch
   * is not empty.
   *
   * @param signs where those of dst go, or null
   */
  protected abstract void runForward(
      Stream stream,
      Tensor src,
      Weights ofFirst,
      Weights ofSecond,
      Tensor dst,
      @Nullable Tensor signs);

  /**
   * Implements {@link #backward} and {@link #backwardBySigns}; operands are checked, the batch may
   * be empty.
   */
  protected abstract void runBackward(
      Stream stream,
      Sources sources,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights);
}
