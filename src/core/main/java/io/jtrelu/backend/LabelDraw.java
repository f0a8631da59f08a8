package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Labels drawn from a classifier's prediction, as the Fisher matrix asks for.
 *
 * <pre>
 * labels[i] = c  with probability  softmax(logits[i])_c
 *           = the first c with  sum over k &lt;= c of exp(logits[i, k])  &gt;=  u_i sum over all k of exp(logits[i, k])
 * u_i       = uniform number of word 0 of block first + i, {@link io.jtrelu.random.Philox} stream (seed, sequence)
 * </pre>
 *
 * A row whose given label is -1 is padding and gets -1. Where logits are not finite any class may
 * come out.
 */
public abstract class LabelDraw extends PreparedOperation {
  private final int n;
  private final int classes;
  private final DataType type;

  /** For backends. */
  protected LabelDraw(Device device, int n, int classes, DataType type) {
    super("draw of labels", device);
    if (n < 0 || classes < 1) {
      throw new IllegalArgumentException(
          "a draw of labels needs a batch of 0 or more and a class, got " + n + " and " + classes);
    }
    this.n = n;
    this.classes = classes;
    this.type = type;
  }

  /** Batch size. */
  public final int n() {
    return n;
  }

  /** Number of classes. */
  public final int classes() {
    return classes;
  }

  /** Storage type of the logits. */
  public final DataType type() {
    return type;
  }

  /**
   * Draws.
   *
   * @param logits NHWC [n, 1, 1, classes]
   * @param given I32 [n]: -1 marks padding
   * @param sequence I32 [2], low word first
   * @param first sample that the first row is, of the batch that it is a part of
   * @param labels I32 [n]; may be given itself
   * @throws OperandException if an operand does not fit
   */
  public final void run(
      Stream stream,
      Tensor logits,
      Tensor given,
      long seed,
      Tensor sequence,
      int first,
      Tensor labels) {
    Shape shape = Shape.of(n, 1, 1, classes);
    operands.require("logits", logits, shape, type, Layout.NHWC);
    operands.require("given", given, Shape.of(n), DataType.I32, Layout.ROW_MAJOR);
    operands.require("labels", labels, Shape.of(n), DataType.I32, Layout.ROW_MAJOR);
    operands.requireElements("sequence", sequence, 2, DataType.I32);
    operands.requireSameOrDistinct("given", given, "labels", labels);
    operands.requireDistinct("logits", logits, "labels", labels);
    operands.requireDistinct("sequence", sequence, "labels", labels);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(logits).reads(given).reads(sequence).writes("labels", labels);
      compute(stream, logits, given, seed, sequence, first, labels);
    }
  }

  /** Implements {@link #run}. */
  protected abstract void compute(
      Stream stream,
      Tensor logits,
      Tensor given,
      long seed,
      Tensor sequence,
      int first,
      Tensor labels);
}
