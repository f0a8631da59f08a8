package io.jtrelu.train;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.BatchExecutor.Shards;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Steps on a GPU, where a batch, or each of its shards, passes at once: a pass (forward, loss,
 * backward, and at the end of a step norm, clipping, update and packing of the weights) is recorded
 * once and then costs the host one launch.
 *
 * <p>All that differs between passes lies in a {@link Slot} on the device: images, labels, number
 * of the dropout masks, learning rate, number of the step. The host fills the slot's pinned twin,
 * which one copy on a stream of its own brings over while the pass before it computes; one copy
 * brings the figures back. There are two slots, each with recordings of its own, so the host
 * prepares a pass while the device works on another and looks at figures one pass late: neither
 * waits for the other but when it has nothing else to do. That is safe because a step that is not
 * finite changes nothing and spoils those queued behind it ({@link Optimizer#update}).
 *
 * <p>Where the device's normalisation of bytes gives the host's bits, images come as bytes and are
 * normalised in the pass: a quarter of what values would be, or less, goes over the bus.
 *
 * <p>Steps of K-FAC are of several kinds: plain ones, those that measure, and those that then
 * invert the factors whose turn it is. Each kind has a recording, made when it first occurs. What
 * could not be measured or inverted comes back with the figures.
 *
 * <p>Of a batch in shards a pass takes this rank's, one after the other, each with gradients of its
 * own; they are added up in a tree, and what ranks exchange is part of the recording as well, the
 * gradients beside the last backward pass: all of them record and replay the same, in the same
 * order.
 *
 * <p>Batches of another size are compiled and recorded anew, but not in shards. Nothing is
 * allocated in a step else.
 */
final class RecordedSteps implements Steps {
  static final int SLOTS = 2;

  private final Network network;
  private final Backend backend;
  private final int accumulate;
  private final Program.Options options;
  private final Parameters parameters;
  private final Parameters gradients;
  private final Optimizer optimizer;
  private final @Nullable RankExchange exchange; // null without shards
  private final Shards shards;

  /** Of each shard here but the first. */
  private final List<Parameters> otherGradients = new ArrayList<>();

  /** How the device normalises bytes; null where values come. */
  private final LocationNorm.@Nullable Settings normalization;

  private final Stream stream;
  private final Stream uploads;
  private Compiled compiled;
  private long submitted;
  private long taken;

  /**
   * As below, without shards.
   *
   * @param batch images per pass to begin with
   * @param parameters what is trained, to be {@linkplain #load loaded}
   * @param gradients room for their gradients
   * @param normalization how bytes become the network's input; null to take values
   */
  RecordedSteps(
      Network network,
      Backend backend,
      int batch,
      int accumulate,
      Program.Options options,
      Parameters parameters,
      Parameters gradients,
      Optimizer optimizer,
      LocationNorm.@Nullable Settings normalization) {
    this(
        network,
        backend,
        batch,
        accumulate,
        options,
        parameters,
        gradients,
        optimizer,
        normalization,
        new Shards(1, 0, 1),
        null);
  }

  /**
   * @param batch images per pass on this rank
   * @param accumulate passes of a step
   * @param parameters what is trained, to be {@linkplain #load loaded}
   * @param gradients room for their gradients
   * @param normalization how bytes become the network's input; null to take values
   * @param shards those of this rank
   * @param exchange between the ranks, whose stream is taken; null for a batch that is one shard
   */
  RecordedSteps(
      Network network,
      Backend backend,
      int batch,
      int accumulate,
      Program.Options options,
      Parameters parameters,
      Parameters gradients,
      Optimizer optimizer,
      LocationNorm.@Nullable Settings normalization,
      Shards shards,
      @Nullable RankExchange exchange) {
    this.network = network;
    this.backend = backend;
    this.accumulate = accumulate;
    this.options = optimizer.measuring(options);
    this.parameters = parameters;
    this.gradients = gradients;
    this.optimizer = optimizer;
    this.normalization = normalization;
    this.shards = shards;
    this.exchange = exchange;
    this.stream = exchange == null ? backend.newStream() : exchange.stream();
    this.uploads = backend.newStream();
    try {
      for (int i = 1; i < shards.count(); i++) {
        otherGradients.add(Parameters.allocate(network, backend));
      }
      this.compiled = new Compiled(batch);
    } catch (RuntimeException | Error failure) {
      closeAll();
      throw failure;
    }
  }

  /** Closes all but what is compiled. */
  private void closeAll() {
    otherGradients.forEach(Parameters::close);
    uploads.close();
    if (exchange == null) {
      stream.close();
    }
  }

  /** Waits for all that was submitted, and for other ranks' part in it. */
  private void synchronize() {
    if (exchange == null) {
      stream.synchronize();
    } else {
      exchange.synchronize();
    }
  }

  private Parameters gradientsOf(int shard) {
    return shard == 0 ? gradients : otherGradients.get(shard - 1);
  }

  private List<Parameters> allGradients() {
    return IntStream.range(0, shards.count()).mapToObj(this::gradientsOf).toList();
  }

  /** What depends on the size of a batch. */
  private final class Compiled implements AutoCloseable {
    final int batch;
    final int each; // images of a shard
    final Program program;
    final Program.Workspace workspace;
    final Slot[] slots = new Slot[SLOTS];

    final Shape images;
    final DataType imageType = normalization == null ? DataType.F32 : DataType.U8;

    /** The network's input, where images come otherwise. */
    final @Nullable Tensor input;

    final @Nullable LocationNorm norm;

    final Tensor results;
    final int words; // of results
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();

    Compiled(int batch) {
      optimizer.requireBatch(batch / shards.count() * shards.total());
      this.batch = batch;
      this.each = batch / shards.count();
      try {
        program = own(new Program(network, backend, each, options));
        workspace = own(program.newWorkspace(stream));
        Layer.Extent in = network.input();
        images = images(batch);
        input =
            options.type() == imageType
                ? null
                : own(backend.allocate(in.batch(each), options.type(), Layout.NHWC));
        norm =
            normalization == null
                ? null
                : own(backend.locationNorm(images(each), imageType, options.type(), normalization));
        Tensor figures = optimizer.figures();
        long told = figures == null ? 0 : figures.shape().elements();
        words = Math.toIntExact(2L * all() + 2 + told);
        results = own(backend.allocate(Shape.of(words), DataType.I32, Layout.ROW_MAJOR));
        for (int i = 0; i < SLOTS; i++) {
          slots[i] = own(new Slot(images, imageType, words));
        }
      } catch (RuntimeException | Error failure) {
        close();
        throw failure;
      }
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    /** Images of a pass on all ranks. */
    private int all() {
      return each * shards.total();
    }

    /** Of a shard, by its index in the whole batch; its hits follow. */
    private Tensor losses(Tensor of, int shard) {
      return view(of, 2L * each * shard, Shape.of(each), DataType.F32, Layout.ROW_MAJOR);
    }

    private Tensor correct(Tensor of, int shard) {
      return view(of, 2L * each * shard + each, Shape.of(each), DataType.I32, Layout.ROW_MAJOR);
    }

    /** Losses and hits of all shards. */
    private Tensor measured(Tensor of) {
      return view(of, 0, Shape.of(2 * all()), DataType.I32, Layout.ROW_MAJOR);
    }

    /** Norm and clipping factor. */
    private Tensor norm(Tensor of) {
      return view(of, 2L * all(), Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
    }

    /** What the optimiser tells. */
    private Tensor figures(Tensor of) {
      int first = 2 * all() + 2;
      return view(of, first, Shape.of(words - first), DataType.F32, Layout.ROW_MAJOR);
    }

    /** Gives the forward pass over a shard of a slot's images to the stream. */
    void forward(Slot slot, int shard) {
      Tensor given = slot.images(slot.device, shard);
      if (input != null) {
        if (norm != null) {
          norm.forward(stream, given, input);
        } else {
          backend.copy(stream, given, input);
        }
      }
      workspace.forward(input == null ? given : input, slot.masks(slot.device, shard));
    }

    /** Gives the rest of a shard's pass, up to the gradients, to the stream. */
    private void backward(Slot slot, int shard, Write write, IntConsumer completed) {
      int at = shards.first() + shard;
      workspace.loss(
          slot.labels(slot.device, shard),
          1f / (all() * accumulate),
          losses(results, at),
          correct(results, at));
      workspace.backward(gradientsOf(shard), write, completed);
    }

    /** Gives passes over all shards to the stream, and the sum over shards and ranks. */
    void gradients(Slot slot, Write write, boolean last, BatchExecutor.@Nullable Fisher fisher) {
      RankExchange.Sums sums = exchange != null && last ? exchange.new Sums(allGradients()) : null;
      for (int i = 0; i < shards.count(); i++) {
        forward(slot, i);
        if (fisher != null) {
          measure(slot, i, fisher);
        }
        IntConsumer completed =
            sums != null && i == shards.count() - 1 ? sums::complete : layer -> {};
        backward(slot, i, write, completed);
      }
      if (sums != null) {
        sums.finish();
      }
    }

    private Recording record(Slot slot, Kind kind) {
      return own(
          backend.record(
              stream,
              () -> {
                BatchExecutor.Fisher fisher = kind.first ? optimizer.measurement(kind.phase) : null;
                Write write = kind.first ? Write.OVERWRITE : Write.ACCUMULATE;
                gradients(slot, write, kind.last, fisher);
                if (exchange != null) {
                  exchange.gather(measured(results));
                  if (fisher != null) {
                    exchange.gather(fisher.samples());
                  }
                }
                if (kind.last) {
                  update(slot, kind.phase);
                }
              }));
    }

    /** Gives the backward pass for samples of the Fisher matrix to the stream. */
    private void measure(Slot slot, int shard, BatchExecutor.Fisher fisher) {
      Tensor labels = slot.labels(slot.device, shard);
      int first = (shards.first() + shard) * each;
      workspace.fisher(
          fisher.drawn()
              ? workspace.drawLabels(labels, fisher.seed(), slot.sequence(slot.device), first)
              : labels,
          fisher.samples(),
          first);
    }

    private void update(Slot slot, Kfac.Phase phase) {
      Tensor device = slot.device;
      optimizer.update(
          stream,
          exchange,
          parameters,
          gradients,
          slot.scalars(device),
          norm(results),
          phase,
          slot.steering(device));
      Tensor told = optimizer.figures();
      if (told != null && phase.measures()) {
        backend.copy(stream, told, figures(results));
      }
      program.load(stream, parameters);
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException("closing a recorded step failed", failure);
        }
      }
    }
  }

  /**
   * What passes of one recording have in common.
   *
   * @param first whether they begin a step
   * @param last whether they end one
   * @param phase of the step, where that matters to the pass
   */
  private record Kind(boolean first, boolean last, Kfac.Phase phase) {
    static Kind of(boolean first, boolean last, Kfac.Phase phase) {
      if (last) {
        return new Kind(first, true, phase);
      }
      // A first pass measures or does not, whichever layers' turn it is at the step's end.
      boolean measures = first && phase.measures();
      return new Kind(first, false, new Kfac.Phase(measures, false, 0));
    }
  }

  /** What differs between passes: on the device, and the same in pinned memory. */
  private final class Slot implements AutoCloseable {
    private final Shape shape;
    private final DataType type;
    final Tensor host;
    final Tensor device;

    /** Where the figures come to. */
    final Tensor results;

    final Event uploaded;
    final Event done;
    final Map<Kind, Recording> recordings = new HashMap<>();

    /** The last pass that was put here. */
    @Nullable Pass pass;

    Slot(Shape images, DataType imageType, int resultWords) {
      shape = images;
      type = imageType;
      Shape words = Shape.of(Math.toIntExact(masksAt() + 2L * shards.count()));
      host = backend.allocateOnHost(words, DataType.I32, Layout.ROW_MAJOR);
      device = backend.allocate(words, DataType.I32, Layout.ROW_MAJOR);
      results = backend.allocateOnHost(Shape.of(resultWords), DataType.I32, Layout.ROW_MAJOR);
      uploaded = backend.newEvent();
      done = backend.newEvent();
    }

    // In words: images, labels, sequence [2], scalars [2], steering, masks [shards, 2].
    private long labelsAt() {
      return Math.ceilDiv(shape.elements() * type.bytes(), 4L);
    }

    private long sequenceAt() {
      return labelsAt() + shape.dim(0);
    }

    private long scalarsAt() {
      return sequenceAt() + 2;
    }

    private long masksAt() {
      return scalarsAt() + 2 + Kfac.STEERING;
    }

    private int each() {
      return shape.dim(0) / shards.count();
    }

    Tensor images(Tensor of) {
      return view(of, 0, shape, type, Layout.NHWC);
    }

    /** Those of a shard. */
    Tensor images(Tensor of, int shard) {
      long at = shape.elements() / shards.count() * shard;
      return images(of).slice(at, RecordedSteps.this.images(each()), Layout.NHWC);
    }

    Tensor labels(Tensor of, int shard) {
      return labels(of).slice((long) each() * shard, Shape.of(each()), Layout.ROW_MAJOR);
    }

    /** The number that sets a shard's dropout masks. */
    Tensor masks(Tensor of, int shard) {
      return view(of, masksAt() + 2L * shard, Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
    }

    Tensor labels(Tensor of) {
      return view(of, labelsAt(), Shape.of(shape.dim(0)), DataType.I32, Layout.ROW_MAJOR);
    }

    Tensor sequence(Tensor of) {
      return view(of, sequenceAt(), Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
    }

    /** Learning rate and number of the step. */
    Tensor scalars(Tensor of) {
      return view(of, scalarsAt(), Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
    }

    /** Of the optimiser. */
    Tensor steering(Tensor of) {
      Shape floats = Shape.of(Kfac.STEERING);
      return view(of, scalarsAt() + 2, floats, DataType.F32, Layout.ROW_MAJOR);
    }

    void fill(Tensor images, Tensor labels, Pass pass) {
      this.pass = pass;
      images(host).segment().copyFrom(images.segment());
      labels(host).segment().copyFrom(labels.segment());
      number(sequence(host), pass.sequence());
      for (int i = 0; i < shards.count(); i++) {
        number(masks(host, i), pass.sequence() * shards.total() + shards.first() + i);
      }
      scalars(host).set((float) pass.learningRate(), (float) pass.number());
      steering(host).set(optimizer.steering(pass.learningRate(), pass.number()));
    }

    private static void number(Tensor to, long number) {
      to.segment().setAtIndex(JAVA_INT_UNALIGNED, 0, (int) number);
      to.segment().setAtIndex(JAVA_INT_UNALIGNED, 1, (int) (number >>> 32));
    }

    @Override
    public void close() {
      done.close();
      uploaded.close();
      results.close();
      device.close();
      host.close();
    }
  }

  private static Tensor view(Tensor of, long word, Shape shape, DataType type, Layout layout) {
    return Tensor.view(of.memory(), word * 4, shape, type, layout);
  }

  /** Recordings that a run has in the end, whose batches are of one size. */
  static int recordings(int accumulate, Network network, @Nullable KfacConfig kfac) {
    int layers = (int) network.layers().stream().filter(l -> l.fisherInputs() > 0).count();
    // Twice, as an odd number of passes comes to the other slot the second time; and the first
    // step, which is of its own kind.
    long steps = 1 + 2L * (kfac == null ? 1 : kfac.invertEvery());
    Set<Map.Entry<Long, Kind>> made = new HashSet<>();
    for (long pass = 0; pass < steps * accumulate; pass++) {
      long step = pass / accumulate + 1;
      long within = pass % accumulate;
      Kfac.Phase phase = kfac == null ? Kfac.Phase.PLAIN : Kfac.Phase.of(kfac, layers, step);
      made.add(Map.entry(pass % SLOTS, Kind.of(within == 0, within == accumulate - 1, phase)));
    }
    return made.size();
  }

  @Override
  public void load() {
    compiled.program.load(stream, parameters);
    synchronize();
  }

  @Override
  public boolean takesBytes() {
    return normalization != null;
  }

  /** Shape in which images come. */
  private Shape images(int batch) {
    Layer.Extent in = network.input();
    int channels = normalization == null ? in.channels() : normalization.mean().size();
    return Shape.of(batch, in.height(), in.width(), channels);
  }

  @Override
  public int ahead() {
    return SLOTS - 1;
  }

  @Override
  public void submit(Tensor images, Tensor labels, Pass pass) {
    if (submitted - taken == SLOTS) {
      throw new IllegalStateException(SLOTS + " passes are under way; take figures first");
    }
    Compiled now = compiledFor(images, labels);
    Slot slot = now.slots[(int) (submitted % SLOTS)];
    slot.fill(images, labels, pass);
    backend.copy(uploads, slot.host, slot.device);
    slot.uploaded.record(uploads);
    slot.uploaded.await(stream);
    Kind kind = Kind.of(pass.first(), pass.last(), optimizer.phase(pass.number()));
    slot.recordings.computeIfAbsent(kind, absent -> now.record(slot, absent)).replay(stream);
    backend.copy(stream, now.results, slot.results);
    slot.done.record(stream);
    submitted++;
  }

  /** Compiles the network for another size of batches; their figures must have been taken. */
  private Compiled compiledFor(Tensor images, Tensor labels) {
    int batch = images.shape().dim(0);
    Shape expected = images(batch);
    if (!images.shape().equals(expected)
        || (exchange != null && batch != compiled.batch)
        || images.type() != compiled.imageType
        || labels.type() != DataType.I32
        || labels.shape().elements() != batch) {
      throw new OperandException(
          "a batch needs "
              + compiled.imageType
              + " images "
              + expected
              + " and as many I32 labels, got "
              + images
              + " and "
              + labels);
    }
    if (batch != compiled.batch) {
      if (taken != submitted) {
        throw new IllegalStateException(
            "passes over batches of "
                + compiled.batch
                + " are under way; take their figures first");
      }
      stream.synchronize();
      Compiled other = new Compiled(batch);
      compiled.close();
      compiled = other;
      load();
    }
    return compiled;
  }

  @Override
  public Figures take() {
    if (taken == submitted) {
      throw new IllegalStateException("no pass is under way");
    }
    Slot slot = slotTaken(taken);
    if (exchange == null) {
      slot.done.synchronize();
    } else {
      exchange.await(slot.done);
    }
    taken++;
    double loss = 0;
    int correct = 0;
    for (int shard = 0; shard < shards.total(); shard++) {
      MemorySegment losses = compiled.losses(slot.results, shard).segment();
      MemorySegment hits = compiled.correct(slot.results, shard).segment();
      for (int i = 0; i < compiled.each; i++) {
        loss += losses.getAtIndex(JAVA_FLOAT_UNALIGNED, i);
        correct += hits.getAtIndex(JAVA_INT_UNALIGNED, i);
      }
    }
    float norm = compiled.norm(slot.results).get(0);
    Pass pass = slot.pass;
    if (pass != null && pass.last() && Double.isFinite(loss) && Float.isFinite(norm)) {
      optimizer.tell(pass.number(), compiled.figures(slot.results));
    }
    return new Figures(loss, correct, norm);
  }

  private Slot slotTaken(long number) {
    return compiled.slots[(int) (number % SLOTS)];
  }

  /**
   * Runs the pass once more: the pass behind it may have overwritten values and gradients, but not
   * its slot. (Of a step of several passes only the last one can be run again, so that a gradient
   * that was not finite in an earlier one is not found.)
   */
  @Override
  public @Nullable String firstNonFiniteLayer() {
    synchronize();
    Slot slot = slotTaken(taken - 1);
    String layer = null;
    for (int i = 0; i < shards.count() && layer == null; i++) {
      compiled.forward(slot, i);
      layer = compiled.workspace.firstNonFinite(this::read);
    }
    layer = exchange == null ? layer : exchange.first(layer);
    if (layer != null) {
      return layer;
    }
    compiled.gradients(slot, Write.OVERWRITE, true, null);
    if (exchange != null) {
      exchange.gather(gradients);
    }
    synchronize();
    return Steps.firstNonFiniteGradient(backend, gradients);
  }

  private float[] read(Tensor value) {
    try (Tensor host = Tensor.allocate(value.shape(), value.type(), value.layout())) {
      backend.copy(stream, value, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  @Override
  public void forgive() {
    synchronize();
    taken = submitted;
    backend.fill(stream, compiled.norm(compiled.results), 0);
    synchronize();
  }

  @Override
  public long activationBytes() {
    return compiled.program.activationBytes();
  }

  @Override
  public void close() {
    stream.synchronize();
    compiled.close();
    closeAll();
  }
}
