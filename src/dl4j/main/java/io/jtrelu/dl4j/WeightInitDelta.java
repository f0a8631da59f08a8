package io.jtrelu.dl4j;

import io.jtrelu.random.DeltaKernel;
import io.jtrelu.random.OrthogonalMatrix;
import java.util.Arrays;
import org.deeplearning4j.nn.weights.IWeightInit;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.shade.jackson.annotation.JsonCreator;
import org.nd4j.shade.jackson.annotation.JsonProperty;

/**
 * Haar-orthogonal weights that keep the mean square of signals: the {@linkplain
 * OrthogonalMatrix#linear scaled-corrected matrix} for a dense layer, a {@linkplain DeltaKernel
 * Delta kernel} for a convolution, zero but at its centre.
 *
 * <p>For layers whose weights are [nIn, nOut] (dense and output layers) or [oc, ic, kh, kw]
 * (ConvolutionLayer, whether its images are NCHW or NHWC); sides of kernels must be odd. What the
 * shape tells to be another kind is refused; a transposed convolution with as many channels in as
 * out cannot be told apart, so do not use it there.
 *
 * <p>The key of each matrix is drawn from ND4J's generator, as the numbers of Deeplearning4j's own
 * initialisers are: matrices of one shape differ, and a network's {@code seed} gives the same
 * again.
 *
 * <p>Deeplearning4j 1.0.0-M2.1's own {@code OrthogonalDistribution} is not orthogonal from 32 rows
 * on, and takes a convolution's kernel width for the columns of its matrix.
 *
 * <p>Immutable and safe for use by several threads.
 */
public final class WeightInitDelta implements IWeightInit {
  private static final long serialVersionUID = 1;

  private final double gain;

  /** With gain 1, for tailored activations. */
  public WeightInitDelta() {
    this(1);
  }

  /**
   * With a further factor, such as sigma_w at the edge of chaos.
   *
   * @throws IllegalArgumentException if it is not positive and finite
   */
  @JsonCreator
  public WeightInitDelta(@JsonProperty(value = "gain", required = true) double gain) {
    if (!(gain > 0 && gain < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "the gain of orthogonal weights must be positive and finite, but is " + gain);
    }
    this.gain = gain;
  }

  /** Factor besides the scale correction. */
  public double gain() {
    return gain;
  }

  /**
   * Fills a layer's weights.
   *
   * @param fanIn as the layer counts it; tells which axis is which
   * @param shape [nIn, nOut] or [oc, ic, kh, kw]
   * @param order in which the view is shaped
   * @param paramView receives the values
   * @return the view in that shape
   * @throws IllegalArgumentException for weights of another kind, or a kernel with an even side
   */
  @Override
  public INDArray init(double fanIn, double fanOut, long[] shape, char order, INDArray paramView) {
    float[] values;
    char valueOrder = 'c';
    long key = Nd4j.getRandom().nextLong();
    if (shape.length == 2) {
      int in = Math.toIntExact(shape[0]);
      int out = Math.toIntExact(shape[1]);
      values = OrthogonalMatrix.linear(out, in, gain, key, 0);
      valueOrder = 'f'; // [out, in] row by row is [in, out] column by column
    } else if (shape.length == 4 && fanIn == (double) shape[1] * shape[2] * shape[3]) {
      int[] s = Arrays.stream(shape).mapToInt(Math::toIntExact).toArray();
      values = DeltaKernel.of(s[0], s[1], s[2], s[3]).oihw(gain, key, 0);
    } else {
      throw new IllegalArgumentException(
          "orthogonal weights are for dense layers, [nIn, nOut], and for convolutions, [oc, ic, kh,"
              + " kw] with a fan-in of ic*kh*kw; this layer has weights "
              + Arrays.toString(shape)
              + " and a fan-in of "
              + fanIn
              + ": give it another weightInit");
    }
    INDArray made = Nd4j.createFromArray(values).reshape(valueOrder, shape);
    INDArray view = paramView.reshape(order, shape);
    view.assign(made);
    return view;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof WeightInitDelta delta && delta.gain == gain;
  }

  @Override
  public int hashCode() {
    return Double.hashCode(gain);
  }

  @Override
  public String toString() {
    return "WeightInitDelta(gain=" + gain + ")";
  }
}
