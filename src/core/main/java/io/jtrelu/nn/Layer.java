package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import java.util.function.IntUnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * One node of a network's graph. Its sources are indices of earlier nodes. Sizes are those of a
 * single image; a program puts in the batch.
 *
 * <p>An implementation says all there is to know of a kind of layer; nothing else distinguishes
 * kinds. The defaults are those of a layer without parameters that maps every location linearly,
 * keeps cosines, and takes no part in the fusion of rectifiers; so the least that a new kind needs
 * is its name, sources, extent, and {@link #lower}. {@link Network.Builder#add} takes it. (For
 * {@link NetworkJson} to read it, a line in its list of kinds.)
 *
 * <p>Implementations are immutable.
 */
public interface Layer {
  /** Name of its kind, the same for all layers of a class; for files and people. */
  String kind();

  /** Unique name, stable across runs: the prefix of its parameters in checkpoints. */
  String name();

  /** Indices of the nodes it reads, all different. */
  List<Integer> sources();

  /** Height, width and channels of its result. */
  Extent extent();

  /**
   * Checks what it reads when it is added to a network.
   *
   * @param extents sizes of its sources
   * @throws IllegalArgumentException if they do not fit, naming the layer
   */
  default void check(List<Extent> extents) {}

  /** Adds what {@link NetworkJson} has to know beside name, kind and sources. */
  default void describe(ObjectNode attributes) {}

  /** Its parameters, in the order of their kinds. */
  default List<Parameter> parameters() {
    return List.of();
  }

  /**
   * Sets initial weights. (Biases are the {@link Initializer}'s.)
   *
   * @param parameter index in {@link #parameters} of one that holds weights
   * @param weights to be set
   * @throws IllegalArgumentException if the initialisation asked for does not suit the layer
   */
  default void initialize(Initializer.Weights initial, int parameter, Tensor weights) {
    throw new IllegalStateException("layer " + name() + " does not say how its weights begin");
  }

  /** Multiply-adds of the forward pass of one image. */
  default long multiplyAdds() {
    return 0;
  }

