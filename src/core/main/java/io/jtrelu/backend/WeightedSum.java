package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * The weighted sum of two tensors, then a rectifier.
 *
 * <pre>
 * forward   dst    = phi(weightA * a + weightB * b)            dst may be a or b
 * backward  diff_a = ( [diff_a +] weightA * diff_dst ) * psi'(a)      and likewise for b
 * </pre>
 *
 * diff_dst is the gradient before phi; psi is the activation that produced that source. A source's
 * gradient is asked for one at a time, so that a caller can accumulate into shared tensors.
 */
public abstract class WeightedSum extends PreparedOperation {
  private final long elements;
  private final DataType type;
  private final float weightA;
  private final float weightB;
  private final Rectifier activation;

  /** For backends. */
  protected WeightedSum(
      Device device,
      long elements,
      DataType type,
      float weightA,
      float weightB,
      Rectifier activation) {
    super("weighted sum", device);
    this.elements = Operands.requireCount("weighted sum", elements);
    this.type = type;
    this.weightA = weightA;
    this.weightB = weightB;
    this.activation = activation;
  }

  /** Number of elements. */
  public final long elements() {
    return elements;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** Weight of the first source. */
  public final float weightA() {
    return weightA;
  }

  /** Weight of the second source. */
  public final float weightB() {
    return weightB;
  }

  /** The rectifier applied to the sum. */
  public final Rectifier activation() {
    return activation;
  }

  /** dst = phi(weightA * a + weightB * b). */
  public final void forward(Stream stream, Tensor a, Tensor b, Tensor dst) {
    operands.requireElements("a", a, elements, type);
    operands.requireElements("b", b, elements, type);
    operands.requireElements("dst", dst, elements, type);
    operands.requireSameOrDistinct("a", a, "dst", dst);
    operands.requireSameOrDistinct("b", b, "dst", dst);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(a).reads(b).writes("dst", dst);
      runForward(stream, a, b, dst);
    }
  }

  /**
   * The gradient of the first source.
   *
   * @param srcActivation the activation that produced a
   * @param a the source, read only where srcActivation is not the identity
   */
  public final void backwardA(
      Stream stream, Tensor diffDst, Rectifier srcActivation, Tensor a, Tensor diffA, Write write) {
    backward(stream, weightA, diffDst, srcActivation, a, diffA, write);
  }

  /** The gradient of the second source; as {@link #backwardA}. */
  public final void backwardB(
      Stream stream, Tensor diffDst, Rectifier srcActivation, Tensor b, Tensor diffB, Write write) {
    backward(stream, weightB, diffDst, srcActivation, b, diffB, write);
  }

  private void backward(
      Stream stream,
      float weight,
      Tensor diffDst,
      Rectifier srcActivation,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    operands.requireElements("diff_dst", diffDst, elements, type);
    operands.requireElements("src", src, elements, type);
    operands.requireElements("diff_src", diffSrc, elements, type);
    operands.requireSameOrDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    if (!srcActivation.isIdentity()) {
      operands.requireSameOrDistinct("src", src, "diff_src", diffSrc);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(src).writes("diff_src", diffSrc);
      runBackward(stream, weight, diffDst, srcActivation, src, diffSrc, write);
    }
  }

  /** Implements {@link #forward}. */
  protected abstract void runForward(Stream stream, Tensor a, Tensor b, Tensor dst);

  /** Implements {@link #backwardA} and {@link #backwardB}; diff_src may be diff_dst. */
  protected abstract void runBackward(
      Stream stream,
      float weight,
      Tensor diffDst,
      Rectifier srcActivation,
      Tensor src,
      Tensor diffSrc,
      Write write);
}
