package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * The Euclidean norm of a gradient and the factor that clips it.
 *
 * <pre>
 * result[0] = norm = sqrt(sum g_i^2)
 * result[1] = min(1, maxNorm / norm)       1 for a zero gradient; NaN where the norm is not finite
 * </pre>
 *
 * The result stays on the device, where the optimiser reads it; a factor of NaN makes it change
 * nothing. Such a factor stays: where result[1] is NaN before, it is NaN after, whatever the
 * gradient. So the steps that were queued behind a bad one change nothing either, and the host need
 * not wait for one step before it queues the next. Zero the result to go on.
 */
public abstract class GradientNorm extends PreparedOperation {
  private final long elements;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if elements is negative
   */
  protected GradientNorm(Device device, long elements) {
    super("gradient norm", device);
    this.elements = Operands.requireCount("gradient norm", elements);
  }

  /** Number of gradient elements. */
  public final long elements() {
    return elements;
  }

  /**
   * Norm and clipping factor.
   *
   * @param gradient F32
   * @param maxNorm largest norm left alone; infinity clips nothing
   * @param result F32, two elements; the second must not be NaN before the first call
   * @throws OperandException if a tensor does not fit, or the two overlap
   * @throws IllegalArgumentException if maxNorm is NaN, 0 or negative
   */
  public final void run(Stream stream, Tensor gradient, float maxNorm, Tensor result) {
    operands.requireElements("gradient", gradient, elements, DataType.F32);
    operands.requireElements("result", result, 2, DataType.F32);
    if (!(maxNorm > 0)) {
      throw new IllegalArgumentException(
          "gradient norm: the clipping norm must be positive, infinity for none; got " + maxNorm);
    }
    operands.requireDistinct("gradient", gradient, "result", result);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(gradient).writes("result", result);
      compute(stream, gradient, maxNorm, result);
    }
  }

  /** Implements {@link #run}; sums in binary64 or pairwise, in a fixed order. */
  protected abstract void compute(Stream stream, Tensor gradient, float maxNorm, Tensor result);
}
