package io.jtrelu.backend;

import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * Inverted dropout with a counter-based mask, so that nothing is stored between the passes.
 *
 * <pre>
 * keep_i    = uniform_i &gt;= rate,  uniform_i = {@link Philox} stream (seed, sequence), element i
 * forward   dst      = src * keep / (1 - rate)          dst may be src
 * backward  diff_src = [diff_src +] diff_dst * keep / (1 - rate)      diff_src may be diff_dst
 * </pre>
 *
 * The sequence number lies on the device, as I32 [2], low word first: a recorded pass takes another
 * mask each time it runs.
 */
public abstract class Dropout extends PreparedOperation {
  private final long elements;
  private final DataType type;
  private final float rate;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if elements is negative or rate outside [0, 1)
   */
  protected Dropout(Device device, long elements, DataType type, float rate) {
    super("dropout", device);
    this.elements = Operands.requireCount("dropout", elements);
    this.type = type;
    this.rate = Operands.requireBelowOne("dropout", "rate", rate);
  }

  /** Number of elements. */
  public final long elements() {
    return elements;
  }

  /** Storage type. */
  public final DataType type() {
    return type;
  }

  /** Probability of dropping an element. */
  public final float rate() {
    return rate;
  }

  /**
   * dst = src * keep / (1 - rate).
   *
   * @param sequence I32 [2], low word first
   */
  public final void forward(Stream stream, Tensor src, Tensor dst, long seed, Tensor sequence) {
    operands.requireElements("src", src, elements, type);
    operands.requireElements("dst", dst, elements, type);
    operands.requireElements("sequence", sequence, 2, DataType.I32);
    operands.requireSameOrDistinct("src", src, "dst", dst);
    operands.requireDistinct("dst", dst, "sequence", sequence);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(sequence).writes("dst", dst);
      run(stream, src, dst, seed, sequence, Write.OVERWRITE);
    }
  }

  /** diff_src = [diff_src +] diff_dst * keep / (1 - rate), with the same seed and sequence. */
  public final void backward(
      Stream stream, Tensor diffDst, Tensor diffSrc, long seed, Tensor sequence, Write write) {
    operands.requireElements("diff_dst", diffDst, elements, type);
    operands.requireElements("diff_src", diffSrc, elements, type);
    operands.requireElements("sequence", sequence, 2, DataType.I32);
    operands.requireSameOrDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    operands.requireDistinct("diff_src", diffSrc, "sequence", sequence);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(sequence).writes("diff_src", diffSrc);
      run(stream, diffDst, diffSrc, seed, sequence, write);
    }
  }

  /** Implements both directions, which are the same map. */
  protected abstract void run(
      Stream stream, Tensor from, Tensor to, long seed, Tensor sequence, Write write);
}
