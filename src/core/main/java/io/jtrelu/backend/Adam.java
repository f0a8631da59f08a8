package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * Adam with decoupled weight decay over a flat range of parameters, in place (Kingma and Ba, ICLR
 * 2015; Loshchilov and Hutter, ICLR 2019).
 *
 * <pre>
 * g = gradientScale * gradient
 * m = beta1 * m + (1 - beta1) * g;   v = beta2 * v + (1 - beta2) * g^2
 * parameter -= learningRate * ( (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 *                               + weightDecay * parameter )
 * </pre>
 *
 * All tensors are F32; t counts steps from 1 and is kept on the device.
 */
public abstract class Adam extends PreparedOperation {
  private final long elements;
  private final float beta1;
  private final float beta2;
  private final float epsilon;
  private final float weightDecay;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if elements is negative, beta1 or beta2 outside [0, 1), or
   *     epsilon or weight decay negative or not finite
   */
  protected Adam(
      Device device, long elements, float beta1, float beta2, float epsilon, float weightDecay) {
    super("adam", device);
    this.elements = Operands.requireCount("adam", elements);
    this.beta1 = Operands.requireBelowOne("adam", "beta1", beta1);
    this.beta2 = Operands.requireBelowOne("adam", "beta2", beta2);
    this.epsilon = Operands.requireNotNegative("adam", "epsilon", epsilon);
    this.weightDecay = Operands.requireNotNegative("adam", "weight decay", weightDecay);
  }

  /** Number of parameters. */
  public final long elements() {
    return elements;
  }

  /** Decay of the first moment. */
  public final float beta1() {
    return beta1;
  }

  /** Decay of the second moment. */
  public final float beta2() {
    return beta2;
  }

  /** Added to the denominator. */
  public final float epsilon() {
    return epsilon;
  }

  /** Decoupled weight decay. */
  public final float weightDecay() {
    return weightDecay;
  }

  /**
   * One step.
   *
   * @param moment1 first moment, zero before the first step
   * @param moment2 second moment, zero before the first step
   * @param scalars F32, two elements on the device: learning rate, and the step number t (from 1)
   * @param gradientScale one element, on the device: the second of {@link GradientNorm}'s result.
   *     Where it is NaN, nothing changes
   * @throws OperandException if a tensor does not fit, or two overlap
   */
  public final void step(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor moment1,
      Tensor moment2,
      Tensor scalars,
      Tensor gradientScale) {
    operands.requireElements("parameters", parameters, elements, DataType.F32);
    operands.requireElements("gradient", gradient, elements, DataType.F32);
    operands.requireElements("first moment", moment1, elements, DataType.F32);
    operands.requireElements("second moment", moment2, elements, DataType.F32);
    operands.requireElements("scalars", scalars, 2, DataType.F32);
    operands.requireElements("gradient scale", gradientScale, 1, DataType.F32);
    operands.requireDistinct("parameters", parameters, "gradient", gradient);
    operands.requireDistinct("parameters", parameters, "first moment", moment1);
    operands.requireDistinct("parameters", parameters, "second moment", moment2);
    operands.requireDistinct("first moment", moment1, "gradient", gradient);
    operands.requireDistinct("second moment", moment2, "gradient", gradient);
    operands.requireDistinct("first moment", moment1, "second moment", moment2);
    for (int i = 0; i < 3; i++) {
      Tensor written = i == 0 ? parameters : i == 1 ? moment1 : moment2;
      String name = i == 0 ? "parameters" : i == 1 ? "first moment" : "second moment";
      operands.requireDistinct(name, written, "scalars", scalars);
      operands.requireDistinct(name, written, "gradient scale", gradientScale);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(gradient)
          .reads(scalars)
          .reads(gradientScale)
          .writes("parameters", parameters)
          .writes("first moment", moment1)
          .writes("second moment", moment2);
      compute(stream, parameters, gradient, moment1, moment2, scalars, gradientScale);
    }
  }

  /** Implements {@link #step}. */
  protected abstract void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor moment1,
      Tensor moment2,
      Tensor scalars,
      Tensor gradientScale);
}
