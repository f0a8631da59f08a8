package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * One flat F32 arena with a value per parameter: the parameters themselves, their gradients, or an
 * optimiser's moments. All weights come first, then all biases, so that weight decay is a range.
 *
 * <p>Owns its memory; the views it gives are valid until it is closed.
 */
public final class Parameters implements AutoCloseable {
  private final Network network;
  private final Tensor arena;
  private final long weightElements;
  private final List<Tensor> views;

  private Parameters(Network network, Tensor arena, long weightElements) {
    this.network = network;
    this.arena = arena;
    this.weightElements = weightElements;
    this.views = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      views.add(arena.slice(spec.offset(), spec.shape(), spec.layout()));
    }
  }

  /** Allocates a zeroed arena for a network. */
  public static Parameters allocate(Network network, Backend backend) {
    long weights = 0;
    long all = 0;
    for (ParameterSpec spec : network.parameters()) {
      all = spec.end();
      if (spec.kind() == ParameterSpec.Kind.WEIGHTS) {
        weights = spec.end();
      }
    }
    Tensor arena = backend.allocate(flat(all), DataType.F32, Layout.ROW_MAJOR);
    return new Parameters(network, arena, weights);
  }

  /**
   * The shape of a block of any number of elements: one axis, or two where an int is too small.
   *
   * @param elements a multiple of 16 where there are 2^31 or more
   */
  static Shape flat(long elements) {
    return elements <= Integer.MAX_VALUE
        ? Shape.of((int) elements)
        : Shape.of(Math.toIntExact(elements / 16), 16);
  }

  /** The network whose parameters these are. */
  public Network network() {
    return network;
  }

  /** The whole arena, padding included. */
  public Tensor arena() {
    return arena;
  }

  /** Number of elements of the arena's first part, the weights. */
  public long weightElements() {
    return weightElements;
  }

  /** The part of the arena that holds weights. */
  public Tensor weights() {
    return arena.slice(0, flat(weightElements), Layout.ROW_MAJOR);
  }

  /** The part of the arena that holds biases. */
  public Tensor biases() {
    long rest = arena.shape().elements() - weightElements;
    return arena.slice(weightElements, flat(rest), Layout.ROW_MAJOR);
  }

  /** A view of one parameter, by its index in {@link Network#parameters}. */
  public Tensor view(int index) {
    return views.get(index);
  }

  @Override
  public void close() {
    arena.close();
  }
}
