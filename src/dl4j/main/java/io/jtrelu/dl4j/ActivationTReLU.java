package io.jtrelu.dl4j;

import io.jtrelu.shaping.TailoredRectifier;
import org.nd4j.common.primitives.Pair;
import org.nd4j.linalg.activations.BaseActivationFunction;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.api.ops.impl.scalar.LeakyReLU;
import org.nd4j.linalg.api.ops.impl.scalar.Step;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.shade.jackson.annotation.JsonCreator;
import org.nd4j.shade.jackson.annotation.JsonProperty;

/**
 * A leaky rectifier with a scale,
 *
 * <pre>
 *   phi(x) = scale * (max(x, 0) + slope * min(x, 0))
 * </pre>
 *
 * <p>whose derivative at 0 is scale * slope, as in JTReLU's kernels and in PyTorch;
 * Deeplearning4j's own leaky ReLU takes 1 there, which matters where inputs are exactly zero.
 *
 * <p>Computed in place by two operations of ND4J forward and four backward. Immutable and safe for
 * use by several threads.
 */
public final class ActivationTReLU extends BaseActivationFunction {
  private static final long serialVersionUID = 1;

  private final double slope;
  private final double scale;

  /**
   * The tailored rectifier: scale = sqrt(2 / (1 + slope^2)).
   *
   * @throws IllegalArgumentException if the slope is not in [0, 1]
   */
  public ActivationTReLU(double slope) {
    this(slope, new TailoredRectifier(slope).outputScale());
  }

  /**
   * Any leaky rectifier with a scale.
   *
   * @throws IllegalArgumentException if a number is not finite
   */
  @JsonCreator
  public ActivationTReLU(
      @JsonProperty(value = "slope", required = true) double slope,
      @JsonProperty(value = "scale", required = true) double scale) {
    if (!Double.isFinite(slope) || !Double.isFinite(scale)) {
      throw new IllegalArgumentException(
          "slope and scale of a rectifier must be finite, but are " + slope + " and " + scale);
    }
    this.slope = slope;
    this.scale = scale;
  }

  /** Slope below zero. */
  public double slope() {
    return slope;
  }

  /** Factor of the whole. */
  public double scale() {
    return scale;
  }

  /** Replaces the pre-activations by phi of them, and returns them. */
  @Override
  public INDArray getActivation(INDArray in, boolean training) {
    Nd4j.exec(new LeakyReLU(in, slope));
    return in.muli(scale);
  }

  /** Replaces the pre-activations by epsilon * phi' of them, and returns them. */
  @Override
  public Pair<INDArray, INDArray> backprop(INDArray in, INDArray epsilon) {
    assertShape(in, epsilon);
    Nd4j.exec(new Step(in, 0.0)); // 1 above zero, else 0
    in.muli(scale * (1 - slope)).addi(scale * slope).muli(epsilon);
    return new Pair<>(in, null);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof ActivationTReLU rectifier
        && rectifier.slope == slope
        && rectifier.scale == scale;
  }

  @Override
  public int hashCode() {
    return 31 * Double.hashCode(slope) + Double.hashCode(scale);
  }

  @Override
  public String toString() {
    return "trelu(slope=" + slope + ", scale=" + scale + ")";
  }
}
