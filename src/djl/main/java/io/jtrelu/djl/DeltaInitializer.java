package io.jtrelu.djl;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.training.initializer.Initializer;
import io.jtrelu.random.DeltaKernel;
import io.jtrelu.random.OrthogonalMatrix;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Orthogonal weights that keep the mean square of signals: for a convolution a {@link DeltaKernel}
 * (zero but for a Haar-orthogonal matrix at the centre), for a linear layer [out, in] a
 * Haar-orthogonal matrix times {@link OrthogonalMatrix#scaleCorrection}.
 *
 * <pre>{@code
 * net.setInitializer(new DeltaInitializer(seed), Parameter.Type.WEIGHT);
 * }</pre>
 *
 * <p><b>Equal shapes get different matrices.</b> DJL tells an initialiser the shape of a parameter
 * and not which one it is. So each call takes the next streams of the generator: an initialiser
 * counts, and the weights of a network depend on the seed and on the order in which its blocks are
 * initialised, which is the order in which they were added. A network that shall begin as another
 * one did needs a new initialiser of the same seed.
 *
 * <p>Safe for use by several threads, between which the order is then left to chance.
 */
public final class DeltaInitializer implements Initializer {
  private final long seed;
  private final double gain;
  private final int groups;
  private final AtomicLong sequence;

  private DeltaInitializer(long seed, double gain, int groups, AtomicLong sequence) {
    this.seed = seed;
    this.gain = gain;
    this.groups = groups;
    this.sequence = sequence;
  }

  /** With gain 1, as tailored activations want it. */
  public DeltaInitializer(long seed) {
    this(seed, 1);
  }

  /**
   * With a gain.
   *
   * @param seed key of the generator
   * @param gain factor of all weights: at the edge of chaos the square root of {@link
   *     io.jtrelu.shaping.EdgeOfChaos#sigmaW2}
   * @throws IllegalArgumentException if the gain is not positive and finite
   */
  public DeltaInitializer(long seed, double gain) {
    this(seed, gain, 1, new AtomicLong());
    if (!(gain > 0 && gain < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "the gain of the weights must be positive and finite, but is " + gain);
    }
  }

  /**
   * For the weights of a convolution with groups, which their shape does not tell; each group has a
   * matrix of its own. Both initialisers take from the same streams.
   *
   * @throws IllegalArgumentException if groups is below 1
   */
  public DeltaInitializer withGroups(int groups) {
    if (groups < 1) {
      throw new IllegalArgumentException("a convolution has at least one group, got " + groups);
    }
    return new DeltaInitializer(seed, gain, groups, sequence);
  }

  /**
   * The next weights.
   *
   * @param manager owner of the result
   * @param shape [out, in] of a linear layer or [out, in / groups, ...] of a convolution with one
   *     to three spatial axes, all odd
   * @param dataType a floating type
   * @throws IllegalArgumentException for other shapes and types; what is not a matrix or a kernel
   *     (a bias, an embedding) needs another initialiser
   */
  @Override
  public NDArray initialize(NDManager manager, Shape shape, DataType dataType) {
    if (!dataType.isFloating()) {
      throw new IllegalArgumentException(
          "orthogonal weights are real numbers; a parameter of type " + dataType + " has none");
    }
    float[] values = values(shape);
    NDArray array = manager.create(values, shape);
    if (dataType == DataType.FLOAT32) {
      return array;
    }
    try (array) {
      return array.toType(dataType, true);
    }
  }

  private float[] values(Shape shape) {
    int rank = shape.dimension();
    if (rank < 2 || rank > 5) {
      throw new IllegalArgumentException(
          "a DeltaInitializer is for the weights of linear layers and convolutions, of 2 to 5 axes,"
              + " but is asked for "
              + shape
              + ": set it for Parameter.Type.WEIGHT, and another one for other parameters");
    }
    int out = Math.toIntExact(shape.get(0));
    int in = Math.toIntExact(shape.get(1));
    if (rank == 2) {
      return OrthogonalMatrix.linear(out, in, gain, seed, take(Math.min(out, in)));
    }
    // The centre of a kernel of odd sides is the middle of its taps, however they are folded.
    int width = Math.toIntExact(shape.get(rank - 1));
    int height = Math.toIntExact(shape.slice(2, rank - 1).size());
    DeltaKernel kernel =
        new DeltaKernel(out, Math.multiplyExact(in, groups), height, width, groups);
    return kernel.oihw(gain, seed, take((long) groups * Math.min(out / groups, in)));
  }

  /** The first of some streams that no other matrix has. */
  private long take(long streams) {
    return sequence.getAndAdd(streams);
  }
}
