package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Softmax cross-entropy with label smoothing: loss, gradient and hits in one pass.
 *
 * <pre>
 * p = softmax(logits[i]);  t = (1 - smoothing) * onehot(label[i]) + smoothing / classes
 * losses[i]      = -sum_k t_k * log p_k
 * diff_logits[i] = gradientScale * (p - t)
 * correct[i]     = 1 if label[i] is the first largest logit, else 0
 * </pre>
 *
 * A label of -1 marks a row of padding: its loss, gradient and hit are 0. A label outside [0,
 * classes) must not occur otherwise; such a row's loss is NaN. Where a row's loss is not finite,
 * its gradient is NaN: so the norm of the gradient tells of every loss that is not finite.
 */
public abstract class SoftmaxCrossEntropy extends PreparedOperation {
  private final int n;
  private final int classes;
  private final DataType type;
  private final float smoothing;

  /** For backends. */
  protected SoftmaxCrossEntropy(Device device, int n, int classes, DataType type, float smoothing) {
    super("softmax cross-entropy", device);
    if (n < 0 || classes < 1 || !(smoothing >= 0 && smoothing < 1)) {
      throw new IllegalArgumentException(
          "softmax cross-entropy needs a batch of 0 or more, a class and smoothing in [0, 1), got "
              + n
              + ", "
              + classes
              + ", "
              + smoothing);
    }
    this.n = n;
    this.classes = classes;
    this.type = type;
    this.smoothing = smoothing;
  }

  /** Batch size. */
  public final int n() {
    return n;
  }

  /** Number of classes. */
  public final int classes() {
    return classes;
  }

  /** Storage type of logits and their gradient. */
  public final DataType type() {
    return type;
  }

  /** Share of the target spread evenly over all classes. */
  public final float smoothing() {
    return smoothing;
  }

  /**
   * Loss, gradient and hits.
   *
   * @param logits NHWC [n, 1, 1, classes]
   * @param labels I32 [n]
   * @param gradientScale factor of the gradient, usually 1 / (size of the whole batch)
   * @param diffLogits as logits; may be logits itself
   * @param losses F32 [n]
   * @param correct I32 [n]
   */
  public final void run(
      Stream stream,
      Tensor logits,
      Tensor labels,
      float gradientScale,
      Tensor diffLogits,
      Tensor losses,
      Tensor correct) {
    Shape shape = Shape.of(n, 1, 1, classes);
    operands.require("logits", logits, shape, type, Layout.NHWC);
    operands.require("diff_logits", diffLogits, shape, type, Layout.NHWC);
    operands.require("labels", labels, Shape.of(n), DataType.I32, Layout.ROW_MAJOR);
    operands.require("losses", losses, Shape.of(n), DataType.F32, Layout.ROW_MAJOR);
    operands.require("correct", correct, Shape.of(n), DataType.I32, Layout.ROW_MAJOR);
    operands.requireSameOrDistinct("logits", logits, "diff_logits", diffLogits);
    operands.requireDistinct("labels", labels, "diff_logits", diffLogits);
    operands.requireDistinct("losses", losses, "logits", logits);
    operands.requireDistinct("losses", losses, "labels", labels);
    operands.requireDistinct("losses", losses, "diff_logits", diffLogits);
    operands.requireDistinct("correct", correct, "logits", logits);
    operands.requireDistinct("correct", correct, "labels", labels);
    operands.requireDistinct("correct", correct, "diff_logits", diffLogits);
    operands.requireDistinct("correct", correct, "losses", losses);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(logits)
          .reads(labels)
          .writes("diff_logits", diffLogits)
          .writes("losses", losses)
          .writes("correct", correct);
      compute(stream, logits, labels, gradientScale, diffLogits, losses, correct);
    }
  }

  /** Implements {@link #run}. */
  protected abstract void compute(
      Stream stream,
      Tensor logits,
      Tensor labels,
      float gradientScale,
      Tensor diffLogits,
      Tensor losses,
      Tensor correct);
}
