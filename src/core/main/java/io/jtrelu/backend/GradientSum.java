package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/**
 * The sum of the parts of a gradient, in place.
 *
 * <pre>
 * gradient = gradient + parts[0] + parts[1] + ...       rounded to F32 after each, in this order
 * </pre>
 */
public abstract class GradientSum extends PreparedOperation {
  private final long elements;

  /** For backends. */
  protected GradientSum(Device device, long elements) {
    super("gradient sum", device);
    this.elements = Operands.requireCount("gradient sum", elements);
  }

  /** Number of gradient elements. */
  public final long elements() {
    return elements;
  }

  /**
   * Adds the parts to the gradient.
   *
   * @param gradient F32
   * @param parts F32, any number, none of them the gradient
   */
  public final void run(Stream stream, Tensor gradient, List<Tensor> parts) {
    operands.requireElements("gradient", gradient, elements, DataType.F32);
    for (int i = 0; i < parts.size(); i++) {
      operands.requireElements("part", parts.get(i), elements, DataType.F32);
      operands.requireDistinct("part", parts.get(i), "gradient", gradient);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.writes("gradient", gradient);
      for (int i = 0; i < parts.size(); i++) {
        use.reads(parts.get(i));
      }
      compute(stream, gradient, parts);
    }
  }

  /** Implements {@link #run}. */
  protected abstract void compute(Stream stream, Tensor gradient, List<Tensor> parts);
}
