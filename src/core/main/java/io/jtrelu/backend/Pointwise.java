package io.jtrelu.backend;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * A transformed activation, phi_hat(x) = outputScale * (phi(inputScale * x + inputShift) +
 * outputShift), as an operation of its own: for networks shaped by DKS or smooth TAT. A scaled
 * rectifier is better fused: see {@link Conv2d}.
 *
 * <pre>
 * forward   dst      = phi_hat(src)                             dst may be src where savesOutput
 * backward  diff_src = [diff_src +] diff_dst * phi_hat'(src)    diff_src may be diff_dst
 * </pre>
 *
 * <p>Where phi' follows from phi's value ({@link TransformedActivation#derivativeFromValue}), the
 * backward pass reads the output and the input need not be kept: then {@link #savesOutput} is true
 * and {@code saved} is dst; otherwise it is src.
 *
 * <p>Accuracy in F32: within 8 * 2^-24 * (|phi_hat(x)| + |outputScale| * (1 + |outputShift|)), the
 * derivative likewise with |outputScale * inputScale|.
 */
public abstract class Pointwise extends PreparedOperation {
  private final long elements;
  private final DataType type;
  private final TransformedActivation function;

  /** For backends. */
  protected Pointwise(Device device, long elements, DataType type, TransformedActivation function) {
    super(function.function().activationName(), device);
    this.elements = Operands.requireCount("pointwise", elements);
    this.type = type;
    this.function = function;
  }

  /** Number of elements. */
  public final long elements() {
    return elements;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** phi_hat. */
  public final TransformedActivation function() {
    return function;
  }

  /** Whether the backward pass reads the output; otherwise it reads the input. */
  public final boolean savesOutput() {
    return function.derivativeFollowsFromValue();
  }

  /** dst = phi_hat(src). */
  public final void forward(Stream stream, Tensor src, Tensor dst) {
    operands.requireElements("src", src, elements, type);
    operands.requireElements("dst", dst, elements, type);
    operands.requireSameOrDistinct("src", src, "dst", dst);
    try (BackendStream.Use use = operands.use(stream)) {
      use.alone().reads(src).writes("dst", dst);
      runForward(stream, src, dst);
    }
  }

  /**
   * diff_src = [diff_src +] diff_dst * phi_hat'.
   *
   * @param saved dst where {@link #savesOutput}, else src
   */
  public final void backward(
      Stream stream, Tensor saved, Tensor diffDst, Tensor diffSrc, Write write) {
    operands.requireElements("saved", saved, elements, type);
    operands.requireElements("diff_dst", diffDst, elements, type);
    operands.requireElements("diff_src", diffSrc, elements, type);
    operands.requireSameOrDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    operands.requireSameOrDistinct("saved", saved, "diff_src", diffSrc);
    try (BackendStream.Use use = operands.use(stream)) {
      use.alone().reads(saved).reads(diffDst).writes("diff_src", diffSrc);
      runBackward(stream, saved, diffDst, diffSrc, write);
    }
  }

  /** Implements {@link #forward}. */
  protected abstract void runForward(Stream stream, Tensor src, Tensor dst);

  /** Implements {@link #backward}. */
  protected abstract void runBackward(
      Stream stream, Tensor saved, Tensor diffDst, Tensor diffSrc, Write write);
}
