package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.OperandException;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/**
 * An F32 value per parameter of a network: the parameters themselves, their gradients, or an
 * optimiser's moments. They lie in one flat arena, where all weights come first, then all biases,
 * so that weight decay is a range; or in tensors of the caller.
 *
 * <p>What {@link #allocate} gives owns its memory, and the views it gives are valid until it is
 * closed. What {@link #over(Network, Tensor) over} gives owns nothing: the caller keeps the memory
 * alive, and closing does nothing.
 */
public final class Parameters implements AutoCloseable {
  private final Network network;
  private final @Nullable Tensor arena;
  private final @Nullable Tensor block; // that all views are of
  private final List<@Nullable Tensor> views;
  private final boolean owner;

  private Parameters(
      Network network,
      @Nullable Tensor arena,
      @Nullable Tensor block,
      List<@Nullable Tensor> views,
      boolean owner) {
    this.network = network;
    this.arena = arena;
    this.block = block;
    this.views = views;
    this.owner = owner;
  }

  /** Allocates a zeroed arena for a network. */
  public static Parameters allocate(Network network, Backend backend) {
    Tensor arena = backend.allocate(flat(arenaElements(network)), DataType.F32, Layout.ROW_MAJOR);
    return new Parameters(network, arena, arena, views(network, arena), true);
  }

  /** Allocates some of a network's parameters, without an {@link #arena}; there are no others. */
  static Parameters allocate(Network network, Backend backend, IntPredicate there) {
    List<ParameterSpec> specs = network.parameters();
    long elements = 0;
    for (int p = 0; p < specs.size(); p++) {
      elements += there.test(p) ? specs.get(p).end() - specs.get(p).offset() : 0;
    }
    Tensor block = backend.allocate(flat(elements), DataType.F32, Layout.ROW_MAJOR);
    List<@Nullable Tensor> views = new ArrayList<>();
    long at = 0;
    for (int p = 0; p < specs.size(); p++) {
      ParameterSpec spec = specs.get(p);
      views.add(there.test(p) ? block.slice(at, spec.shape(), spec.layout()) : null);
      at += there.test(p) ? spec.end() - spec.offset() : 0;
    }
    return new Parameters(network, null, block, views, true);
  }

  /** Allocates a zeroed arena for a network in host memory, whatever computes with it. */
  public static Parameters onHost(Network network) {
    Tensor arena = Tensor.allocate(flat(arenaElements(network)), DataType.F32, Layout.ROW_MAJOR);
    return new Parameters(network, arena, arena, views(network, arena), true);
  }

  /**
   * Parameters in an arena of the caller.
   *
   * @param arena F32, row-major, of any shape with as many elements as {@link Network#parameters}
   *     say: the {@linkplain #arenaElements arena's}
   * @throws OperandException if it does not fit
   */
  public static Parameters over(Network network, Tensor arena) {
    long elements = arenaElements(network);
    if (arena.shape().elements() != elements
        || arena.type() != DataType.F32
        || arena.layout() != Layout.ROW_MAJOR) {
      throw new OperandException(
          "an arena for the parameters of "
              + network
              + " is F32 ROW_MAJOR of "
              + elements
              + " elements, padding included; got "
              + arena);
    }
    return new Parameters(network, arena, arena, views(network, arena), false);
  }

  /**
   * Parameters in tensors of the caller, without an {@link #arena}.
   *
   * @param tensors one for each of {@link Network#parameters}, in that order: F32, of its shape;
   *     KRSC for the weights of convolutions, row-major for others; all on one device
   * @throws OperandException if one does not fit; the message names it
   */
  public static Parameters over(Network network, List<Tensor> tensors) {
    List<ParameterSpec> specs = network.parameters();
    if (tensors.size() != specs.size()) {
      throw new OperandException(
          network + " has " + specs.size() + " parameters, got " + tensors.size() + " tensors");
    }
    for (int p = 0; p < specs.size(); p++) {
      ParameterSpec spec = specs.get(p);
      Tensor tensor = tensors.get(p);
      if (!tensor.shape().equals(spec.shape())
          || tensor.type() != DataType.F32
          || tensor.layout() != spec.layout()
          || !tensor.device().equals(tensors.getFirst().device())) {
        throw new OperandException(
            "parameter "
                + spec.name()
                + " of "
                + network
                + " must be F32"
                + spec.shape()
                + " "
                + spec.layout()
                + " on "
                + tensors.getFirst().device()
                + ", got "
                + tensor);
      }
    }
    return new Parameters(network, null, null, List.copyOf(tensors), false);
  }

