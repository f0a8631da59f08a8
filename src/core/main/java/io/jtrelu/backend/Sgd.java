package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * Stochastic gradient descent with momentum over a flat range of parameters, in place.
 *
 * <pre>
 * g = gradientScale * gradient + weightDecay * parameter
 * v = momentum * v + g
 * parameter -= learningRate * (nesterov ? g + momentum * v : v)
 * </pre>
 *
 * (Sutskever et al. 2013 in the form used by the deep-learning frameworks.) All tensors are F32.
 * Without momentum, v is g, and the velocity is left alone.
 */
public abstract class Sgd extends PreparedOperation {
  private final long elements;
  private final float momentum;
  private final boolean nesterov;
  private final float weightDecay;

  /**
   * For backends.
   *
   * @throws IllegalArgumentException if elements is negative, momentum outside [0, 1), or weight
   *     decay negative or not finite
   */
  protected Sgd(Device device, long elements, float momentum, boolean nesterov, float weightDecay) {
    super("sgd", device);
    this.elements = Operands.requireCount("sgd", elements);
    this.momentum = Operands.requireBelowOne("sgd", "momentum", momentum);
    this.nesterov = nesterov;
    this.weightDecay = Operands.requireNotNegative("sgd", "weight decay", weightDecay);
  }

  /** Number of parameters. */
  public final long elements() {
    return elements;
  }

  /** Momentum factor. */
  public final float momentum() {
    return momentum;
  }

  /** Whether the look-ahead form is used. */
  public final boolean nesterov() {
    return nesterov;
  }

  /** Weight of the parameters in their own gradient. */
  public final float weightDecay() {
    return weightDecay;
  }

  /**
   * One step.
   *
   * @param velocity momentum buffer, zero before the first step; neither read nor written where the
   *     momentum is 0
   * @param learningRate one element, on the device
   * @param gradientScale one element, on the device: the second of {@link GradientNorm}'s result.
   *     Where it is NaN, nothing changes
   * @throws OperandException if a tensor does not fit, or two overlap
   */
  public final void step(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor velocity,
      Tensor learningRate,
      Tensor gradientScale) {
    operands.requireElements("parameters", parameters, elements, DataType.F32);
    operands.requireElements("gradient", gradient, elements, DataType.F32);
    operands.requireElements("velocity", velocity, elements, DataType.F32);
    operands.requireElements("learning rate", learningRate, 1, DataType.F32);
    operands.requireElements("gradient scale", gradientScale, 1, DataType.F32);
    operands.requireDistinct("parameters", parameters, "gradient", gradient);
    operands.requireDistinct("parameters", parameters, "velocity", velocity);
    operands.requireDistinct("velocity", velocity, "gradient", gradient);
    operands.requireDistinct("parameters", parameters, "learning rate", learningRate);
    operands.requireDistinct("parameters", parameters, "gradient scale", gradientScale);
    operands.requireDistinct("velocity", velocity, "learning rate", learningRate);
    operands.requireDistinct("velocity", velocity, "gradient scale", gradientScale);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(gradient)
          .reads(learningRate)
          .reads(gradientScale)
          .writes("parameters", parameters)
          .writes("velocity", velocity);
      compute(stream, parameters, gradient, velocity, learningRate, gradientScale);
    }
  }

  /** Implements {@link #step}. */
  protected abstract void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor velocity,
      Tensor learningRate,
      Tensor gradientScale);
}