  /**
   * Adds what the layer does to the kernel.
   *
   * @param node the graph's node of a source, by the source's index
   * @return the graph's node of this layer
   */
  default int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    return graph.affine(node.applyAsInt(sources().getFirst()));
  }

  /** Whether {@link #draw} says what it does at finite width; see {@link SignalCheck}. */
  default boolean keepsCosines() {
    return true;
  }

  /**
   * What the layer of a random network does to a few inputs at one location.
   *
   * @param sources for each source its values, one row for each input
   * @param affine draws weights
   * @return one row for each input; a source's rows themselves where nothing happens to them
   */
  default double[][] draw(List<double[][]> sources, AffineDraw affine) {
    return sources.getFirst();
  }

  /**
   * Whether its forward pass can end with a rectifier ({@link Lowering#activation}), and its
   * backward pass reads nothing of its result, so that an activation may overwrite it.
   */
  default boolean fusesRectifier() {
    return false;
  }

  /** The rectifier that this layer is; null for anything else. */
  default @Nullable Rectifier rectifier() {
    return null;
  }

  /**
   * Whether its backward pass can multiply a source's gradient by the derivative of the rectifier
   * that produced the source ({@link Lowering#gate}), which it takes from the source's value.
   */
  default boolean gates() {
    return false;
  }

  /**
   * Whether it takes that derivative from its {@linkplain #reserve reserve} instead, where it
   * replaces the source's gradient and does not add to it, so that the value is not kept for it.
   */
  default boolean gatesByReserve() {
    return false;
  }

  /**
   * Whether on a backend it leaves the signs of its result, and takes the derivative of {@link
   * #gates} from those of its source: see {@link io.jtrelu.backend.Conv2d#keepsSigns}.
   *
   * @param batch images per pass
   */
  default boolean keepsSigns(Backend backend, int batch, DataType type) {
    return false;
  }

  /**
   * Whether its only source's value and its own gradient are all that the gradients of its
   * parameters take, so that they can be computed for several parts of a batch at once, after all
   * of them have passed: {@link Lowering#late}.
   */
  default boolean gradientsMayWait() {
    return false;
  }

  /** Whether its backward pass reads the values of its sources (apart from {@link #gates}). */
  default boolean backwardReadsSources() {
    return false;
  }

  /** Whether its backward pass reads its own result. */
  default boolean backwardReadsResult() {
    return false;
  }

  /** Whether its result may lie where its only source lies. */
  default boolean overwritesSource() {
    return false;
  }

  /**
   * Whether it computes a source along with itself, so that the source's value never exists. The
   * source's own {@link #lower} prepares what is needed and {@linkplain Lowering#handOver hands it
   * over}.
   *
   * @param source index of a source that nothing else reads
   * @param layer that source
   */
  default boolean absorbs(int source, Layer layer) {
    return false;
  }

  /** What the backward pass of a chain makes. */
  enum Gradients {
    /** There is none. */
    NONE,
    /** Gradients of parameters alone. */
    OF_PARAMETERS,
    /** That of the source, too. */
    OF_SOURCE
  }

  /**
   * Whether on a backend it is computed as one with the layer below the rectifier that it reads, so
   * that what lies between never exists. That layer's own {@link #lower} prepares what is needed
   * and {@linkplain Lowering#handOver hands it over}; this one's adds the steps of both.
   *
   * @param below a layer with a rectifier fused into it, which nothing else reads, and a single
   *     source, which nothing else reads either where its gradient is made
   * @param batch images per pass
   */
  default boolean chains(
      Layer below, Gradients gradients, Backend backend, int batch, DataType type) {
    return false;
  }

  /**
   * Bytes of device memory that such a chain takes beside its operands while it runs.
   *
   * @param below as it {@link #chains} with
   */
  default long chainScratch(Layer below, Backend backend, int batch, DataType type) {
    return 0;
  }

  /** Whether it is the identity outside of training. */
  default boolean onlyTrains() {
    return false;
  }

  /**
   * Type of values that the forward pass leaves for the backward pass beside the result, one for
   * each of the result's (such as the argmax of a pooling); null for none.
   */
  default @Nullable DataType reserve() {
    return null;
  }

  /**
   * Values of F32 that a part of a batch shows to its other parts, and keeps until its backward
   * pass, while it trains; 0 for a layer that treats each sample by itself. See {@link
   * Lowering#forwardTogether} and {@link Pass#exchange}.
   */
  default int exchanged() {
    return 0;
  }

  /**
   * Elements of a row of inputs in {@link FisherSamples}, for a layer with one parameter of weights
   * and one bias that adds a step to {@link Lowering#fisher}; 0 for others.
   */
  default int fisherInputs() {
    return 0;
  }

  /** Rows of a sample in {@link FisherSamples}, for a layer that has any. */
  default int fisherRows(FisherRows.Form form) {
    return 1;
  }

  /**
   * Prepares the layer's operations and adds its steps. Called once per program; not for a
   * rectifier that was fused into its source, nor outside of training where {@link #onlyTrains}.
   *
   * @throws io.jtrelu.backend.UnsupportedException if the backend cannot run the layer
   */
  void lower(Lowering lowering);

  /**
   * Size of one image or activation.
   *
   * @param height rows
   * @param width columns
   * @param channels channels
   */
  record Extent(int height, int width, int channels) {
    /** Number of values. */
    public long elements() {
      return (long) height * width * channels;
    }

    /** For layers whose result has the size of every source. */
    void requireSame(String layer, List<Extent> sources) {
      for (Extent source : sources) {
        if (!source.equals(this)) {
          throw new IllegalArgumentException(
              "layer " + layer + ": its result of " + this + " does not fit a source of " + source);
        }
      }
    }

    /** The shape of a batch of them, NHWC. */
    public Shape batch(int images) {
      return Shape.of(images, height, width, channels);
    }

    @Override
    public String toString() {
      return height + "x" + width + "x" + channels;
    }
  }

  /**
   * A parameter of a layer.
   *
   * @param name appended to the layer's name, after a dot
   * @param kind what it is
   * @param shape KRSC for the weights of a convolution
   */
  record Parameter(String name, ParameterSpec.Kind kind, Shape shape) {}

  /** Draws the weights and biases of a layer without making them. */
  interface AffineDraw {
    /**
     * A random orthogonal map, scaled as the {@link Initializer} does, plus biases.
     *
     * @param x one row for each input
     * @param channels of the layer's result, before widening
     */
    double[][] affine(double[][] x, int channels);
  }
}
