package io.jtrelu.nn;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dSum;
import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Operation;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * A network compiled for one backend and batch size: prepared operations, packed weights and a
 * memory plan.
 *
 * <p>An activation is fused into the convolution or sum before it where nothing else reads that
 * value; then only the activation's output exists. In the backward pass its derivative is applied
 * by the reader that contributes last to its gradient, so a chain has no elementwise pass in either
 * direction. (Activations other than rectifiers are passes of their own, in place where the
 * derivative follows from the output.) Values live in one block per {@link Workspace}, placed by
 * their lifetimes; nothing is allocated in a step.
 *
 * <p>Thread-safe while nobody calls {@link #load}: each thread uses a workspace of its own.
 */
public final class Program implements AutoCloseable {
  /**
   * What a program is compiled for.
   *
   * @param type storage type of activations and their gradients
   * @param labelSmoothing of the loss, in [0, 1)
   * @param training whether there is a backward pass; without one, dropout is the identity and
   *     memory is reused sooner
   * @param seed key of the dropout masks
   */
  public record Options(DataType type, float labelSmoothing, boolean training, long seed) {}

  private static final int NONE = -1;

  private final Network network;
  private final Backend backend;
  private final int batch;
  private final Options options;

  /** For an activation that is a rectifier, and so can be fused: which one; else null. */
  private final @Nullable Rectifier[] rectifiers;

  private final List<Layer> layers;
  private final List<List<Integer>> readers;

  /** The layer whose memory holds a layer's value: itself, or the one it is fused with. */
  private final int[] home;

  /** For a convolution or sum: the activation fused into it, or NONE. */
  private final int[] fusedActivation;

  /** For a convolution: the sum that computes it along with itself, or NONE. */
  private final int[] joinedSum;

  /** For each convolution its operation and how a sum runs it; null for other layers. */
  private final @Nullable JoinedConvolution[] convolutions;

  private final boolean[] fused;
  private final boolean[] needsGradient;
  private final boolean[] heldForBackward;
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final List<Step> forward = new ArrayList<>();

  /** For each forward step the layer whose value it completes. */
  private final List<Integer> completed = new ArrayList<>();

  private final List<Step> backward = new ArrayList<>();

  /** Packs a parameter, by its index; weights only. */
  private final Map<Integer, LoadStep> loads = new HashMap<>();

  private final SoftmaxCrossEntropy loss;

  private final MemoryPlan plan = new MemoryPlan();
  private final int[] valueSlot;
  private final int[] gradientSlot;
  private final int[] argmaxSlot;
  private final long heldBytes;
  private @Nullable Parameters loaded;

  private interface Step {
    void run(Workspace workspace);
  }

  /** A convolution that a sum runs. */
  private record JoinedConvolution(Conv2d op, PackedWeights packed, int source, int bias) {}

  private interface LoadStep {
    void run(Stream stream, Parameters parameters);
  }

  /**
   * Compiles a network. The caller closes the result before the backend.
   *
   * @param batch images per pass
   */
  public Program(Network network, Backend backend, int batch, Options options) {
    this.network = network;
    this.backend = backend;
    this.batch = batch;
    this.options = options;
    this.layers = network.layers();
    int count = layers.size();
    this.rectifiers = rectifiers(layers);
    this.readers = readers(layers);
    this.home = new int[count];
    this.fusedActivation = new int[count];
    this.joinedSum = new int[count];
    this.convolutions = new JoinedConvolution[count];
    this.fused = new boolean[count];
    this.needsGradient = new boolean[count];
    this.heldForBackward = new boolean[count];
    this.valueSlot = new int[count];
    this.gradientSlot = new int[count];
    this.argmaxSlot = new int[count];
    fuse();
    this.heldBytes = planMemory();
    try {
      this.loss =
          own(
              backend.softmaxCrossEntropy(
                  batch, network.classes(), options.type(), options.labelSmoothing()));
      for (int i = 0; i < count; i++) {
        int steps = forward.size();
        compile(i);
        if (forward.size() > steps) {
          completed.add(fusedActivation[i] == NONE ? i : fusedActivation[i]);
        }
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  private static @Nullable Rectifier[] rectifiers(List<Layer> layers) {
    @Nullable Rectifier[] rectifiers = new Rectifier[layers.size()];
    for (int i = 0; i < rectifiers.length; i++) {
      if (layers.get(i) instanceof Layer.Activation activation) {
        TransformedActivation f = activation.function();
        if (f.isScaledRectifier()) {
          rectifiers[i] = new Rectifier((float) f.negativeSlope(), (float) f.outputScale());
        }
      }
    }
    return rectifiers;
  }

  private static List<List<Integer>> readers(List<Layer> layers) {
    List<List<Integer>> readers = new ArrayList<>();
    for (int i = 0; i < layers.size(); i++) {
      readers.add(new ArrayList<>());
      for (int source : layers.get(i).sources()) {
        readers.get(source).add(i);
      }
    }
    return readers;
  }

  /** Decides which activations are fused into their producers. */
  private void fuse() {
    for (int i = 0; i < layers.size(); i++) {
      home[i] = i;
      fusedActivation[i] = NONE;
      joinedSum[i] = NONE;
      Layer layer = layers.get(i);
      needsGradient[i] = layer instanceof Layer.Convolution;
      for (int source : layer.sources()) {
        needsGradient[i] |= needsGradient[source];
      }
    }
    for (int i = 0; i < layers.size(); i++) {
      switch (layers.get(i)) {
        case Layer.Activation activation -> {
          int producer = activation.source();
          Layer layer = layers.get(producer);
          boolean fusible =
              layer instanceof Layer.Convolution || layer instanceof Layer.NormalizedSum;
          boolean sole = readers.get(producer).size() == 1;
          if (rectifiers[i] != null && fusible && sole && gatedByReader(i)) {
            fusedActivation[producer] = i;
            fused[i] = true;
            home[i] = producer;
          } else if (fusible && sole && savesOutput(i)) {
            home[i] = producer; // in place
          }
        }
        case Layer.NormalizedSum sum -> {
          int branch = sum.branch();
          if (layers.get(branch) instanceof Layer.Convolution && readers.get(branch).size() == 1) {
            joinedSum[branch] = i;
            home[branch] = i; // its own value never exists
          }
        }
        case Layer.DropoutLayer dropout -> {
          if (!options.training()) {
            home[i] = home[dropout.source()];
          }
        }
        default -> {}
      }
    }
  }

  /** Whether an activation's backward pass reads its output, so that it can overwrite its input. */
  private boolean savesOutput(int activation) {
    return rectifiers[activation] != null || function(activation).derivativeFollowsFromValue();
  }

  private TransformedActivation function(int activation) {
    return ((Layer.Activation) layers.get(activation)).function();
  }

  /**
   * Whether the reader that contributes last to an activation's gradient applies its derivative.
   */
  private boolean gatedByReader(int activation) {
    if (!options.training()) {
      return true;
    }
    Layer last = layers.get(readers.get(activation).getFirst());
    return !(last instanceof Layer.Activation) && !(last instanceof Layer.DropoutLayer);
  }

  /** Steps of time: forward passes 0..n-1, the loss at n, backward passes from n+1 on. */
  private int backwardTime(int layer) {
    return 2 * layers.size() - layer;
  }

  private long planMemory() {
    int lossTime = layers.size();
    int last = layers.size() - 1;
    int[] lastUse = new int[layers.size()];
    for (int i = 0; i < layers.size(); i++) {
      int at = home[i];
      lastUse[at] = Math.max(lastUse[at], i);
      for (int reader : readers.get(i)) {
        lastUse[at] = Math.max(lastUse[at], Math.max(reader, joinedSum[reader]));
        if (options.training() && readInBackward(i, reader)) {
          lastUse[at] = Math.max(lastUse[at], backwardTime(reader));
        }
      }
      if (options.training() && layers.get(i) instanceof Layer.Activation && !fused[i]) {
        int saved = home[savesOutput(i) ? i : layers.get(i).sources().getFirst()];
        lastUse[saved] = Math.max(lastUse[saved], backwardTime(i));
      }
    }
    lastUse[home[last]] = Math.max(lastUse[home[last]], lossTime);
    long held = 0;
    for (int i = 0; i < layers.size(); i++) {
      valueSlot[i] = NONE;
      gradientSlot[i] = NONE;
      argmaxSlot[i] = NONE;
      long bytes = batch * layers.get(i).extent().elements() * options.type().bytes();
      if (home[i] == i && i > 0) {
        valueSlot[i] = plan.add(bytes, i, lastUse[i]);
        heldForBackward[i] = lastUse[i] > lossTime;
        held += heldForBackward[i] ? bytes : 0;
      }
      if (layers.get(i) instanceof Layer.MaxPooling) {
        long positions = batch * layers.get(i).extent().elements();
        argmaxSlot[i] = plan.add(positions, i, options.training() ? backwardTime(i) : i);
        held += options.training() ? positions : 0;
      }
      boolean ownGradient = !fused[i] && needsGradient[i] && i > 0;
      if (ownGradient && (options.training() || i == last)) {
        // A fused pair shares one gradient: that of the activation, once it is gated.
        int read = fusedActivation[i] == NONE ? i : fusedActivation[i];
        int from = i == last ? lossTime : backwardTime(readers.get(read).getLast());
        gradientSlot[i] = plan.add(bytes, from, options.training() ? backwardTime(i) : lossTime);
      }
    }
    plan.solve();
    return held;
  }

  private boolean readInBackward(int source, int reader) {
    return switch (layers.get(reader)) {
      case Layer.Convolution c -> true;
      case Layer.NormalizedSum s -> !gate(source, reader).isIdentity();
      case Layer.MaxPooling p -> !gate(source, reader).isIdentity();
      case Layer.GlobalMeanPooling p -> !gate(source, reader).isIdentity();
      default -> false;
    };
  }

  /** The derivative that a reader applies to its source's gradient. */
  private Rectifier gate(int source, int reader) {
    boolean gates = fused[source] && readers.get(source).getFirst() == reader;
    return gates ? rectifier(source) : Rectifier.IDENTITY;
  }

  /** Of an activation that is one; the identity for NONE. */
  private Rectifier rectifier(int activation) {
    Rectifier rectifier = activation == NONE ? null : rectifiers[activation];
    return rectifier == null ? Rectifier.IDENTITY : rectifier;
  }

  /** Whether a reader starts its source's gradient or adds to it. */
  private Write write(int source, int reader) {
    return readers.get(source).getLast() == reader ? Write.OVERWRITE : Write.ACCUMULATE;
  }

  private <T extends Operation> T own(T operation) {
    owned.push(operation);
    return operation;
  }

  /** Prepares one layer's operations and adds its forward and backward steps. */
  private void compile(int i) {
    DataType type = options.type();
    Rectifier activation = rectifier(fusedActivation[i]);
    long elements = batch * layers.get(i).extent().elements();
    switch (layers.get(i)) {
      case Layer.Input input -> {}
      case Layer.Convolution layer -> compileConvolution(i, layer, activation);
      case Layer.Activation layer -> {
        if (!fused[i]) {
          compileActivation(i, layer.source(), elements);
        }
      }
      case Layer.NormalizedSum layer -> {
        int a = layer.shortcut();
        int b = layer.branch();
        WeightedSum op =
            own(
                backend.weightedSum(
                    elements,
                    type,
                    (float) layer.shortcutWeight(),
                    (float) layer.branchWeight(),
                    activation));
        JoinedConvolution joined = convolutions[b];
        if (joined != null && joinedSum[b] == i) {
          Conv2dSum both =
              own(backend.conv2dSum(joined.op(), op.weightA(), op.weightB(), activation));
          forward.add(
              w ->
                  both.forward(
                      w.stream,
                      w.value(joined.source()),
                      joined.packed(),
                      parameters().view(joined.bias()),
                      w.value(a),
                      w.value(i)));
        } else {
          forward.add(w -> op.forward(w.stream, w.value(a), w.value(b), w.value(i)));
        }
        if (needsGradient[b]) {
          backward.add(
              w ->
                  op.backwardB(
                      w.stream, w.gradient(i), gate(b, i), w.value(b), w.gradient(b), write(b, i)));
        }
        if (needsGradient[a]) {
          backward.add(
              w ->
                  op.backwardA(
                      w.stream, w.gradient(i), gate(a, i), w.value(a), w.gradient(a), write(a, i)));
        }
      }
      case Layer.MaxPooling layer -> {
        int source = layer.source();
        MaxPool2dDescriptor d = layer.descriptor();
        MaxPool2d op =
            own(
                backend.maxPool2d(
                    new MaxPool2dDescriptor(
                        batch,
                        d.h(),
                        d.w(),
                        d.c(),
                        d.kernel(),
                        d.stride(),
                        d.padBegin(),
                        d.padEnd()),
                    type,
                    gate(source, i)));
        forward.add(w -> op.forward(w.stream, w.value(source), w.value(i), w.argmax(i)));
        if (needsGradient[source]) {
          backward.add(
              w ->
                  op.backward(
                      w.stream,
                      w.gradient(i),
                      w.argmax(i),
                      w.value(source),
                      w.gradient(source),
                      write(source, i)));
        }
      }
      case Layer.GlobalMeanPooling layer -> {
        int source = layer.source();
        GlobalMeanPool op =
            own(
                backend.globalMeanPool(
                    batched(layers.get(source).extent()), type, gate(source, i)));
        forward.add(w -> op.forward(w.stream, w.value(source), w.value(i)));
        if (needsGradient[source]) {
          backward.add(
              w ->
                  op.backward(
                      w.stream,
                      w.gradient(i),
                      w.value(source),
                      w.gradient(source),
                      write(source, i)));
        }
      }
      case Layer.DropoutLayer layer -> {
        if (options.training()) {
          int source = layer.source();
          long seed = options.seed() + i;
          Dropout op = own(backend.dropout(elements, type, layer.rate()));
          forward.add(
              w -> op.forward(w.stream, w.value(source), w.value(i), seed, w.dropoutSequence));
          if (needsGradient[source]) {
            backward.add(
                w ->
                    op.backward(
                        w.stream,
                        w.gradient(i),
                        w.gradient(source),
                        seed,
                        w.dropoutSequence,
                        write(source, i)));
          }
        }
      }
    }
  }

  /** An activation that is not fused. */
  private void compileActivation(int i, int source, long elements) {
    DataType type = options.type();
    Rectifier rectifier = rectifiers[i];
    if (rectifier != null) {
      Rectify op = own(backend.rectify(elements, type, rectifier));
      forward.add(w -> op.forward(w.stream, w.value(source), w.value(i)));
      if (needsGradient[source]) {
        backward.add(
            w ->
                op.backward(
                    w.stream, w.value(i), w.gradient(i), w.gradient(source), write(source, i)));
      }
    } else {
      Pointwise op = own(backend.pointwise(elements, type, function(i)));
      int saved = op.savesOutput() ? i : source;
      forward.add(w -> op.forward(w.stream, w.value(source), w.value(i)));
      if (needsGradient[source]) {
        backward.add(
            w ->
                op.backward(
                    w.stream, w.value(saved), w.gradient(i), w.gradient(source), write(source, i)));
      }
    }
  }

  private void compileConvolution(int i, Layer.Convolution layer, Rectifier activation) {
    int source = layer.source();
    int weights = parameter(i, ParameterSpec.Kind.WEIGHTS);
    int bias = parameter(i, ParameterSpec.Kind.BIAS);
    Conv2d op =
        own(
            backend.conv2d(
                layer.descriptor().withBatch(batch), options.type(), activation, gate(source, i)));
    PackedWeights packed = op.newPackedWeights();
    owned.push(packed);
    loads.put(weights, (stream, parameters) -> op.pack(stream, parameters.view(weights), packed));
    convolutions[i] = new JoinedConvolution(op, packed, source, bias);
    if (joinedSum[i] == NONE) {
      forward.add(
          w -> op.forward(w.stream, w.value(source), packed, parameters().view(bias), w.value(i)));
    }
    backward.add(
        w -> {
          Parameters gradients = w.gradients();
          op.backwardWeights(
              w.stream,
              w.value(source),
              w.gradient(i),
              gradients.view(weights),
              gradients.view(bias),
              w.write);
        });
    // Added last, hence run first: on a CPU its source is in the cache then for the gradient of the
    // weights.
    if (needsGradient[source]) {
      backward.add(
          w ->
              op.backwardData(
                  w.stream,
                  w.gradient(i),
                  packed,
                  w.value(source),
                  w.gradient(source),
                  write(source, i)));
    }
  }

  private int parameter(int layer, ParameterSpec.Kind kind) {
    List<ParameterSpec> specs = network.parameters();
    for (int p = 0; p < specs.size(); p++) {
      if (specs.get(p).layer() == layer && specs.get(p).kind() == kind) {
        return p;
      }
    }
    throw new IllegalStateException("layer " + layer + " has no " + kind);
  }

  private Parameters parameters() {
    if (loaded == null) {
      throw new IllegalStateException("call load(parameters) before running a program");
    }
    return loaded;
  }

  private Shape batched(Extent extent) {
    return Shape.of(batch, extent.height(), extent.width(), extent.channels());
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** Images per pass. */
  public int batch() {
    return batch;
  }

  /** What it was compiled for. */
  public Options options() {
    return options;
  }

  /**
   * Bytes of activations that a training pass holds from the forward pass for the backward one: one
   * output per fused layer, no pre-activations. (The input images are not counted.)
   */
  public long activationBytes() {
    return heldBytes;
  }

  /** Bytes of a workspace: all activations and gradients, placed by lifetime. */
  public long workspaceBytes() {
    return plan.size();
  }

  /**
   * Packs the weights of the parameters' present values. Call it again whenever they change; the
   * arena must stay open while the program runs (biases are read from it).
   */
  public void load(Stream stream, Parameters parameters) {
    for (int p = 0; p < network.parameters().size(); p++) {
      pack(stream, parameters, p);
    }
  }

  /**
   * Does what {@link #load} does for one parameter, by its index in {@link Network#parameters};
   * each must have its turn, on any streams.
   */
  void pack(Stream stream, Parameters parameters, int parameter) {
    LoadStep load = loads.get(parameter);
    if (load != null) { // biases are read where they are
      load.run(stream, parameters);
    }
    if (parameter == 0) {
      loaded = parameters;
    }
  }

  /** Allocates what one thread needs to run this program. The caller closes it. */
  public Workspace newWorkspace(Stream stream) {
    return new Workspace(this, stream);
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      AutoCloseable resource = owned.pop();
      try {
        resource.close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing a program's operation failed", failure);
      }
    }
  }

  /** Looks at values during a forward pass. */
  interface Observer {
    /**
     * A layer's value, complete once the stream's work so far is done.
     *
     * @param layer its index; one that is fused with the next is not shown
     * @param value valid during the call
     */
    void value(int layer, Tensor value);
  }

  /** The values of one pass and the stream it runs on. Used by one thread at a time. */
  public static final class Workspace implements AutoCloseable {
    private final Program program;
    private final Stream stream;
    private final Tensor block;
    private final Tensor losses;
    private final Tensor correct;
    private final Tensor[] values;
    private final Tensor[] gradients;
    private final Tensor[] argmax;
    private final Tensor ownSequence;
    private final Tensor sequenceOnHost;
    private Tensor dropoutSequence;
    private @Nullable Parameters parameterGradients;
    private Write write = Write.OVERWRITE;

    private Workspace(Program program, Stream stream) {
      this.program = program;
      this.stream = stream;
      Backend backend = program.backend;
      int count = program.layers.size();
      // In units of four bytes, so that two gigabytes are not the limit of a block.
      int words = Math.toIntExact(Math.ceilDiv(program.plan.size(), 4L));
      this.block = backend.allocate(Shape.of(words), DataType.I32, Layout.ROW_MAJOR);
      this.losses = backend.allocate(Shape.of(program.batch), DataType.F32, Layout.ROW_MAJOR);
      this.correct = backend.allocate(Shape.of(program.batch), DataType.I32, Layout.ROW_MAJOR);
      this.ownSequence = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
      this.sequenceOnHost = Tensor.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
      this.dropoutSequence = ownSequence;
      this.values = new Tensor[count];
      this.gradients = new Tensor[count];
      this.argmax = new Tensor[count];
      DataType type = program.options.type();
      for (int i = 0; i < count; i++) {
        Shape shape = program.batched(program.layers.get(i).extent());
        int at = program.home[i];
        if (program.valueSlot[at] != NONE) {
          values[i] = place(program.valueSlot[at], shape, type);
        }
        int gradient = program.gradientSlot[program.fused[i] ? at : i];
        if (gradient != NONE) {
          gradients[i] = place(gradient, shape, type);
        }
        if (program.argmaxSlot[i] != NONE) {
          argmax[i] = place(program.argmaxSlot[i], shape, DataType.U8);
        }
      }
    }

    private Tensor place(int slot, Shape shape, DataType type) {
      return Tensor.view(block.memory(), program.plan.offset(slot), shape, type, Layout.NHWC);
    }

    private Tensor value(int layer) {
      return values[layer];
    }

    private Tensor gradient(int layer) {
      return gradients[layer];
    }

    private Tensor argmax(int layer) {
      return argmax[layer];
    }

    private Parameters gradients() {
      if (parameterGradients == null) {
        throw new IllegalStateException("backward needs somewhere to write gradients");
      }
      return parameterGradients;
    }

    /** The stream that passes run on. */
    public Stream stream() {
      return stream;
    }

    /**
     * Runs the network.
     *
     * @param images NHWC, of the program's batch and type, on its device; it must stay unchanged
     *     until the backward pass has run
     * @param sequence a number that sets the dropout masks: give each training pass its own
     * @return the logits, NHWC [batch, 1, 1, classes], valid until the next pass
     */
    public Tensor forward(Tensor images, long sequence) {
      stream.synchronize(); // the number before it may still be on its way
      MemorySegment number = sequenceOnHost.segment();
      number.setAtIndex(JAVA_INT_UNALIGNED, 0, (int) sequence);
      number.setAtIndex(JAVA_INT_UNALIGNED, 1, (int) (sequence >>> 32));
      program.backend.copy(stream, sequenceOnHost, ownSequence);
      return forward(images, ownSequence);
    }

    /**
     * Runs the network with a dropout sequence number that lies on the program's device, so that
     * the pass can be recorded.
     *
     * @param images as above
     * @param sequence I32 [2], low word first; it must stay unchanged until the backward pass has
     *     run
     */
    public Tensor forward(Tensor images, Tensor sequence) {
      values[0] = images;
      dropoutSequence = sequence;
      for (Step step : program.forward) {
        step.run(this);
      }
      return values[values.length - 1];
    }

    /** Runs the network without dropout and shows each value before its memory is used again. */
    void forward(Tensor images, Observer observer) {
      values[0] = images;
      for (int s = 0; s < program.forward.size(); s++) {
        program.forward.get(s).run(this);
        int layer = program.completed.get(s);
        observer.value(layer, values[layer]);
      }
    }

    /**
     * Loss, its gradient at the logits, and hits, of the last forward pass.
     *
     * @param labels I32 [batch] on the program's device; -1 marks padding
     * @param gradientScale factor of all gradients, usually 1 / (size of the whole batch)
     */
    public void loss(Tensor labels, float gradientScale) {
      loss(labels, gradientScale, losses, correct);
    }

    /**
     * As {@link #loss(Tensor, float)}, with tensors of the caller for the results.
     *
     * @param lossResults F32 [batch] on the program's device
     * @param correctResults I32 [batch] on the program's device
     */
    public void loss(
        Tensor labels, float gradientScale, Tensor lossResults, Tensor correctResults) {
      int last = values.length - 1;
      program.loss.run(
          stream,
          values[last],
          labels,
          gradientScale,
          gradients[last],
          lossResults,
          correctResults);
    }

    /**
     * Gradients of all parameters, of the last forward pass and loss.
     *
     * @param destination receives them
     * @param mode whether they replace or add to what is there
     */
    public void backward(Parameters destination, Write mode) {
      if (!program.options.training()) {
        throw new IllegalStateException("this program was compiled without a backward pass");
      }
      parameterGradients = destination;
      write = mode;
      for (int i = program.backward.size() - 1; i >= 0; i--) {
        program.backward.get(i).run(this);
      }
      parameterGradients = null;
    }

    /**
     * The first layer whose value in the last forward pass holds a NaN or infinity, among those
     * kept for the backward pass; looks through host memory.
     *
     * @param host copies a value's elements to the host
     * @return its name, or null where all are finite
     */
    public @Nullable String firstNonFinite(Function<Tensor, float[]> host) {
      for (int i = 1; i < values.length; i++) {
        boolean kept = program.home[i] == i && program.heldForBackward[i];
        if (kept || i == values.length - 1) {
          for (float value : host.apply(values[i])) {
            if (!Float.isFinite(value)) {
              return program.layers.get(i).name();
            }
          }
        }
      }
      return null;
    }

    /** Losses of the last {@link #loss}, F32 [batch], on the program's device. */
    public Tensor losses() {
      return losses;
    }

    /** Hits of the last {@link #loss}, I32 [batch], on the program's device. */
    public Tensor correct() {
      return correct;
    }

    /** Releases the values; the stream stays its owner's. */
    @Override
    public void close() {
      block.close();
      losses.close();
      correct.close();
      ownSequence.close();
      sequenceOnHost.close();
    }
  }
}
