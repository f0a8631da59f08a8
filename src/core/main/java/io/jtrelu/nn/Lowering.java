package io.jtrelu.nn;

import static io.jtrelu.nn.Fusion.NONE;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * One layer's way to prepared operations: what it is compiled for, and where its steps go. Valid
 * during {@link Layer#lower}; steps keep what they need of it. Not thread-safe.
 */
public final class Lowering {
  private final Result result;
  private final int node;

  Lowering(Result result, int node) {
    this.result = result;
    this.node = node;
  }

  /** Part of a forward or backward pass. */
  public interface Step {
    /** Gives work to the pass's stream. */
    void run(Pass pass);
  }

  /**
   * A step in its place.
   *
   * @param together whether all parts of a batch must have done the steps before it
   */
  record Placed(Step step, boolean together) {}

  /** Part of a backward pass that contributes to a source's gradient. */
  public interface GradientStep {
    /**
     * Gives work to the pass's stream.
     *
     * @param write whether the contribution replaces what is there or is added to it
     */
    void run(Pass pass, Write write);
  }

  /** Gradients of a layer's parameters for all parts of a batch at once. */
  public interface LateStep {
    /**
     * Gives work to a stream.
     *
     * @param source value of the layer's source, of the whole batch
     * @param gradient of the loss with respect to the layer's value, likewise
     * @param destination receives the gradients
     * @param write whether they replace what is there or are added to it
     */
    void run(Stream stream, Tensor source, Tensor gradient, Parameters destination, Write write);
  }

  /** An operation that reads a parameter in packed form. */
  record Packed(Conv2d operation, PackedWeights weights) {
    Conv2d.Packing of(Tensor parameter) {
      return new Conv2d.Packing(operation, parameter, weights);
    }
  }

  /** What a backward step is for. */
  enum Purpose {
    /** The gradient of a source: part of every backward pass. */
    SOURCE,
    /** Gradients of parameters. */
    PARAMETERS,
    /** {@link FisherSamples}. */
    FISHER
  }

  record BackwardStep(Purpose purpose, Placed placed) {}

  /** All steps and operations of a program. */
  static final class Result implements AutoCloseable {
    final Network network;
    final Backend backend;
    final int batch;
    final int parts;
    final int lateBatch;
    final Program.Options options;
    final Fusion fusion;

    /** By layer. */
    final Map<Integer, LateStep> late = new TreeMap<>();

    /** For each layer its steps, in the order in which they run. */
    final List<List<Placed>> forward = new ArrayList<>();

    final List<List<BackwardStep>> backward = new ArrayList<>();

    /** By index of the parameter. */
    final Map<Integer, Packed> packed = new TreeMap<>();

    private final Map<Integer, Object> handedOver = new HashMap<>();
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();

    Result(
        Network network,
        Backend backend,
        int batch,
        int parts,
        int lateBatch,
        Program.Options options,
        Fusion fusion) {
      this.network = network;
      this.backend = backend;
      this.batch = batch;
      this.parts = parts;
      this.lateBatch = lateBatch;
      this.options = options;
      this.fusion = fusion;
    }

    /** Lowers all layers; the caller closes this whether or not it succeeds. */
    void lower() {
      for (int i = 0; i < network.layers().size(); i++) {
        forward.add(new ArrayList<>());
        backward.add(new ArrayList<>());
        if (!fusion.isFused(i) && !fusion.isAlias(i)) {
          network.layers().get(i).lower(new Lowering(this, i));
        }
      }
    }

    <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException("closing a program's operation failed", failure);
        }
      }
    }
  }

  /** Index of the layer. */
  public int node() {
    return node;
  }

  /** Prepares operations; {@linkplain #own give} them to the program. */
  public Backend backend() {
    return result.backend;
  }

  /** Images per pass. */
  public int batch() {
    return result.batch;
  }

  /** Equal parts of a batch that pass side by side, where layers look at whole batches; else 1. */
  public int parts() {
    return result.parts;
  }

  /** Storage type of values and gradients. */
  public DataType type() {
    return result.options.type();
  }

  /** Whether there is a backward pass. */
  public boolean training() {
    return result.options.training();
  }

  /** Key of a random generator, another one for each layer. */
  public long seed() {
    return result.options.seed() + node;
  }

  /** Shape of a node's values, NHWC, batch included. */
  public Shape shape(int of) {
    return result.network.layers().get(of).extent().batch(result.batch);
  }

  /** Number of values of this layer's result, batch included. */
  public long elements() {
    return shape(node).elements();
  }

  /** Index in {@link Network#parameters} of a parameter, by its index in the layer's own. */
  public int parameter(int index) {
    String name = ParameterSpec.name(layer(), layer().parameters().get(index));
    List<ParameterSpec> specs = result.network.parameters();
    for (int p = 0; p < specs.size(); p++) {
      if (specs.get(p).layer() == node && specs.get(p).name().equals(name)) {
        return p;
      }
    }
    throw new IllegalStateException("the network has no parameter " + name);
  }

  private Layer layer() {
    return result.network.layers().get(node);
  }

  /** The rectifier to end the forward pass with: see {@link Layer#fusesRectifier}. */
  public Rectifier activation() {
    return result.fusion.rectifier(node);
  }

  /**
   * The rectifier whose derivative, at the source's value, the gradient of a source is to be
   * multiplied by, after this layer's contribution was added: see {@link Layer#gates}.
   */
  public Rectifier gate(int source) {
    return result.fusion.gate(source, node);
  }

  /**
   * Whether a node's forward pass leaves the signs of its value, from which the layer that is to
   * apply the derivative then takes it: {@link Pass#signs}.
   */
  public boolean signs(int of) {
    return result.fusion.leavesSigns(of);
  }

  /** Index of the node in whose place a source's value lies: below a rectifier fused into it. */
  public int home(int source) {
    return result.fusion.home(source);
  }

  /** Whether another layer computes this one along with itself: see {@link Layer#absorbs}. */
  public boolean isAbsorbed() {
    return result.fusion.absorber(node) != NONE;
  }

  /** Whether another layer computes this one along with itself: see {@link Layer#chains}. */
  public boolean isChained() {
    return result.fusion.upper(node) != NONE;
  }

  /**
   * What the layer left that this one {@linkplain Layer#chains computes along with itself}; null
   * where there is none.
   */
  public <T> @Nullable T chained(Class<T> type) {
    int below = result.fusion.lower(node);
    return below == NONE ? null : type.cast(result.handedOver.get(below));
  }

  /** Leaves something for the layer that computes this one along with itself. */
  public void handOver(Object prepared) {
    result.handedOver.put(node, prepared);
  }

  /** What a source that this layer absorbs left for it; null where it does not absorb it. */
  public <T> @Nullable T handedOver(int source, Class<T> type) {
    return result.fusion.absorber(source) == node ? type.cast(result.handedOver.get(source)) : null;
  }

  /** Gives an operation to the program, which closes it, the last one first. */
  public <T extends AutoCloseable> T own(T operation) {
    return result.own(operation);
  }

  /** Adds a step to the forward pass. */
  public void forward(Step step) {
    result.forward.get(node).add(new Placed(step, false));
  }

  /**
   * Adds a step to the forward pass that begins when all parts of the batch have done those before
   * it.
   */
  public void forwardTogether(Step step) {
    result.forward.get(node).add(new Placed(step, true));
  }

  /** Adds a step to the backward pass, for the gradients of parameters. */
  public void backward(Step step) {
    add(Purpose.PARAMETERS, step, false);
  }

  /** Whether the gradients of the layer's parameters are to come from a {@link #late} step. */
  public boolean isLate() {
    return result.fusion.isLate(node);
  }

  /** Images that a {@link #late} step is for. */
  public int lateBatch() {
    return result.lateBatch;
  }

  /** Sets what computes the gradients of the layer's parameters when all parts have passed. */
  public void late(LateStep step) {
    result.late.put(node, step);
  }

  private void add(Purpose purpose, Step step, boolean together) {
    result.backward.get(node).add(new BackwardStep(purpose, new Placed(step, together)));
  }

  /** The form of the {@link FisherSamples} that the backward pass also runs for; null for none. */
  public FisherRows.@Nullable Form fisher() {
    return result.options.fisher();
  }

  /** Adds a step to the backward pass that writes the layer's {@link FisherSamples}. */
  public void fisher(Step step) {
    add(Purpose.FISHER, step, false);
  }

  /**
   * Adds a step to the backward pass that contributes to the gradient of a source; does nothing
   * where nobody needs that gradient.
   */
  public void backwardTo(int source, GradientStep step) {
    backwardTo(source, step, false);
  }

  /** As above, by a step that begins when all parts of the batch have done those before it. */
  public void backwardTogetherTo(int source, GradientStep step) {
    backwardTo(source, step, true);
  }

  private void backwardTo(int source, GradientStep step, boolean together) {
    if (result.fusion.needsGradient(source)) {
      Write write = result.fusion.write(source, node);
      add(Purpose.SOURCE, pass -> step.run(pass, write), together);
    }
  }

  /**
   * Has a parameter packed whenever it has changed. Others are read where they are ({@link
   * Pass#parameter}).
   *
   * @param parameter index in {@link Network#parameters}
   * @param operation that reads it in packed form
   * @param weights made by the operation
   */
  public void packed(int parameter, Conv2d operation, PackedWeights weights) {
    result.packed.put(parameter, new Packed(operation, weights));
  }
}
