package io.jtrelu.dl4j;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import java.util.Locale;
import org.nd4j.common.primitives.Pair;
import org.nd4j.linalg.activations.BaseActivationFunction;
import org.nd4j.linalg.activations.IActivation;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.shade.jackson.annotation.JsonCreator;
import org.nd4j.shade.jackson.annotation.JsonProperty;

/**
 * An activation function between affine maps, as the solvers give them,
 *
 * <pre>
 *   phi_hat(x) = outputScale * (phi(inputScale * x + inputShift) + outputShift)
 * </pre>
 *
 * <p>with phi any {@link Activation}, computed by operations of ND4J. The derivative at a kink is
 * the one from the left, as in {@link ActivationTReLU}, which is faster for a leaky ReLU with a
 * scale and nothing else.
 *
 * <p>Immutable and safe for use by several threads.
 */
public final class ActivationShaped extends BaseActivationFunction {
  private static final long serialVersionUID = 1;

  private final String function;
  private final double inputScale;
  private final double inputShift;
  private final double outputScale;
  private final double outputShift;
  private final double negativeSlope;

  @JsonCreator
  @SuppressWarnings("UnusedMethod") // Jackson calls it
  private ActivationShaped(
      @JsonProperty(value = "function", required = true) String function,
      @JsonProperty(value = "inputScale", required = true) double inputScale,
      @JsonProperty(value = "inputShift", required = true) double inputShift,
      @JsonProperty(value = "outputScale", required = true) double outputScale,
      @JsonProperty(value = "outputShift", required = true) double outputShift,
      @JsonProperty(value = "negativeSlope", required = true) double negativeSlope) {
    this(
        new TransformedActivation(
            Activation.named(function),
            inputScale,
            inputShift,
            outputScale,
            outputShift,
            negativeSlope));
  }

  /**
   * The function with its parameters.
   *
   * @throws IllegalArgumentException if it is not one of the library's, or a parameter is not
   *     finite
   */
  public ActivationShaped(TransformedActivation activation) {
    if (!(activation.function() instanceof Activation)) {
      throw new IllegalArgumentException(
          "'"
              + activation.function().activationName()
              + "' is a function of your own, which ND4J cannot compute; known are "
              + String.join(", ", Activation.names()));
    }
    this.function = activation.function().activationName();
    this.inputScale = finite("inputScale", activation.inputScale());
    this.inputShift = finite("inputShift", activation.inputShift());
    this.outputScale = finite("outputScale", activation.outputScale());
    this.outputShift = finite("outputShift", activation.outputShift());
    this.negativeSlope = finite("negativeSlope", activation.negativeSlope());
  }

  private static double finite(String what, double value) {
    if (!Double.isFinite(value)) {
      throw new IllegalArgumentException(
          what + " of an activation must be finite, but is " + value);
    }
    return value;
  }

  /**
   * A shaped activation for Deeplearning4j: an {@link ActivationTReLU} where it is a leaky ReLU or
   * ReLU with a scale, otherwise an {@link ActivationShaped}.
   *
   * @throws IllegalArgumentException as the constructor does
   */
  public static IActivation of(TransformedActivation activation) {
    return activation.isScaledRectifier()
        ? new ActivationTReLU(activation.negativeSlope(), activation.outputScale())
        : new ActivationShaped(activation);
  }

  /** The function with its parameters. */
  public TransformedActivation activation() {
    return new TransformedActivation(
        Activation.named(function),
        inputScale,
        inputShift,
        outputScale,
        outputShift,
        negativeSlope);
  }

  /** Replaces the pre-activations by phi_hat of them, and returns them. */
  @Override
  public INDArray getActivation(INDArray in, boolean training) {
    in.muli(inputScale).addi(inputShift);
    in.assign(Functions.value(Activation.named(function), negativeSlope, in));
    return in.addi(outputShift).muli(outputScale);
  }

  /** Replaces the pre-activations by epsilon * phi_hat' of them, and returns them. */
  @Override
  public Pair<INDArray, INDArray> backprop(INDArray in, INDArray epsilon) {
    assertShape(in, epsilon);
    in.muli(inputScale).addi(inputShift);
    in.assign(Functions.derivative(Activation.named(function), negativeSlope, in));
    in.muli(inputScale * outputScale).muli(epsilon);
    return new Pair<>(in, null);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof ActivationShaped shaped && shaped.activation().equals(activation());
  }

  @Override
  public int hashCode() {
    return activation().hashCode();
  }

  @Override
  public String toString() {
    return String.format(
        Locale.ROOT,
        "%s(inputScale=%s, inputShift=%s, outputScale=%s, outputShift=%s, negativeSlope=%s)",
        function,
        inputScale,
        inputShift,
        outputScale,
        outputShift,
        negativeSlope);
  }
}
