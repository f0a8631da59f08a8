package io.jtrelu.nn;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.tensor.Turn;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Runs a network over batches, as micro-batches spread over the backend's lanes.
 *
 * <p>Without batch statistics the samples of a batch are independent from input to loss and back,
 * so a lane takes a micro-batch through the whole network with no barrier between layers, its
 * activations in cache. A batch is cut into a fixed number of parts; each part sums the gradients
 * of its micro-batches in order, and the parts are added in order: results do not depend on the
 * number of lanes. (Layers with many parameters and few values wait for all parts instead, and have
 * one gradient of the whole batch; with shards they do not.) What follows a batch is shared
 * likewise: the sum of the parts and the norm of the gradient by slices of fixed size, the update
 * and the packing by parameter.
 *
 * <p>A network that {@linkplain Network#looksAtBatches looks at whole batches} is trained on the
 * parts side by side, and all meet at each layer that does: activations of the whole batch are
 * held, and lanes wait for each other. It takes no micro-batches and no batches that are not full.
 * Otherwise than in training it is like any other.
 *
 * <p>An executor of {@link Shards} computes some parts of a batch that several executors, of this
 * process or of others, compute together.
 *
 * <p>Owns its threads, streams and programs. Used by one thread at a time: during a call others,
 * and close, are refused with {@link IllegalStateException}, as is use after close. The tensors of
 * a call are used by the lanes' threads, so they cannot be wrapped memory of a confined arena.
 */
public final class BatchExecutor implements AutoCloseable {
  /**
   * Activations of a layer that a micro-batch should fill at most: with those before and after and
   * the weights they then stay in a second-level cache.
   */
  private static final long LAYER_BYTES = 192 * 1024;

  /**
   * Activations that a micro-batch may fill for each byte of a layer's weights: weights are read
   * once a micro-batch (and more of them than here, as Winograd's methods transform them), which
   * should not dominate.
   */
  private static final int BYTES_PER_WEIGHT_BYTE = 4;

  /**
   * A micro-batch leaves at least this many, for lanes to share; where only the weights ask for a
   * larger one, as many as there are parts.
   */
  private static final int LEAST_MICRO_BATCHES = 4;

  /**
   * Sums over one batch.
   *
   * @param loss sum of the samples' losses
   * @param correct number of samples whose largest logit is their label's
   */
  public record Result(double loss, int correct) {}

  /**
   * Consecutive ones of the equal parts that a batch is divided into, whose gradients add up in a
   * balanced binary tree over all of them: the sum over an aligned block of a power of two is a
   * node of the tree, so that the whole sum has the same bits however the shards are shared out.
   *
   * @param total parts of the whole batch, a power of two
   * @param first index of the first one here, a multiple of the count
   * @param count those here, a power of two
   */
  public record Shards(int total, int first, int count) {
    /**
     * @throws IllegalArgumentException if they are no node of the tree
     */
    public Shards {
      if (Integer.bitCount(total) != 1
          || Integer.bitCount(count) != 1
          || count > total
          || first < 0
          || first % count != 0
          || first >= total) {
        throw new IllegalArgumentException(
            "shards are an aligned block of a power of two, of a power of two; got "
                + count
                + " from "
                + first
                + " of "
                + total);
      }
    }

    /**
     * Refuses a network that is another one in shards.
     *
     * @throws IllegalArgumentException if it {@linkplain Network#looksAtBatches looks at whole
     *     batches}
     */
    public static void requireFit(Network network) {
      if (network.looksAtBatches()) {
        throw new IllegalArgumentException(
            "network "
                + network
                + " normalises over batches: a shard would see statistics of its own, and train"
                + " another network; leave shards out");
      }
    }
  }

  private final Backend backend;
  private final Program program;
  private final int batch;
  private final @Nullable Shards shards;
  private final int parts;
  private final int microBatches;
  private final int laneCount;
  private final Lanes<Lane> lanes;

  /** Of each part of a batch where parts meet; else empty, and each lane has its own. */
  private final List<Seat> seats = new ArrayList<>();

  private final @Nullable Tensor exchange;
  private final List<Parameters> partGradients = new ArrayList<>();
  private final Turn turn = new Turn("batch executor");
  private final @Nullable GradientSlices slices; // null without a backward pass

  /** Null where no layer waits for the whole batch. */
  private final @Nullable LateGradients late;

  /**
   * Samples of the Fisher matrix to be taken along.
   *
   * @param samples receives a row for each sample of the batch
   * @param drawn whether labels are drawn from the prediction, so that the samples are those of the
   *     Fisher matrix; else they are the samples' own, of the empirical one
   * @param seed of the labels; the sequence number of the pass makes them others in each
   */
  public record Fisher(FisherSamples samples, boolean drawn, long seed) {}

  /** A stream, used by one thread at a time. */
  private final class Lane implements AutoCloseable {
    final Stream stream;
    final Tensor norm; // of a slice of the gradient, and its clipping factor
    private final @Nullable Seat own;

    Lane(Stream stream) {
      this.stream = stream;
      this.own = program.parts() > 1 ? null : new Seat(program.newWorkspace(stream));
      this.norm = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
    }

    /** Where it works on a part of a batch. */
    Seat seat(int part) {
      if (own != null) {
        return own;
      }
      Seat seat = seats.get(part);
      seat.workspace.moveTo(stream);
      return seat;
    }

    @Override
    public void close() {
      if (own != null) {
        own.close();
      }
      norm.close();
    }
  }

  /** What passes work on: a workspace and images on their way to it. */
  private final class Seat implements AutoCloseable {
    private final Shape shape = program.network().input().batch(program.batch());
    private final Shape one = Shape.of(program.batch());
    private final Deque<Tensor> owned = new ArrayDeque<>();

    final Program.Workspace workspace;
    final Tensor losses;
    final Tensor correct;

    /** Whether a host tensor can be computed on as it is. */
    private final boolean direct =
        backend.device().equals(Device.CPU) && program.options().type() == DataType.F32;

    private final Tensor labelsOnHost;
    private @Nullable Tensor drawNumber; // that sets the drawn labels
    private @Nullable Tensor drawNumberOnHost;
    private @Nullable Tensor images; // staging, where the caller's cannot be used directly
    private @Nullable Tensor labels;

    Seat(Program.Workspace workspace) {
      this.workspace = workspace;
      losses = own(Tensor.allocate(one, DataType.F32, Layout.ROW_MAJOR));
      correct = own(Tensor.allocate(one, DataType.I32, Layout.ROW_MAJOR));
      labelsOnHost = own(Tensor.allocate(one, DataType.I32, Layout.ROW_MAJOR));
    }

    private Stream stream() {
      return workspace.stream();
    }

    private Tensor own(Tensor tensor) {
      owned.push(tensor);
      return tensor;
    }

    /** Runs the network on a micro-batch. */
    void forward(Tensor batch, int micro, long sequence) {
      if (late != null) {
        workspace.keep(late, micro);
      }
      workspace.forward(images(batch, micro), sequence);
    }

    /** The images of a micro-batch; zeros behind the end of the batch. */
    Tensor images(Tensor batch, int micro) {
      int rows = rows(batch, micro);
      Tensor source = slice(batch, micro, rows);
      boolean whole = rows == program.batch();
      if (whole && direct) {
        return source;
      }
      if (images == null) {
        images = own(backend.allocate(shape, program.options().type(), Layout.NHWC));
      }
      if (!whole) {
        backend.fill(stream(), images, 0);
      }
      backend.copy(stream(), source, images.slice(0, source.shape(), Layout.NHWC));
      return images;
    }

    /** The labels of a micro-batch; -1 behind the end of the batch. */
    Tensor labels(Tensor batch, int micro) {
      int rows = rows(batch, micro);
      Tensor source = slice(batch, micro, rows);
      if (rows < program.batch()) {
        for (int i = rows; i < program.batch(); i++) {
          labelsOnHost.put(i, -1);
        }
        labelsOnHost.slice(0, source.shape(), source.layout()).segment().copyFrom(source.segment());
        source = labelsOnHost;
      }
      if (direct) {
        return source;
      }
      if (labels == null) {
        labels = own(backend.allocate(one, DataType.I32, Layout.ROW_MAJOR));
      }
      backend.copy(stream(), source, labels);
      return labels;
    }

    /** Loss of a micro-batch, after the rows of its Fisher matrix where they are asked for. */
    void loss(Tensor batchLabels, int micro, float scale, @Nullable Fisher fisher, long sequence) {
      if (fisher != null) {
        fisher(fisher, batchLabels, micro, sequence);
      }
      workspace.loss(labels(batchLabels, micro), scale);
    }

    /** The rows of a micro-batch. */
    private void fisher(Fisher fisher, Tensor batchLabels, int micro, long sequence) {
      Tensor labels = labels(batchLabels, micro);
      int first = (firstMicroBatch() + micro) * program.batch();
      if (fisher.drawn()) {
        labels = workspace.drawLabels(labels, fisher.seed(), drawNumber(sequence), first);
      }
      workspace.fisher(labels, fisher.samples(), first);
    }

    /** On the device, low word first. */
    private Tensor drawNumber(long sequence) {
      if (drawNumber == null || drawNumberOnHost == null) {
        drawNumber = own(backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR));
        drawNumberOnHost = own(Tensor.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR));
      }
      stream().synchronize(); // the number before it may still be on its way
      drawNumberOnHost.segment().setAtIndex(JAVA_INT_UNALIGNED, 0, (int) sequence);
      drawNumberOnHost.segment().setAtIndex(JAVA_INT_UNALIGNED, 1, (int) (sequence >>> 32));
      backend.copy(stream(), drawNumberOnHost, drawNumber);
      return drawNumber;
    }

    @Override
    public void close() {
      workspace.close();
      while (!owned.isEmpty()) {
        owned.pop().close();
      }
    }
  }

  /** Rows of a batch that a micro-batch covers. */
  private int rows(Tensor batch, int micro) {
    return Math.min(program.batch(), batch.shape().dim(0) - micro * program.batch());
  }

  private Tensor slice(Tensor tensor, int micro, int rows) {
    int[] dims = tensor.shape().dims();
    long row = tensor.shape().elements() / dims[0];
    dims[0] = rows;
    return tensor.slice(row * micro * program.batch(), Shape.of(dims), tensor.layout());
  }

  /**
   * Compiles a network for batches of a size.
   *
   * @param batch images per call
   * @param microBatch images that pass through the network together; must divide batch. See {@link
   *     #microBatch}
   * @throws IllegalStateException if the network is no {@linkplain Network#isClassifier classifier}
   */
  public BatchExecutor(
      Network network, Backend backend, int batch, int microBatch, Program.Options options) {
    this(network, backend, batch, microBatch, options, null);
  }

  /**
   * Compiles a network for shards of batches: calls take whole shards, and leave a gradient for
   * each of them until {@link #addShards}.
   *
   * @param batch images of a whole batch; the shards' number must divide it
   * @param microBatch must divide a shard
   * @throws IllegalStateException if the network is no {@linkplain Network#isClassifier classifier}
   * @throws IllegalArgumentException likewise, or if the network {@linkplain Network#looksAtBatches
   *     looks at whole batches}
   */
  public static BatchExecutor ofShards(
      Network network,
      Backend backend,
      int batch,
      int microBatch,
      Program.Options options,
      Shards shards) {
    Shards.requireFit(network);
    if (batch % shards.total() != 0 || batch / shards.total() % microBatch != 0) {
      throw new IllegalArgumentException(
          "a batch of "
              + batch
              + " does not divide into "
              + shards.total()
              + " shards of micro-batches of "
              + microBatch);
    }
    int here = batch / shards.total() * shards.count();
    return new BatchExecutor(network, backend, here, microBatch, options, shards);
  }

  private BatchExecutor(
      Network network,
      Backend backend,
      int batch,
      int microBatch,
      Program.Options options,
      @Nullable Shards shards) {
    if (!network.isClassifier()) {
      throw network.noClassifier("the loss that a batch executor computes");
    }
    if (batch < 1 || microBatch < 1 || batch % microBatch != 0) {
      throw new IllegalArgumentException(
          "a batch of " + batch + " does not divide into micro-batches of " + microBatch);
    }
    this.backend = backend;
    this.batch = batch;
    this.shards = shards;
    boolean meeting = options.training() && network.looksAtBatches();
    if (meeting && microBatch != batch) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " normalises over batches: a micro-batch of "
              + microBatch
              + " of a batch of "
              + batch
              + " would see statistics of its own, and train another network; leave micro-batches"
              + " out");
    }
    int together = meeting && !backend.takesWholeBatches() ? meetingParts(batch) : 1;
    int size = microBatch / together;
    this.microBatches = batch / size;
    this.parts = shards == null ? Math.min(Lanes.MAX_PARTS, microBatches) : shards.count();
    this.laneCount = Math.min(backend.lanes(), parts);
    boolean alone = options.training() && shards == null && !meeting;
    LateGradients.Batch whole = alone ? new LateGradients.Batch(batch, parts) : null;
    this.program = new Program(network, backend, size, together, whole, options);
    LateGradients kept = null;
    Lanes<Lane> made = null;
    Tensor shown = null;
    try {
      kept = program.newLate();
      this.late = kept;
      shown = together > 1 ? program.newExchange() : null;
      this.exchange = shown;
      made = new Lanes<>(backend, laneCount, Lane::new);
      this.lanes = made;
      if (together > 1) {
        made.share(1, (lane, all) -> addSeats(lane.stream));
      }
      if (options.training()) {
        for (int part = 1; part < parts; part++) {
          partGradients.add(Parameters.allocate(network, backend, program::isPartial));
        }
        slices = new GradientSlices();
      } else {
        slices = null;
      }
    } catch (RuntimeException | Error failure) {
      close(made, null, shown, kept);
      throw failure;
    }
  }

  private void addSeats(Stream stream) {
    for (int part = 0; part < parts; part++) {
      seats.add(new Seat(program.newWorkspace(stream, part, exchange)));
    }
  }

  /** Equal parts of a batch that meet, as many as lanes may work on: a function of it alone. */
  private static int meetingParts(int batch) {
    int count = Math.min(Lanes.MAX_PARTS, batch);
    while (batch % count != 0) {
      count--;
    }
    return count;
  }

  /**
   * The micro-batch for a batch: the whole batch where the backend takes it so; else the largest
   * divisor for which a layer's activations stay in cache (on average) and four micro-batches
   * remain, or are few against its weights and eight remain. It depends on network, type and batch
   * alone, so that results do not depend on the machine's cores.
   */
  public static int microBatch(Network network, Backend backend, DataType type, int batch) {
    if (backend.takesWholeBatches()) {
      return batch;
    }
    List<Layer> layers =
        network.layers().stream().filter(layer -> !layer.parameters().isEmpty()).toList();
    double bytes =
        layers.stream().mapToLong(layer -> layer.extent().elements()).average().orElse(1)
            * type.bytes();
    double weights =
        network.parameters().stream()
                .filter(spec -> spec.kind() == ParameterSpec.Kind.WEIGHTS)
                .mapToLong(spec -> spec.shape().elements())
                .average()
                .orElse(0)
            * type.bytes();
    int best = 1;
    for (int size = 2; batch / size >= LEAST_MICRO_BATCHES; size++) {
      boolean cached = size * bytes <= LAYER_BYTES;
      boolean amortizes =
          size * bytes <= BYTES_PER_WEIGHT_BYTE * weights && batch / size >= Lanes.MAX_PARTS;
      if (batch % size == 0 && (cached || amortizes)) {
        best = size;
      }
    }
    return best;
  }

  /** The program that lanes run. */
  public Program program() {
    return program;
  }

  /**
   * Bytes of activations held for the backward pass, over all lanes, and of what is kept for layers
   * that wait for the whole batch.
   */
  public long activationBytes() {
    return program.activationBytes() * (seats.isEmpty() ? laneCount : parts)
        + (late == null ? 0 : late.bytes());
  }

  /** Packs the parameters' present values; call it again whenever they change. */
  public void load(Parameters parameters) {
    update(parameters, (stream, parameter) -> {});
  }

  /** Work that is done for each of several things, such as a change of a parameter in place. */
  public interface Task {
    /**
     * Does it for one of them.
     *
     * @param stream to work on; the others may be done on other streams meanwhile
     * @param index of the thing
     */
    void run(Stream stream, int index);
  }

  /**
   * Does independent work, shared among the lanes, and waits until all is done. What is computed
   * does not depend on the number of lanes if each piece is computed from what no other writes.
   *
   * @param task called once for each index below count, by several threads at once
   */
  public void share(int count, Task task) {
    turn.take();
    try {
      lanes.share(count, (lane, index) -> task.run(lane.stream, index));
    } finally {
      turn.give();
    }
  }

  /**
   * Updates each parameter and packs its new value.
   *
   * @param update called once for each index in {@link Network#parameters}, by several threads at
   *     once
   */
  public void update(Parameters parameters, Task update) {
    parameters.requireFits(program.network());
    turn.take();
    try {
      lanes.share(
          parameters.network().parameters().size(),
          (lane, parameter) -> {
            update.run(lane.stream, parameter);
            program.pack(lane.stream, parameters, parameter);
          });
    } finally {
      turn.give();
    }
  }

  /**
   * Loss and gradients of a batch, or of one that is smaller: it counts as filled up with zero
   * images of label -1, which add nothing, and micro-batches of nothing else are left out.
   *
   * @param images host NHWC [n, h, w, c], F32, of 1 to batch images
   * @param labels host I32 [n]; -1 marks padding
   * @param gradients receives the mean gradient over the batch
   * @param mode whether gradients replace or add to what is there
   * @param gradientScale factor of the gradients, usually 1 / (number of samples in the step)
   * @param sequence a number that sets the dropout masks: give each step its own
   * @throws OperandException if images and labels do not fit
   */
  public Result forwardBackward(
      Tensor images,
      Tensor labels,
      Parameters gradients,
      Write mode,
      float gradientScale,
      long sequence) {
    return forwardBackward(images, labels, gradients, mode, gradientScale, sequence, null);
  }

  /**
   * As above, and what the samples tell of the Fisher matrix on the way, by a second backward pass.
   *
   * @param fisher null for nothing of the kind
   */
  public Result forwardBackward(
      Tensor images,
      Tensor labels,
      Parameters gradients,
      Write mode,
      float gradientScale,
      long sequence,
      @Nullable Fisher fisher) {
    gradients.requireFits(program.network());
    turn.take();
    try {
      if (shards != null) {
        throw new IllegalStateException("this executor computes shards: call shards(...)");
      }
      if (program.network().looksAtBatches() && images.shape().dim(0) != batch) {
        throw new OperandException(
            "network "
                + program.network()
                + " normalises over batches and was compiled for "
                + batch
                + " images; got "
                + images
                + ", and padding would count as images");
      }
      List<Result> results =
          run(
              images,
              labels,
              (seat, part, micro) -> {
                seat.loss(labels, micro, gradientScale, fisher, sequence);
                if (seats.isEmpty()) {
                  boolean first = micro < parts;
                  seat.workspace.backward(
                      gradientsOf(part, gradients),
                      !first ? Write.ACCUMULATE : part == 0 ? mode : Write.OVERWRITE);
                }
              },
              sequence * microBatches);
      for (int stage = 0; !seats.isEmpty() && stage < program.backwardStages(); stage++) {
        int at = stage;
        lanes.share(
            parts,
            (lane, part) ->
                lane.seat(part)
                    .workspace
                    .backward(
                        at, gradientsOf(part, gradients), part == 0 ? mode : Write.OVERWRITE));
      }
      int passed = microBatches(images);
      if (late != null) {
        late.compute(lanes, lane -> lane.stream, passed, gradients, mode);
      }
      GradientSlices all = trainingSlices();
      int used = Math.min(parts, passed);
      lanes.share(all.count, (lane, slice) -> all.sum(lane, gradients.arena(), slice, used));
      return total(results);
    } finally {
      turn.give();
    }
  }

  /**
   * Loss and gradients of an executor's shards of a batch, where the gradients stay apart: see
   * {@link #addShards}.
   *
   * @param images host NHWC [n, h, w, c], F32: those of the shards, all of them
   * @param labels host I32 [n]
   * @param gradients those of the first shard here
   * @param mode whether each shard's gradients replace or add to those that it left before
   * @param gradientScale as in {@link #forwardBackward}
   * @param sequence likewise, the same for all shards of a batch
   * @param fisher null for nothing; else the rows of these shards' samples are written
   * @return of each shard
   * @throws OperandException if images and labels do not fit
   */
  public List<Result> shards(
      Tensor images,
      Tensor labels,
      Parameters gradients,
      Write mode,
      float gradientScale,
      long sequence,
      @Nullable Fisher fisher) {
    gradients.requireFits(program.network());
    turn.take();
    try {
      Shards here = requireShards();
      int each = microBatches / parts;
      List<Result> results =
          run(
              images,
              labels,
              (seat, part, micro) -> {
                seat.loss(labels, micro, gradientScale, fisher, sequence);
                boolean first = micro % each == 0;
                seat.workspace.backward(
                    gradientsOf(part, gradients), first ? mode : Write.ACCUMULATE);
              },
              sequence * each * here.total() + firstMicroBatch());
      List<Result> ofShards = new ArrayList<>();
      for (int part = 0; part < parts; part++) {
        ofShards.add(total(results.subList(part * each, (part + 1) * each)));
      }
      return ofShards;
    } finally {
      turn.give();
    }
  }

  /**
   * Adds up the gradients that {@link #shards} left, in a balanced binary tree.
   *
   * @param gradients those of the first shard here; receives the sum. The others' are spoilt
   */
  public void addShards(Parameters gradients) {
    gradients.requireFits(program.network());
    turn.take();
    try {
      requireShards();
      GradientSlices all = trainingSlices();
      lanes.share(all.count, (lane, slice) -> all.addShards(lane, gradients.arena(), slice));
    } finally {
      turn.give();
    }
  }

  private Shards requireShards() {
    if (shards == null) {
      throw new IllegalStateException("this executor computes whole batches, not shards");
    }
    return shards;
  }

  /** Index in the whole batch of the first micro-batch here. */
  private int firstMicroBatch() {
    return shards == null ? 0 : shards.first() * (microBatches / parts);
  }

  private Parameters gradientsOf(int part, Parameters first) {
    return part == 0 ? first : partGradients.get(part - 1);
  }

  private static Result total(List<Result> results) {
    double loss = 0;
    int hits = 0;
    for (Result result : results) {
      loss += result.loss();
      hits += result.correct();
    }
    return new Result(loss, hits);
  }

  /**
   * Norm of the gradients that {@link #forwardBackward} left last, from the norms of their slices,
   * and the factor that clips it: see {@link GradientNorm}.
   *
   * @param maxNorm largest norm left alone; infinity clips nothing
   * @param result F32 [2] on the device
   */
  public void gradientNorm(Stream stream, float maxNorm, Tensor result) {
    turn.take();
    try {
      GradientSlices all = trainingSlices();
      all.norm.run(stream, all.norms, maxNorm, result);
    } finally {
      turn.give();
    }
  }

  /**
   * Adds up terms in a balanced binary tree, in place.
   *
   * <pre>
   * (t0 + t1) + (t2 + t3)      rounded to F32 after each
   * </pre>
   *
   * @param sum for tensors of the terms' size
   * @param terms a power of two of them; the first receives the sum, the others are spoilt
   */
  public static void addTree(GradientSum sum, Stream on, List<Tensor> terms) {
    addTree(sum, on, terms, 0);
  }

  /**
   * As above, with the same bits, as it does not matter which of two terms comes first.
   *
   * @param to index of the term that receives the sum
   */
  public static void addTree(GradientSum sum, Stream on, List<Tensor> terms, int to) {
    for (int step = 1; step < terms.size(); step *= 2) {
      for (int i = 0; i < terms.size(); i += 2 * step) {
        int kept = to / (2 * step) * (2 * step) == i ? to : i;
        int other = kept < i + step ? i + step : i;
        sum.run(on, terms.get(kept), List.of(terms.get(other)));
      }
    }
  }

  private GradientSlices trainingSlices() {
    if (slices == null) {
      throw new IllegalStateException("this executor was compiled without a backward pass");
    }
    return slices;
  }

  /**
   * Gradients in slices that stay in cache: a lane adds the parts' slices to that of the first part
   * and takes the norm of the sum. A device that takes whole batches takes one slice. A slice holds
   * parameters of which all parts have gradients, or those of which none has.
   */
  private final class GradientSlices implements AutoCloseable {
    private static final int ELEMENTS = 1 << 14; // of a slice

    final int count;
    final Tensor norms;

    /** Of the slices' norms. */
    final GradientNorm norm;

    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private final List<Slice> list = new ArrayList<>();

    /** Operations for slices of one size. */
    private record Operations(GradientSum sum, GradientNorm norm) {}

    private record Slice(long at, long elements, Operations operations, List<Tensor> parts) {}

    GradientSlices() {
      try {
        Map<Long, Operations> bySize = new HashMap<>();
        long inParts = 0;
        List<ParameterSpec> specs =
            program.network().parameters().stream()
                .filter(spec -> !spec.kind().isStatistic()) // they come last
                .toList();
        for (int first = 0, end; first < specs.size(); first = end) {
          boolean partial = program.isPartial(first);
          for (end = first + 1; end < specs.size() && program.isPartial(end) == partial; ) {
            end++;
          }
          long from = specs.get(first).offset();
          long elements = specs.get(end - 1).end() - from;
          long most = backend.takesWholeBatches() ? elements : Math.min(ELEMENTS, elements);
          for (long at = 0; at < elements; at += most) {
            long size = Math.min(most, elements - at);
            List<Tensor> parts = new ArrayList<>();
            if (partial) {
              for (Parameters part : partGradients) {
                Tensor block = Objects.requireNonNull(part.block());
                parts.add(block.slice(inParts, Parameters.flat(size), Layout.ROW_MAJOR));
              }
              inParts += size;
            }
            Operations operations = bySize.computeIfAbsent(size, this::operations);
            list.add(new Slice(from + at, size, operations, parts));
          }
        }
        count = list.size();
        norms = own(backend.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR));
        norm = own(backend.gradientNorm(count));
      } catch (RuntimeException | Error failure) {
        close();
        throw failure;
      }
    }

    private Operations operations(long elements) {
      return new Operations(
          own(backend.gradientSum(elements)), own(backend.gradientNorm(elements)));
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    /**
     * @param used parts that hold gradients, the first included
     */
    void sum(Lane lane, Tensor gradients, int index, int used) {
      Slice slice = list.get(index);
      Tensor gradient =
          gradients.slice(slice.at, Parameters.flat(slice.elements), Layout.ROW_MAJOR);
      if (!slice.parts.isEmpty()) {
        slice.operations.sum.run(lane.stream, gradient, slice.parts.subList(0, used - 1));
      }
      slice.operations.norm.run(lane.stream, gradient, Float.POSITIVE_INFINITY, lane.norm);
      backend.copy(lane.stream, scalar(lane.norm, 0), scalar(norms, index));
    }

    void addShards(Lane lane, Tensor gradients, int index) {
      Slice slice = list.get(index);
      List<Tensor> tree = new ArrayList<>();
      tree.add(gradients.slice(slice.at, Parameters.flat(slice.elements), Layout.ROW_MAJOR));
      tree.addAll(slice.parts);
      addTree(slice.operations.sum, lane.stream, tree);
    }

    private static Tensor scalar(Tensor of, int index) {
      return of.slice(index, Shape.of(1), Layout.ROW_MAJOR);
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException("closing operations on gradients failed", failure);
        }
      }
    }
  }

  /**
   * Loss and hits of a batch, or of one that is smaller, without gradients.
   *
   * @param images host NHWC [n, h, w, c], F32, of 1 to batch images
   * @param labels host I32 [n]; -1 marks padding
   * @throws OperandException if images and labels do not fit
   */
  public Result evaluate(Tensor images, Tensor labels) {
    turn.take();
    try {
      return total(
          run(
              images,
              labels,
              (seat, part, micro) -> seat.workspace.loss(seat.labels(labels, micro), 0),
              0));
    } finally {
      turn.give();
    }
  }

  /**
   * The first layer whose values hold a NaN or infinity when the images pass through, for a message
   * to people; slow.
   *
   * @return the layer's name, or null where all values are finite
   */
  public @Nullable String firstNonFiniteLayer(Tensor images) {
    turn.take();
    try {
      String[] found = new String[1];
      if (!seats.isEmpty()) {
        forwardTogether(images, 0);
      }
      lanes.share(
          1,
          (lane, all) -> {
            for (int i = 0; found[0] == null && i < microBatches(images); i++) {
              Seat seat = lane.seat(i);
              if (seats.isEmpty()) {
                seat.forward(images, i, 0);
              }
              found[0] =
                  seat.workspace.firstNonFinite(
                      value -> {
                        try (Tensor host =
                            Tensor.allocate(value.shape(), value.type(), value.layout())) {
                          backend.copy(lane.stream, value, host);
                          lane.stream.synchronize();
                          return host.toFloatArray();
                        }
                      });
            }
          });
      return found[0];
    } finally {
      turn.give();
    }
  }

  private interface AfterForward {
    void run(Seat seat, int part, int micro);
  }

  /** The forward pass of parts that meet. */
  private void forwardTogether(Tensor images, long sequence) {
    lanes.share(
        parts,
        (lane, part) -> {
          Seat seat = lane.seat(part);
          seat.workspace.begin(seat.images(images, part), sequence + part);
        });
    for (int stage = 0; stage < program.forwardStages(); stage++) {
      int at = stage;
      lanes.share(parts, (lane, part) -> lane.seat(part).workspace.forward(at));
    }
  }

  /** Those that hold an image. */
  private int microBatches(Tensor images) {
    return Math.ceilDiv(images.shape().dim(0), program.batch());
  }

  /** Results of the micro-batches; parts take turns, or a shard each. */
  private List<Result> run(Tensor images, Tensor labels, AfterForward after, long sequence) {
    int rows = images.shape().rank() == 0 ? 0 : images.shape().dim(0);
    Layer.Extent in = program.network().input();
    if (rows < 1
        || rows > batch
        || (shards != null && rows < batch)
        || !images.shape().equals(in.batch(rows))
        || !labels.shape().equals(Shape.of(rows))) {
      throw new OperandException(
          "a batch needs "
              + (shards == null ? "1 to " : "")
              + batch
              + " images of "
              + in
              + " and as many labels, got "
              + images
              + " and "
              + labels);
    }
    int used = microBatches(images);
    Result[] results = new Result[used];
    int each = shards == null ? used : microBatches / parts; // of a part that is a shard
    if (!seats.isEmpty()) {
      forwardTogether(images, sequence);
    }
    lanes.share(
        Math.min(parts, used),
        (lane, part) -> {
          Seat seat = lane.seat(part);
          int begin = shards == null ? part : part * each;
          int end = shards == null ? used : begin + each;
          for (int micro = begin; micro < end; micro += shards == null ? parts : 1) {
            if (seats.isEmpty()) {
              seat.forward(images, micro, sequence + micro);
            }
            after.run(seat, part, micro);
            backend.copy(lane.stream, seat.workspace.losses(), seat.losses);
            backend.copy(lane.stream, seat.workspace.correct(), seat.correct);
            lane.stream.synchronize();
            double loss = 0;
            int correct = 0;
            for (int i = 0; i < program.batch(); i++) {
              loss += seat.losses.get(i);
              correct += (int) seat.correct.get(i);
            }
            results[micro] = new Result(loss, correct);
          }
        });
    return List.of(results);
  }

  @Override
  public void close() {
    turn.close();
    close(lanes, slices, exchange, late);
  }

  private void close(
      @Nullable Lanes<Lane> laneList,
      @Nullable GradientSlices gradientSlices,
      @Nullable Tensor shown,
      @Nullable LateGradients kept) {
    seats.forEach(Seat::close); // before the streams
    seats.clear();
    if (laneList != null) {
      laneList.close();
    }
    if (shown != null) {
      shown.close();
    }
    if (kept != null) {
      kept.close();
    }
    partGradients.forEach(Parameters::close);
    if (gradientSlices != null) {
      gradientSlices.close();
    }
    program.close();
  }
}
