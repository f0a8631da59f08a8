package io.jtrelu.train;

import static java.lang.foreign.ValueLayout.JAVA_DOUBLE_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.FisherSamples;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What ranks that train one network exchange in a step, so that its bits do not depend on their
 * number: gradients are added up in a balanced binary tree over ranks, above those over each rank's
 * shards; the norm is that of the norms of slices of fixed size, in their order; losses are added
 * up in the order of shards.
 *
 * <p>Each rank owns a part of the parameters ({@link Partition}) and of the optimiser's state: it
 * receives the others' gradients of that part, updates it and sends it to all, which are the bytes
 * of an all-reduce (ZeRO, stage 1; Rajbhandari et al. 2020, arXiv 1910.02054).
 *
 * <p>On a CPU an executor's lanes share the work, and a method has done it when it returns. On
 * other devices work and messages are given to the {@linkplain #stream stream}, to run or to be
 * recorded, those of {@link Sums} to a second one beside it; what is recorded is replayed by all
 * ranks in the same order.
 *
 * <p>All methods are collective. Owns its buffers; used by one thread at a time.
 */
final class RankExchange implements AutoCloseable {
  /** Of a result: two of the loss, one of the hits. */
  private static final int WORDS = 3;

  private final Backend backend;
  private final Communicator ranks;
  private final Communicator devices; // the same ranks, for tensors on the device
  private final Partition partition;
  private final GradientExchange how;
  private final Stream stream;
  private final Stream side; // where exchanges go on beside a backward pass
  private final boolean overlaps;
  private final Event marked;
  private final Event done;
  private final Tensor norms;
  private final Tensor sliceNorms; // and their factors, which mean nothing
  private final GradientNorm norm;
  private final Map<Integer, GradientSum> sums = new HashMap<>();
  private final Map<Integer, GradientNorm> normsOf = new HashMap<>();
  private final List<Tensor> received = new ArrayList<>();
  private final List<Tensor> roundedOut = new ArrayList<>(); // to and from each rank, in BF16
  private final List<Tensor> roundedIn = new ArrayList<>();
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  /**
   * Who owns what in a run of shards.
   *
   * @throws IllegalArgumentException if the network is another one in shards
   */
  static Partition partition(Network network, Backend backend, TrainingConfig config, int ranks) {
    BatchExecutor.Shards.requireFit(network);
    long elements = Parameters.learntElements(network);
    return backend.device().equals(Device.CPU)
        ? Partition.ofSlices(elements, ranks, Partition.BUCKET_BYTES)
        : Partition.ofShards(
            Parameters.weightElements(network), elements, ranks, config.shards(), 1);
  }

  /**
   * @param overlaps whether {@link Sums} begin while gradients are computed, or when all are
   *     complete: the same bits
   * @throws UnsupportedException for another exchange than the tree but on a CPU
   */
  RankExchange(
      Backend backend,
      Communicator ranks,
      Partition partition,
      GradientExchange how,
      boolean overlaps) {
    if (how != GradientExchange.TREE && !backend.device().equals(Device.CPU)) {
      throw new UnsupportedException(
          "gradients are added up in the tree and sent as they are on "
              + backend.name()
              + ": leave --reduction and --gradients out, or take --device cpu");
    }
    this.how = how;
    this.overlaps = overlaps;
    this.backend = backend;
    this.ranks = ranks;
    this.partition = partition;
    try {
      devices = ranks.on(backend);
      if (!devices.device().equals(Device.CPU)) { // else they are the ranks themselves
        own(devices);
      }
      stream = own(backend.newStream());
      side = own(backend.newStream());
      marked = own(backend.newEvent());
      done = own(backend.newEvent());
      int slices = partition.slices();
      norms = own(floats(slices));
      sliceNorms = own(floats(2 * slices));
      norm = own(backend.gradientNorm(slices));
      for (int i = 0; i < slices; i++) {
        int size = Math.toIntExact(partition.slice(i).elements());
        sums.computeIfAbsent(size, n -> own(backend.gradientSum(n)));
        normsOf.computeIfAbsent(size, n -> own(backend.gradientNorm(n)));
      }
      for (int i = 0; i < partition.buckets(); i++) {
        int size = Math.toIntExact(partition.bucket(i).elements());
        sums.computeIfAbsent(size, n -> own(backend.gradientSum(n)));
      }
      int most = Math.toIntExact(partition.mostOfBucket());
      for (int i = 0; i < ranks.size(); i++) {
        int elements = i == ranks.rank() ? 0 : most;
        received.add(own(floats(how == GradientExchange.LIBRARY ? 0 : elements)));
        if (how == GradientExchange.BF16) {
          int out = i == ranks.rank() ? 0 : Math.toIntExact(most(partition.owned(i)));
          roundedOut.add(own(tensor(out, DataType.BF16)));
          roundedIn.add(own(tensor(elements, DataType.BF16)));
        }
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

  private static long most(List<Partition.Range> ranges) {
    return ranges.stream().mapToLong(Partition.Range::elements).max().orElse(0);
  }

  private Tensor floats(int count) {
    return tensor(count, DataType.F32);
  }

  private Tensor tensor(int count, DataType type) {
    return backend.allocate(Shape.of(count), type, Layout.ROW_MAJOR);
  }

  private static Tensor part(Tensor of, long from, long elements) {
    return of.slice(from, Shape.of(Math.toIntExact(elements)), Layout.ROW_MAJOR);
  }

  private static Tensor part(Tensor of, Partition.Range range) {
    return part(of, range.from(), range.elements());
  }

  /** What carries bytes, for people. */
  String carriedBy() {
    return ranks.name().equals(devices.name())
        ? ranks.name()
        : ranks.name() + " and " + devices.name();
  }

  /** Where work is given to but on a CPU. */
  Stream stream() {
    return stream;
  }

  /** Waits for the stream's work, and so for other ranks'. */
  void synchronize() {
    done.record(stream);
    await(done);
  }

  /** Waits for a point in its work. */
  void await(Event event) {
    devices.await(event);
  }

  /** Does pieces of work by an executor's lanes; where there is none, one after the other. */
  private static void share(
      @Nullable BatchExecutor lanes, Stream on, int count, BatchExecutor.Task task) {
    if (lanes != null) {
      lanes.share(count, task);
      return;
    }
    for (int i = 0; i < count; i++) {
      task.run(on, i);
    }
  }

  /** What this rank owns. */
  List<Partition.Range> owned() {
    return partition.owned(ranks.rank());
  }

  /**
   * Adds up the ranks' gradients on a CPU, and takes their norms: what this rank owns receives the
   * sum, the rest is spoilt. Last buckets go first.
   */
  void add(BatchExecutor lanes, Parameters gradients) {
    for (int index = partition.buckets() - 1; index >= 0; index--) {
      addBucket(lanes, stream, gradients.arena(), index);
    }
  }

  /**
   * The same over shards and ranks on a device, bucket by bucket as gradients become complete:
   * beside the backward pass that computes them, on a stream of its own, which waits for each
   * bucket's. Made for one pass.
   */
  final class Sums {
    private final List<Tensor> shards = new ArrayList<>();
    private final List<Integer> layers; // by bucket: with whose gradients its own are complete
    private final List<Integer> order = new ArrayList<>(); // of buckets, complete first
    private int sent; // of these

    /**
     * @param shards gradients of this rank's shards; the first ones receive the sum, where this
     *     rank owns them
     */
    Sums(List<Parameters> shards) {
      shards.forEach(shard -> this.shards.add(shard.arena()));
      layers = completing(shards.getFirst().network(), partition);
      for (int index = partition.buckets() - 1; index >= 0; index--) {
        order.add(index);
      }
      order.sort(Comparator.comparing(layers::get, Comparator.reverseOrder()));
    }

    /**
     * Gradients of a layer's parameters, and of all layers behind it, are complete when the
     * stream's work so far is done.
     */
    void complete(int layer) {
      int last = sent;
      while (last < order.size() && layers.get(order.get(last)) >= layer) {
        last++;
      }
      if (last == sent || !(overlaps || layer == 0)) {
        return;
      }
      marked.record(stream);
      marked.await(side);
      while (sent < last) {
        add(order.get(sent++));
      }
    }

    private void add(int index) {
      Partition.Range bucket = partition.bucket(index);
      List<Tensor> terms = new ArrayList<>();
      shards.forEach(shard -> terms.add(part(shard, bucket)));
      BatchExecutor.addTree(of(sums, bucket), side, terms);
      addBucket(null, side, shards.getFirst(), index);
    }

    /** The stream goes on when all is added up. */
    void finish() {
      complete(0);
      marked.record(side);
      marked.await(stream);
    }
  }

  /**
   * The layer with whose gradients those of each bucket are complete: the first that has parameters
   * in it, as backward passes go from the last layer to the first.
   */
  static List<Integer> completing(Network network, Partition partition) {
    List<Integer> layers = new ArrayList<>();
    for (int index = 0; index < partition.buckets(); index++) {
      Partition.Range bucket = partition.bucket(index);
      layers.add(
          network.parameters().stream()
              .filter(spec -> spec.offset() < bucket.to())
              .filter(spec -> spec.offset() + spec.shape().elements() > bucket.from())
              .mapToInt(Network.ParameterSpec::layer)
              .min()
              .orElse(0)); // of padding
    }
    return layers;
  }

  private void addBucket(@Nullable BatchExecutor lanes, Stream on, Tensor gradients, int index) {
    Partition.Range mine = partition.range(index, ranks.rank());
    List<Tensor> terms = new ArrayList<>(); // empty where nothing is left to be added up
    List<Tensor> rounded = List.of();
    if (ranks.size() > 1 && how == GradientExchange.LIBRARY) {
      ranks.allReduce(on, part(gradients, partition.bucket(index)));
    } else if (ranks.size() > 1) {
      for (int rank = 0; rank < ranks.size(); rank++) {
        terms.add(
            rank == ranks.rank()
                ? part(gradients, mine)
                : part(received.get(rank), 0, mine.elements()));
      }
      List<Tensor> send = ranges(gradients, index);
      if (how == GradientExchange.BF16) {
        send = rounded(lanes, send);
        rounded = firsts(roundedIn, terms);
      }
      devices.allToAll(on, send, rounded.isEmpty() ? terms : rounded);
    }
    int first = partition.firstSlice(index, ranks.rank());
    int count = partition.firstSlice(index, ranks.rank() + 1) - first;
    List<Tensor> of = rounded;
    share(
        lanes,
        on,
        count,
        (to, i) -> {
          Partition.Range slice = partition.slice(first + i);
          if (!terms.isEmpty()) {
            addSlice(to, slice, mine.from(), terms, of);
          }
          Tensor result = part(sliceNorms, 2L * (first + i), 2);
          of(normsOf, slice).run(to, part(gradients, slice), Float.POSITIVE_INFINITY, result);
          backend.copy(to, part(result, 0, 1), part(norms, first + i, 1));
        });
    List<Tensor> parts = new ArrayList<>();
    for (int rank = 0; rank < ranks.size(); rank++) {
      int from = partition.firstSlice(index, rank);
      parts.add(part(norms, from, partition.firstSlice(index, rank + 1) - from));
    }
    devices.allGather(on, parts);
  }

  /** What goes to each rank, in BF16. */
  private List<Tensor> rounded(@Nullable BatchExecutor lanes, List<Tensor> parts) {
    List<Tensor> rounded = firsts(roundedOut, parts);
    for (int rank = 0; rank < parts.size(); rank++) {
      if (rank != ranks.rank()) {
        Tensor from = parts.get(rank);
        Tensor to = rounded.get(rank);
        long elements = from.shape().elements();
        share(
            lanes,
            stream,
            Math.toIntExact(Math.ceilDiv(elements, (long) Partition.SLICE)),
            (on, i) -> {
              long at = (long) i * Partition.SLICE;
              long size = Math.min(Partition.SLICE, elements - at);
              backend.copy(on, part(from, at, size), part(to, at, size));
            });
      }
    }
    return rounded;
  }

  /** As many elements of each tensor as there are in another; none of this rank's. */
  private List<Tensor> firsts(List<Tensor> of, List<Tensor> like) {
    List<Tensor> firsts = new ArrayList<>();
    for (int rank = 0; rank < of.size(); rank++) {
      long elements = rank == ranks.rank() ? 0 : like.get(rank).shape().elements();
      firsts.add(part(of.get(rank), 0, elements));
    }
    return firsts;
  }

  /**
   * @param rounded what came of each rank in BF16, for those terms; empty if they came as they are
   */
  private void addSlice(
      Stream on, Partition.Range slice, long begin, List<Tensor> of, List<Tensor> rounded) {
    List<Tensor> terms = new ArrayList<>();
    for (Tensor tensor : of) {
      terms.add(part(tensor, slice.from() - begin, slice.elements()));
    }
    for (int rank = 0; rank < rounded.size(); rank++) {
      if (rank != ranks.rank()) {
        Tensor from = part(rounded.get(rank), slice.from() - begin, slice.elements());
        backend.copy(on, from, terms.get(rank));
      }
    }
    BatchExecutor.addTree(of(sums, slice), on, terms, ranks.rank());
  }

  private static <T> T of(Map<Integer, T> operations, Partition.Range slice) {
    T operation = operations.get(Math.toIntExact(slice.elements()));
    if (operation == null) {
      throw new IllegalStateException("no operation for " + slice);
    }
    return operation;
  }

  /**
   * Norm of the gradients that were added up last, and the factor that clips it: see {@link
   * GradientNorm}.
   *
   * @param result F32 [2]
   */
  void norm(float clipNorm, Tensor result) {
    norm.run(stream, norms, clipNorm, result);
  }

  /** Receives from each rank what it owns. */
  void gather(Parameters parameters) {
    for (int index = 0; index < partition.buckets(); index++) {
      devices.allGather(stream, ranges(parameters.arena(), index));
    }
  }

  private List<Tensor> ranges(Tensor arena, int index) {
    List<Tensor> ranges = new ArrayList<>();
    for (int rank = 0; rank < ranks.size(); rank++) {
      ranges.add(part(arena, partition.range(index, rank)));
    }
    return ranges;
  }

  /** Replaces all parameters by those of the first rank. */
  void broadcast(Parameters parameters) {
    devices.broadcast(stream, parameters.arena(), 0);
    synchronize();
  }

  /** Receives the rows of all samples; each rank has those of its own. */
  void gather(FisherSamples samples) {
    for (FisherSamples.Block block : samples.blocks()) {
      gather(block.inputs());
      gather(block.gradients());
    }
  }

  /** Receives all of a tensor on the device, of which each rank has an equal part of its own. */
  void gather(Tensor whole) {
    if (ranks.size() == 1) {
      return;
    }
    long each = whole.shape().elements() / ranks.size();
    List<Tensor> parts = new ArrayList<>();
    for (int rank = 0; rank < ranks.size(); rank++) {
      parts.add(part(whole, rank * each, each));
    }
    devices.allGather(stream, parts);
  }

  /** What the first rank that has something says, with its number; null where none has. */
  @Nullable String first(@Nullable String here) {
    List<String> all = ranks.gatherTexts(here == null ? "" : here);
    for (int rank = 0; rank < all.size(); rank++) {
      if (!all.get(rank).isEmpty()) {
        return all.get(rank) + (ranks.size() == 1 ? "" : " on rank " + rank);
      }
    }
    return null;
  }

  /**
   * Results of all ranks, in their order.
   *
   * @param here those of this rank
   * @param counts how many each rank has
   */
  static List<BatchExecutor.Result> gather(
      Communicator ranks, Stream stream, List<BatchExecutor.Result> here, List<Integer> counts) {
    int total = counts.stream().mapToInt(Integer::intValue).sum();
    List<BatchExecutor.Result> all = new ArrayList<>();
    try (Tensor words = Tensor.allocate(Shape.of(WORDS * total), DataType.I32, Layout.ROW_MAJOR)) {
      List<Tensor> parts = new ArrayList<>();
      int at = 0;
      for (int count : counts) {
        parts.add(part(words, (long) WORDS * at, (long) WORDS * count));
        at += count;
      }
      MemorySegment mine = parts.get(ranks.rank()).segment();
      for (int i = 0; i < here.size(); i++) {
        mine.set(JAVA_DOUBLE_UNALIGNED, (long) i * WORDS * Integer.BYTES, here.get(i).loss());
        mine.setAtIndex(JAVA_INT_UNALIGNED, (long) i * WORDS + 2, here.get(i).correct());
      }
      ranks.allGather(stream, parts);
      MemorySegment from = words.segment();
      for (int i = 0; i < total; i++) {
        all.add(
            new BatchExecutor.Result(
                from.get(JAVA_DOUBLE_UNALIGNED, (long) i * WORDS * Integer.BYTES),
                from.getAtIndex(JAVA_INT_UNALIGNED, (long) i * WORDS + 2)));
      }
    }
    return all;
  }

  /**
   * Receives the optimiser's state of all ranks' parts on the first one.
   *
   * @param state of this rank's part
   * @param whole host F32 of the arena's size on the first rank; null on the others
   */
  void collect(Tensor state, @Nullable Tensor whole) {
    if (!state.device().equals(Device.CPU)) {
      try (Tensor onHost = Tensor.allocate(state.shape(), state.type(), state.layout())) {
        backend.copy(stream, state, onHost);
        synchronize();
        collect(onHost, whole);
      }
      return;
    }
    long at = 0;
    for (int index = 0; index < partition.buckets(); index++) {
      Tensor mine = part(state, at, partition.range(index, ranks.rank()).elements());
      at += mine.shape().elements();
      List<@Nullable Tensor> nothing = new ArrayList<>(Collections.nCopies(ranks.size(), null));
      if (whole != null) {
        List<Tensor> ranges = ranges(whole, index);
        backend.copy(stream, mine, ranges.get(ranks.rank()));
        ranks.allToAll(stream, nothing, ranges);
      } else {
        List<@Nullable Tensor> send = new ArrayList<>(nothing);
        send.set(0, mine);
        ranks.allToAll(stream, send, nothing);
      }
    }
  }

  /** Takes this rank's part of an optimiser's whole state. */
  void distribute(Tensor whole, Tensor state) {
    long at = 0;
    for (Partition.Range range : owned()) {
      backend.copy(stream, part(whole, range), part(state, at, range.elements()));
      at += range.elements();
    }
    stream.synchronize();
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing an exchange failed", failure);
      }
    }
  }
}
