package io.jtrelu.nn;

import static io.jtrelu.nn.Fusion.NONE;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.LabelDraw;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.tensor.Turn;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.function.IntConsumer;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * A network compiled for one backend and batch size: prepared operations, packed weights and a
 * memory plan.
 *
 * <p>Compiling decides which layers are fused ({@link Fusion}: a rectifier with the convolution or
 * sum before it, where nothing else reads that value; then only the rectifier's output exists, and
 * in the backward pass its derivative is applied by the reader that contributes last to its
 * gradient, so that a chain has no elementwise pass in either direction; and two convolutions, or
 * the first one and a max-pooling, as one, where the backend gains by it), places values and
 * gradients in one block by their lifetimes ({@link Placement}), and lets each layer prepare its
 * operations and steps ({@link Lowering}). Running is going through the steps with the tensors of a
 * {@link Workspace}; nothing is allocated in a pass.
 *
 * <p>Thread-safe while nobody calls {@link #load}: each thread uses a workspace of its own.
 */
public final class Program implements AutoCloseable {
  /**
   * What a program is compiled for.
   *
   * @param type storage type of activations and their gradients
   * @param labelSmoothing of the built-in loss, in [0, 1)
   * @param training whether there is a backward pass; without one, dropout is the identity and
   *     memory is reused sooner
   * @param seed key of the dropout masks
   * @param inputGradient whether the backward pass goes on to the input: {@link
   *     Workspace#inputGradient}
   * @param fisher form of the {@link FisherSamples} for which there are backward passes; null for
   *     none
   */
  public record Options(
      DataType type,
      float labelSmoothing,
      boolean training,
      long seed,
      boolean inputGradient,
      FisherRows.@Nullable Form fisher) {
    /**
     * @throws IllegalArgumentException for what needs a backward pass without one
     */
    public Options {
      if (inputGradient && !training) {
        throw new IllegalArgumentException(
            "a gradient of the input needs a backward pass: compile for training");
      }
      if (fisher != null && !training) {
        throw new IllegalArgumentException(
            "samples of the Fisher matrix need a backward pass: compile for training");
      }
    }

    /** Without samples of the Fisher matrix. */
    public Options(
        DataType type, float labelSmoothing, boolean training, long seed, boolean inputGradient) {
      this(type, labelSmoothing, training, seed, inputGradient, null);
    }

    /** With samples of the Fisher matrix. */
    public Options withFisher(FisherRows.Form form) {
      return new Options(type, labelSmoothing, training, seed, inputGradient, form);
    }

    /** With samples of the Fisher matrix in the reduce form. */
    public Options withFisher() {
      return withFisher(FisherRows.Form.REDUCE);
    }

    /** Without a gradient of the input. */
    public Options(DataType type, float labelSmoothing, boolean training, long seed) {
      this(type, labelSmoothing, training, seed, false, null);
    }
  }

  /**
   * Device memory that a program with one workspace takes, in bytes.
   *
   * @param activations values and gradients of a pass, placed by lifetime
   * @param weights in packed form
   * @param scratch the most that an operation needs while it runs; they share it
   */
  public record Memory(long activations, long weights, long scratch) {}

  private final Network network;
  private final Backend backend;
  private final int batch;
  private final int parts;
  private final LateGradients.@Nullable Batch late;
  private final Options options;
  private final Fusion fusion;
  private final Placement placement;
  private final Lowering.Result lowered;
  private final Stages<ForwardStep> forward = new Stages<>();
  private final Stages<BackwardStep> backward = new Stages<>();
  private final List<Lowering.Step> backwardForFisher = new ArrayList<>();

  /** Null for a network that is no classifier. */
  private final @Nullable SoftmaxCrossEntropy loss;

  /** Of labels drawn from the prediction: without smoothing. */
  private final @Nullable SoftmaxCrossEntropy drawnLoss;

  private final @Nullable LabelDraw draw;

  private @Nullable Parameters loaded;

  /**
   * @param completes the layer whose value is complete after the step, or NONE
   */
  private record ForwardStep(Lowering.Step step, int completes) {}

  /**
   * @param completes the first of the layers whose parameters have their gradients after the step,
   *     those behind it all being among them; the number of layers where none has
   */
  private record BackwardStep(Lowering.Step step, int completes) {}

  /** Steps in a row, cut where all parts of a batch must meet. */
  private static final class Stages<S> {
    final List<List<S>> stages = new ArrayList<>(List.of(new ArrayList<>()));

    void add(S step, boolean together) {
      if (together) {
        stages.add(new ArrayList<>());
      }
      stages.getLast().add(step);
    }

    /** Puts another step in the place of the last one, if there is any. */
    void replaceLast(UnaryOperator<S> by) {
      if (!stages.getLast().isEmpty()) {
        stages.getLast().set(stages.getLast().size() - 1, by.apply(stages.getLast().getLast()));
      }
    }
  }

  /**
   * Compiles a network. The caller closes the result before the backend.
   *
   * @param batch images per pass
   * @throws io.jtrelu.backend.UnsupportedException if the backend cannot run a layer
   */
  public Program(Network network, Backend backend, int batch, Options options) {
    this(network, backend, batch, 1, null, options);
  }

  /**
   * Compiles a network for one of several equal parts of a batch, which pass side by side, stage by
   * stage: {@link #newExchange}.
   *
   * @param batch images per pass, that is, of a part
   * @param parts of a batch; more than one only for training a network that {@linkplain
   *     Network#looksAtBatches looks at whole batches}
   * @param late the batch that this is a part of, if layers may wait for it: {@link #newLate}
   */
  Program(
      Network network,
      Backend backend,
      int batch,
      int parts,
      LateGradients.@Nullable Batch late,
      Options options) {
    this.network = network;
    this.backend = backend;
    this.batch = batch;
    this.parts = parts;
    this.late = late;
    this.options = options;
    this.fusion = fusion(network, backend, batch, late, options);
    this.placement =
        new Placement(
            fusion, batch, options.type(), network.isClassifier(), options.fisher() != null);
    this.lowered =
        new Lowering.Result(
            network, backend, batch, parts, late == null ? 0 : late.images(), options, fusion);
    try {
      this.loss = network.isClassifier() ? loss(options.labelSmoothing()) : null;
      boolean fisher = network.isClassifier() && options.fisher() != null;
      this.drawnLoss = fisher ? loss(0) : null;
      this.draw =
          fisher ? lowered.own(backend.labelDraw(batch, network.classes(), options.type())) : null;
      lowered.lower();
    } catch (RuntimeException | Error failure) {
      lowered.close();
      throw failure;
    }
    int count = network.layers().size();
    for (int i = 0; i < count; i++) {
      List<Lowering.Placed> steps = lowered.forward.get(i);
      int completed = fusion.activation(i) == NONE ? i : fusion.activation(i);
      for (int s = 0; s < steps.size(); s++) {
        Lowering.Placed placed = steps.get(s);
        int completes = s == steps.size() - 1 ? completed : NONE;
        forward.add(new ForwardStep(placed.step(), completes), placed.together());
      }
    }
    for (int i = count - 1; i >= 0; i--) {
      for (Lowering.BackwardStep step : lowered.backward.get(i)) {
        if (step.purpose() != Lowering.Purpose.FISHER) {
          backward.add(new BackwardStep(step.placed().step(), i + 1), step.placed().together());
        }
        if (step.purpose() != Lowering.Purpose.PARAMETERS) {
          backwardForFisher.add(step.placed().step());
        }
      }
      int layer = i;
      backward.replaceLast(last -> new BackwardStep(last.step(), layer));
    }
  }

  private static Fusion fusion(
      Network network,
      Backend backend,
      int batch,
      LateGradients.@Nullable Batch late,
      Options options) {
    return new Fusion(
        network,
        options.training(),
        options.inputGradient(),
        new Fusion.Abilities() {
          @Override
          public boolean keepsSigns(Layer layer) {
            return layer.keepsSigns(backend, batch, options.type());
          }

          @Override
          public boolean chains(Layer below, Layer layer, Layer.Gradients gradients) {
            return options.fisher() == null // which reads what lies between
                && layer.chains(below, gradients, backend, batch, options.type());
          }

          @Override
          public boolean waits(Layer layer, Layer source) {
            return late != null
                && options.fisher() == null // whose pass ends with gradients of its own
                && late.pays(layer, source, options.type());
          }
        });
  }

  private SoftmaxCrossEntropy loss(float smoothing) {
    return lowered.own(
        backend.softmaxCrossEntropy(batch, network.classes(), options.type(), smoothing));
  }

  /** What a program would take, as far as its convolutions tell; nothing is allocated. */
  public static Memory memory(Network network, Backend backend, int batch, Options options) {
    Fusion fusion = fusion(network, backend, batch, null, options);
    boolean loss = network.isClassifier();
    long placed =
        new Placement(fusion, batch, options.type(), loss, options.fisher() != null).bytes();
    long weights = 0;
    long scratch = 0;
    for (Layer layer : network.layers()) {
      if (layer instanceof ConvolutionLayer convolution) {
        Conv2dDescriptor d = convolution.descriptor().withBatch(batch);
        Rectifier none = Rectifier.IDENTITY;
        try (Conv2d op = backend.conv2d(d, options.type(), none, none)) {
          weights += backend.allocationBytes(op.packedBytes());
          scratch = Math.max(scratch, op.scratchBytes());
        }
      }
    }
    for (int i = 0; i < network.layers().size(); i++) {
      int lower = fusion.lower(i);
      if (lower != NONE) {
        Layer below = network.layers().get(lower);
        long chain = network.layers().get(i).chainScratch(below, backend, batch, options.type());
        scratch = Math.max(scratch, chain);
      }
    }
    int vectors = options.fisher() != null ? 3 : 2; // losses, hits, drawn labels
    long figures = vectors * backend.allocationBytes(4L * batch) + backend.allocationBytes(8);
    long exchange = options.training() ? exchanged(network) : 0;
    if (exchange > 0) {
      figures += backend.allocationBytes(Float.BYTES * exchange);
    }
    return new Memory(backend.allocationBytes(placed) + figures, weights, scratch);
  }

  /** Values that a part of a batch shows to the others. */
  private static long exchanged(Network network) {
    return network.layers().stream().mapToLong(Layer::exchanged).sum();
  }

  /**
   * Allocates what the parts of a batch show each other; null where they do not. The caller closes
   * it.
   */
  @Nullable Tensor newExchange() {
    long values = options.training() ? parts * exchanged(network) : 0;
    return values == 0
        ? null
        : backend.allocate(Shape.of(Math.toIntExact(values)), DataType.F32, Layout.ROW_MAJOR);
  }

  /** Equal parts of a batch that pass side by side. */
  int parts() {
    return parts;
  }

  /**
   * Allocates what is kept of a whole batch for the layers that wait for it; null where none does.
   * The caller closes it, before this.
   */
  @Nullable LateGradients newLate() {
    return late == null || lowered.late.isEmpty()
        ? null
        : new LateGradients(backend, fusion, lowered.late, late.images(), batch, options.type());
  }

  /**
   * Whether each part of a batch has a gradient of its own of a parameter, by its index in {@link
   * Network#parameters}; else its layer waits for the whole batch.
   */
  boolean isPartial(int parameter) {
    return !fusion.isLate(network.parameters().get(parameter).layer());
  }

  /** Stages of the forward pass: where one ends, all parts of a batch meet. */
  int forwardStages() {
    return forward.stages.size();
  }

  /** Stages of the backward pass. */
  int backwardStages() {
    return backward.stages.size();
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
    return placement.heldBytes();
  }

  /** Bytes of a workspace: all activations and gradients, placed by lifetime. */
  public long workspaceBytes() {
    return placement.bytes();
  }

  /**
   * Packs the weights of the parameters' present values. Call it again whenever they change; the
   * arena must stay open while the program runs (biases are read from it).
   *
   * @throws io.jtrelu.backend.OperandException if these are the parameters of another network
   */
  public void load(Stream stream, Parameters parameters) {
    parameters.requireFits(network);
    List<Conv2d.Packing> packings = new ArrayList<>();
    lowered.packed.forEach(
        (parameter, packed) -> packings.add(packed.of(parameters.view(parameter))));
    backend.pack(stream, packings);
    loaded = parameters;
  }

  /**
   * Does what {@link #load} does for one parameter, by its index in {@link Network#parameters};
   * each must have its turn, on any streams.
   */
  void pack(Stream stream, Parameters parameters, int parameter) {
    Lowering.Packed packed = lowered.packed.get(parameter);
    if (packed != null) { // others are read where they are
      packed.operation().pack(stream, parameters.view(parameter), packed.weights());
    }
    if (parameter == 0) {
      loaded = parameters;
    }
  }

  /** Allocates what one thread needs to run this program. The caller closes it. */
  public Workspace newWorkspace(Stream stream) {
    return new Workspace(this, stream, 0, null);
  }

  /**
   * Allocates what one part of a batch needs to run this program. The caller closes it.
   *
   * @param part its number
   * @param exchange what the parts show each other: one for all, of {@link #newExchange}
   */
  Workspace newWorkspace(Stream stream, int part, @Nullable Tensor exchange) {
    return new Workspace(this, stream, part, exchange);
  }

  @Override
  public void close() {
    lowered.close();
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

  /**
   * The values of one pass and the stream it runs on. Used by one thread at a time: while one runs
   * a pass, others, and close, are refused with {@link IllegalStateException}.
   *
   * <p>A training pass is {@link #forward}; then the gradients of the outputs, by {@link #loss} or
   * written by the caller into each {@link #outputGradient}; then {@link #backward}.
   */
  public static final class Workspace implements AutoCloseable {
    private final Program program;
    private final Pass pass;
    private final Tensor block;
    private final Tensor losses;
    private final Tensor correct;
    private final @Nullable Tensor drawnLabels;
    private final Tensor ownSequence;
    private final Tensor sequenceOnHost;
    private final @Nullable Tensor ownExchange;
    private final Turn turn = new Turn("workspace");

    private Workspace(Program program, Stream stream, int part, @Nullable Tensor exchangeOfAll) {
      this.program = program;
      Backend backend = program.backend;
      // In units of four bytes and with two axes, so that an int is not the limit of a block.
      long words = Math.ceilDiv(program.placement.bytes(), 4L);
      this.block = backend.allocate(Parameters.flat(words), DataType.I32, Layout.ROW_MAJOR);
      this.losses = backend.allocate(Shape.of(program.batch), DataType.F32, Layout.ROW_MAJOR);
      this.correct = backend.allocate(Shape.of(program.batch), DataType.I32, Layout.ROW_MAJOR);
      this.drawnLabels =
          program.draw == null
              ? null
              : backend.allocate(Shape.of(program.batch), DataType.I32, Layout.ROW_MAJOR);
      this.ownSequence = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
      this.sequenceOnHost = Tensor.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
      List<Layer> layers = program.network.layers();
      this.pass = new Pass(layers.size(), part, stream, ownSequence);
      this.ownExchange = exchangeOfAll == null ? program.newExchange() : null;
      Tensor exchange = exchangeOfAll == null ? ownExchange : exchangeOfAll;
      long exchangeAt = 0;
      Placement placement = program.placement;
      for (int i = 0; i < layers.size(); i++) {
        Layer layer = layers.get(i);
        DataType type = program.options.type();
        place(pass.values, i, placement.value(i), type);
        place(pass.gradients, i, placement.gradient(i), type);
        DataType reserved = layer.reserve();
        place(pass.reserves, i, placement.reserve(i), reserved == null ? type : reserved);
        if (placement.signs(i) != NONE) {
          Shape value = layer.extent().batch(program.batch);
          long offset = placement.offset(placement.signs(i));
          pass.signs[i] =
              Tensor.view(
                  block.memory(), offset, Conv2d.signs(value), DataType.U8, Layout.ROW_MAJOR);
        }
        if (exchange != null && layer.exchanged() > 0) {
          int values = Math.multiplyExact(program.parts, layer.exchanged());
          pass.exchanges[i] = exchange.slice(exchangeAt, Shape.of(values), Layout.ROW_MAJOR);
          exchangeAt += values;
        }
      }
    }

    private void place(Tensor[] tensors, int node, int slot, DataType type) {
      if (slot != NONE) {
        Shape shape = program.network.layers().get(node).extent().batch(program.batch);
        long offset = program.placement.offset(slot);
        tensors[node] = Tensor.view(block.memory(), offset, shape, type, Layout.NHWC);
      }
    }

    /** The stream that passes run on. */
    public Stream stream() {
      return pass.stream;
    }

    /** Goes on with another stream; work on the one before must be done. */
    void moveTo(Stream stream) {
      pass.stream = stream;
    }

    /**
     * Has the passes to come leave in a larger memory what is kept for the whole batch.
     *
     * @param micro which images of the batch pass, in units of the program's batch
     */
    void keep(LateGradients kept, int micro) {
      turn.take();
      try {
        kept.show(pass, micro);
      } finally {
        turn.give();
      }
    }

    /**
     * Runs the network.
     *
     * @param images NHWC, of the program's batch and type, on its device; it must stay unchanged
     *     until the backward pass has run
     * @param sequence a number that sets the dropout masks: give each training pass its own
     * @return the first output: of a classifier the logits, NHWC [batch, 1, 1, classes]; valid
     *     until the next pass
     */
    public Tensor forward(Tensor images, long sequence) {
      turn.take();
      try {
        number(sequence);
        return forward(images, ownSequence);
      } finally {
        turn.give();
      }
    }

    private void number(long sequence) {
      pass.stream.synchronize(); // the number before it may still be on its way
      MemorySegment number = sequenceOnHost.segment();
      number.setAtIndex(JAVA_INT_UNALIGNED, 0, (int) sequence);
      number.setAtIndex(JAVA_INT_UNALIGNED, 1, (int) (sequence >>> 32));
      program.backend.copy(pass.stream, sequenceOnHost, ownSequence);
    }

    /**
     * Begins a pass of which this workspace has one part; {@link #forward(int)} goes on.
     *
     * @param images of the part, as above
     * @param sequence as above, another one for each part
     */
    void begin(Tensor images, long sequence) {
      turn.take();
      try {
        begin(images);
        number(sequence);
        pass.sequence = ownSequence;
      } finally {
        turn.give();
      }
    }

    /** Runs a stage of the forward pass, when all parts of the batch have run the one before. */
    @SuppressWarnings("try") // what is held needs no name
    void forward(int stage) {
      turn.take();
      try (BackendStream.Use shared = holdShared(null)) {
        for (ForwardStep step : program.forward.stages.get(stage)) {
          step.step.run(pass);
        }
      } finally {
        turn.give();
      }
    }

    /** Runs a stage of the backward pass, likewise; the parameters are those of all stages. */
    void backward(int stage, Parameters destination, Write mode) {
      backward(stage, destination, mode, layer -> {});
    }

    @SuppressWarnings("try") // what is held needs no name
    private void backward(int stage, Parameters destination, Write mode, IntConsumer completed) {
      turn.take();
      try {
        program.requireTraining();
        destination.requireFits(program.network);
        pass.parameterGradients = destination;
        pass.write = mode;
        try (BackendStream.Use shared = holdShared(destination)) {
          for (BackwardStep step : program.backward.stages.get(stage)) {
            step.step.run(pass);
            completed.accept(step.completes);
          }
        }
        pass.parameterGradients = null;
      } finally {
        turn.give();
      }
    }

    /**
     * Runs the network with a dropout sequence number that lies on the program's device, so that
     * the pass can be recorded.
     *
     * @param images as above
     * @param sequence I32 [2], low word first; it must stay unchanged until the backward pass has
     *     run
     * @return the first output, as above
     */
    @SuppressWarnings("try") // what is held needs no name
    public Tensor forward(Tensor images, Tensor sequence) {
      turn.take();
      try {
        begin(images);
        pass.sequence = sequence;
        try (BackendStream.Use shared = holdShared(null)) {
          for (List<ForwardStep> stage : program.forward.stages) {
            for (ForwardStep step : stage) {
              step.step.run(pass);
            }
          }
        }
        return output(0);
      } finally {
        turn.give();
      }
    }

    /**
     * Begins a pass: what most of its operations work on is held once for all of them, which costs
     * small networks less than each of them holding it again.
     */
    private BackendStream.@Nullable Use holdShared(@Nullable Parameters gradients) {
      if (!(pass.stream instanceof BackendStream stream)) {
        return null; // each operation says what is wrong with it
      }
      BackendStream.Use use = stream.use("network");
      try {
        use.reads(block);
        hold(use, pass.parameters);
        hold(use, gradients);
        return use;
      } catch (RuntimeException closed) {
        use.close();
        throw closed;
      }
    }

    private static void hold(BackendStream.Use use, @Nullable Parameters parameters) {
      Tensor block = parameters == null ? null : parameters.block();
      if (block != null) {
        use.reads(block);
      }
    }

    /** Runs the network without dropout and shows each value before its memory is used again. */
    void forward(Tensor images, Observer observer) {
      turn.take();
      try {
        begin(images);
        for (List<ForwardStep> stage : program.forward.stages) {
          for (ForwardStep step : stage) {
            step.step.run(pass);
            if (step.completes != NONE) {
              observer.value(step.completes, pass.values[step.completes]);
            }
          }
        }
      } finally {
        turn.give();
      }
    }

    private void begin(Tensor images) {
      pass.parameters = program.loaded;
      for (int i = 0; i < pass.values.length; i++) {
        if (program.fusion.home(i) == 0) {
          pass.values[i] = images;
        }
      }
    }

    /**
     * An output of the last forward pass.
     *
     * @param index in {@link Network#outputs}
     * @return NHWC, of the program's batch and type, on its device; valid until the next pass
     */
    public Tensor output(int index) {
      return pass.values[program.network.outputs().get(index)];
    }

    /**
     * Where the gradient of the loss with respect to an output comes from outside: all of it is to
     * be written between the forward and the backward pass, which overwrites it.
     *
     * @param index in {@link Network#outputs}
     * @return of the shape and type of the output, on its device
     * @throws IllegalStateException if there is no backward pass
     */
    public Tensor outputGradient(int index) {
      program.requireTraining();
      return pass.gradients[program.network.outputs().get(index)];
    }

    /**
     * Gradient of the loss with respect to the images, left by the last backward pass.
     *
     * @return of the images' shape and type, on the program's device; valid until the next pass
     * @throws IllegalStateException if the program was not compiled with it
     */
    public Tensor inputGradient() {
      if (!program.options.inputGradient()) {
        throw new IllegalStateException(
            "this program was compiled without a gradient of the input; ask for it in its options");
      }
      return pass.gradients[0];
    }

    /**
     * Loss, its gradient at the logits, and hits, of the last forward pass.
     *
     * @param labels I32 [batch] on the program's device; -1 marks padding
     * @param gradientScale factor of all gradients, usually 1 / (size of the whole batch)
     * @throws IllegalStateException if the network is no {@linkplain Network#isClassifier
     *     classifier}
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
      turn.take();
      try {
        run(program.loss, labels, gradientScale, lossResults, correctResults);
      } finally {
        turn.give();
      }
    }

    private void run(
        @Nullable SoftmaxCrossEntropy loss,
        Tensor labels,
        float gradientScale,
        Tensor lossResults,
        Tensor correctResults) {
      if (loss == null) {
        throw program.network.noClassifier("the built-in loss");
      }
      int logits = program.network.outputs().getFirst();
      loss.run(
          pass.stream,
          pass.values[logits],
          labels,
          gradientScale,
          pass.gradients[logits],
          lossResults,
          correctResults);
    }

    /**
     * Labels drawn from the prediction of the last forward pass: see {@link LabelDraw}.
     *
     * @param labels I32 [batch] on the program's device; -1 marks padding, which stays
     * @param sequence I32 [2] on the program's device, low word first
     * @param first sample of the whole batch that the first one is
     * @return I32 [batch], on the program's device; valid until the next call
     * @throws IllegalStateException as {@link #fisher}
     */
    public Tensor drawLabels(Tensor labels, long seed, Tensor sequence, int first) {
      turn.take();
      try {
        LabelDraw draw = program.draw;
        if (draw == null || drawnLabels == null) {
          throw program.noFisher();
        }
        draw.run(pass.stream, output(0), labels, seed, sequence, first, drawnLabels);
        return drawnLabels;
      } finally {
        turn.give();
      }
    }

    /**
     * What the samples of the last forward pass tell of the Fisher matrix: their gradients for
     * labels that the caller drew from the prediction, or for their own. {@link #loss} and {@link
     * #backward} come afterwards, of the same forward pass.
     *
     * @param labels I32 [batch] on the program's device; -1 for a sample whose gradients are zero
     * @param destination receives the rows
     * @param first row of the first sample
     * @throws IllegalStateException if the program was not compiled for it, or the network is no
     *     {@linkplain Network#isClassifier classifier}
     */
    @SuppressWarnings("try") // what is held needs no name
    public void fisher(Tensor labels, FisherSamples destination, int first) {
      turn.take();
      try {
        if (program.options.fisher() == null) {
          throw program.noFisher();
        }
        run(program.drawnLoss, labels, 1, losses, correct);
        pass.samples = destination;
        pass.firstSample = first;
        try (BackendStream.Use shared = holdShared(null)) {
          for (Lowering.Step step : program.backwardForFisher) {
            step.run(pass);
          }
        }
        pass.samples = null;
      } finally {
        turn.give();
      }
    }

    /**
     * Gradients of all parameters (and of the images, if asked for), of the last forward pass and
     * the gradients of its outputs. Once per forward pass: it overwrites what it has used.
     *
     * @param destination receives them
     * @param mode whether they replace or add to what is there
     * @throws IllegalStateException if there is no backward pass
     * @throws io.jtrelu.backend.OperandException if these are the gradients of another network
     */
    public void backward(Parameters destination, Write mode) {
      backward(destination, mode, layer -> {});
    }

    /**
     * As above, and tells what can be used before the pass has ended.
     *
     * @param completed called after each piece of work with the index of a layer: when the stream's
     *     work so far is done, the gradients of its parameters are complete, and those of all
     *     layers behind it. It may give work to the stream, and mark events
     */
    public void backward(Parameters destination, Write mode, IntConsumer completed) {
      turn.take();
      try {
        for (int stage = 0; stage < program.backwardStages(); stage++) {
          backward(stage, destination, mode, completed);
        }
      } finally {
        turn.give();
      }
    }

    /**
     * The first layer whose value in the last forward pass holds a NaN or infinity, among those
     * kept for the backward pass and the outputs; looks through host memory.
     *
     * @param host copies a value's elements to the host
     * @return its name, or null where all are finite
     */
    public @Nullable String firstNonFinite(Function<Tensor, float[]> host) {
      for (int i = 1; i < pass.values.length; i++) {
        if (program.placement.isHeld(i) || program.fusion.isOutput(i)) {
          for (float value : host.apply(pass.values[i])) {
            if (!Float.isFinite(value)) {
              return program.network.layers().get(i).name();
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
      turn.close();
      block.close();
      losses.close();
      correct.close();
      if (drawnLabels != null) {
        drawnLabels.close();
      }
      ownSequence.close();
      sequenceOnHost.close();
      if (ownExchange != null) {
        ownExchange.close();
      }
    }
  }

  private IllegalStateException noFisher() {
    return new IllegalStateException(
        "this program was compiled without samples of the Fisher matrix; ask for them in its"
            + " options");
  }

  private void requireTraining() {
    if (!options.training()) {
      throw new IllegalStateException("this program was compiled without a backward pass");
    }
  }
}