  /** Elements of a network's arena, padding included. */
  public static long arenaElements(Network network) {
    return network.parameters().isEmpty() ? 0 : network.parameters().getLast().end();
  }

  private static List<@Nullable Tensor> views(Network network, Tensor arena) {
    List<@Nullable Tensor> views = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      views.add(arena.slice(spec.offset(), spec.shape(), spec.layout()));
    }
    return views;
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

  /**
   * Checks that these can be the parameters, or their gradients, of a network.
   *
   * @throws OperandException if they are those of another one
   */
  void requireFits(Network other) {
    if (network != other && !network.parameters().equals(other.parameters())) {
      throw new OperandException(
          "parameters of network "
              + network
              + " do not fit "
              + other
              + ": names, shapes or order differ");
    }
  }

  /** The network whose parameters these are. */
  public Network network() {
    return network;
  }

  /**
   * The whole arena, padding included.
   *
   * @throws IllegalStateException if these lie in tensors of the caller
   */
  public Tensor arena() {
    if (arena == null) {
      throw new IllegalStateException(
          "these parameters of "
              + network
              + " lie in tensors of their own, not in an arena; use view(index)");
    }
    return arena;
  }

  /** The memory that all of these lie in; null where they lie in tensors of the caller. */
  @Nullable Tensor block() {
    return block;
  }

  /** Whether there is an {@link #arena}. */
  public boolean hasArena() {
    return arena != null;
  }

  /** Number of elements of an arena's first part, the weights. */
  public long weightElements() {
    return weightElements(network);
  }

  /** The same, of a network's arena. */
  public static long weightElements(Network network) {
    long weights = 0;
    for (ParameterSpec spec : network.parameters()) {
      if (spec.kind() == ParameterSpec.Kind.WEIGHTS) {
        weights = spec.end();
      }
    }
    return weights;
  }

  /**
   * The part of the arena that holds weights.
   *
   * @throws IllegalStateException if there is no arena
   */
  public Tensor weights() {
    return arena().slice(0, flat(weightElements()), Layout.ROW_MAJOR);
  }

  /**
   * The part of the arena that holds biases, and scales where there are any.
   *
   * @throws IllegalStateException if there is no arena
   */
  public Tensor biases() {
    long rest = learntElements(network) - weightElements();
    return arena().slice(weightElements(), flat(rest), Layout.ROW_MAJOR);
  }

  /** Elements of the part of a network's arena that has gradients: all but running statistics. */
  public static long learntElements(Network network) {
    long end = 0;
    for (ParameterSpec spec : network.parameters()) {
      end = spec.kind().isStatistic() ? end : spec.end();
    }
    return end;
  }

  /**
   * The part of the arena that has gradients: all of it but running statistics.
   *
   * @throws IllegalStateException if there is no arena
   */
  public Tensor learnt() {
    return arena().slice(0, flat(learntElements(network)), Layout.ROW_MAJOR);
  }

  /**
   * The part of the arena that holds running statistics, often empty.
   *
   * @throws IllegalStateException if there is no arena
   */
  public Tensor statistics() {
    long learnt = learntElements(network);
    return arena().slice(learnt, flat(arena().shape().elements() - learnt), Layout.ROW_MAJOR);
  }

  /** A view of one parameter, by its index in {@link Network#parameters}. */
  public Tensor view(int index) {
    Tensor view = views.get(index);
    if (view == null) {
      throw new IllegalStateException(
          "there is no " + network.parameters().get(index).name() + " among these parameters");
    }
    return view;
  }

  /** Releases the memory if it is owned. Idempotent. */
  @Override
  public void close() {
    if (owner && block != null) {
      block.close();
    }
  }
}
