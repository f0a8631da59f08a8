package io.jtrelu.distributed;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * One of several processes, its rank, and how it exchanges tensors with the others.
 *
 * <pre>{@code
 * try (Communicator ranks = Communicator.open(Duration.ofMinutes(5))) {
 *   ranks.allGather(stream, parts); // parts.get(ranks.rank()) is there, the others come
 * }
 * }</pre>
 *
 * <p><b>Together.</b> All methods that exchange something are collective: every rank calls them in
 * the same order, with tensors of sizes that fit. They see what the stream was given before, and
 * have finished when they return. Tensors lie in host memory and are not changed by others
 * meanwhile. Those on another device are exchanged by what {@link #on} gives, in the order of the
 * stream: a call returns at once, and may be recorded.
 *
 * <p><b>Failure.</b> No call waits longer than the deadline: it then throws {@link
 * DistributedException}, whose message names the ranks that were missing. After any exception the
 * ranks are no longer in step: {@link #abort} ends them all. That is also how a rank leaves that
 * fails for reasons of its own, instead of {@link #close}.
 *
 * <p>Used by one thread at a time, which need not always be the same; {@link #abort} may be called
 * by any.
 */
public abstract class Communicator implements AutoCloseable {
  /** How long to wait for others where nothing else is said. */
  public static final Duration DEADLINE = Duration.ofMinutes(5);

  private final int rank;
  private final int size;

  /** For implementations. */
  protected Communicator(int rank, int size) {
    this.rank = rank;
    this.size = size;
  }

  /**
   * What the process's environment asks for: MPI where a launcher started it with others, else
   * {@link SoloCommunicator}.
   *
   * @param deadline the longest wait in one call
   * @throws DistributedException if there is a launcher, but no way to the other processes
   */
  public static Communicator open(Duration deadline) {
    return open(System.getenv(), deadline);
  }

  static Communicator open(Map<String, String> environment, Duration deadline) {
    Optional<Launcher> launcher = Launcher.of(environment);
    return launcher.isPresent() && launcher.get().size() > 1
        ? MpiCommunicator.open(launcher.get(), deadline)
        : new SoloCommunicator();
  }

  /** What carries the bytes, and its version, for people. */
  public abstract String name();

  /** Number of this process, from 0. */
  public final int rank() {
    return rank;
  }

  /** Number of processes. */
  public final int size() {
    return size;
  }

  /** The longest wait in one call. */
  public Duration deadline() {
    return DEADLINE;
  }

  /** Where the tensors lie that it exchanges. */
  public Device device() {
    return Device.CPU;
  }

  /**
   * These ranks, for tensors on a backend's device: this where that is the CPU, else what links the
   * devices (NCCL between GPUs), to be closed before this and the backend. Collective.
   *
   * @throws DistributedException if the devices cannot be linked
   */
  public Communicator on(Backend backend) {
    return backend.device().equals(Device.CPU) ? this : DeviceCommunicator.open(this, backend);
  }

  /**
   * Number of this process among those on its machine, from 0, in the order of ranks; collective.
   */
  public final int localRank() {
    return (int) gatherTexts(machine()).subList(0, rank).stream().filter(machine()::equals).count();
  }

  /** What tells machines apart: a number that a kernel draws when it starts, else the name. */
  private static String machine() {
    try {
      Path drawn = Path.of("/proc/sys/kernel/random/boot_id");
      return Files.exists(drawn)
          ? Files.readString(drawn)
          : InetAddress.getLocalHost().getHostName();
    } catch (IOException nameless) {
      return "";
    }
  }

  /**
   * Waits for a point in a stream's work, and so for what other ranks have to do with it.
   *
   * @throws DistributedException if the deadline passes, or the devices' link fails
   */
  public void await(Event event) {
    event.synchronize();
  }

  /**
   * Sends a tensor to each rank and receives one from each.
   *
   * @param send what goes to each rank; null or an empty tensor for nothing. Nobody sends to
   *     itself: this rank's own entry is not looked at
   * @param receive where what comes from each rank goes, of the size that it sends; likewise
   * @throws DistributedException if the deadline passes, or the connection fails
   */
  public final void allToAll(
      Stream on, List<? extends @Nullable Tensor> send, List<? extends @Nullable Tensor> receive) {
    requireAll("tensors to send", send);
    requireAll("tensors to receive", receive);
    exchange(on, "all-to-all", send, receive);
  }

  /**
   * Receives from each rank what it has.
   *
   * @param parts one for each rank, of any sizes that all ranks agree on: this rank's own is sent
   *     to all others, theirs are received
   */
  public final void allGather(Stream on, List<Tensor> parts) {
    requireAll("parts to gather", parts);
    exchange(on, "all-gather", Collections.nCopies(size, parts.get(rank)), parts);
  }

  private void gather(List<Tensor> parts) {
    exchange("all-gather", Collections.nCopies(size, parts.get(rank)), parts);
  }

  /** Replaces values by those of one rank. */
  public final void broadcast(Stream on, Tensor values, int root) {
    requireHere(values);
    if (root < 0 || root >= size) {
      throw new OperandException("rank " + root + " to broadcast from is none of " + size);
    }
    List<@Nullable Tensor> nothing = new ArrayList<>(Collections.nCopies(size, null));
    if (rank == root) {
      exchange(on, "broadcast", Collections.nCopies(size, values), nothing);
    } else {
      List<@Nullable Tensor> receive = new ArrayList<>(nothing);
      receive.set(root, values);
      exchange(on, "broadcast", nothing, receive);
    }
  }

  /**
   * Replaces values by their sum over all ranks, in an order of the library's choice: their bits
   * depend on the number of ranks. Who needs the same bits gathers parts and adds them up.
   *
   * @param values F32
   */
  public final void allReduce(Stream on, Tensor values) {
    requireHere(values);
    if (values.type() != DataType.F32) {
      throw new OperandException("an all-reduce adds up F32, got " + values);
    }
    on.synchronize();
    sum(values);
  }

  /** Waits until all ranks have come here. */
  public final void barrier(Stream on) {
    on.synchronize();
    meet("barrier");
  }

  /** Waits until all ranks have come here, on the way to something. */
  protected final void meet(String what) {
    try (Tensor ticks = integers(size)) {
      exchange(what, Collections.nCopies(size, at(ticks, rank)), each(ticks));
    }
  }

  /** Whether something holds on any rank; collective. */
  public final boolean any(boolean here) {
    if (size == 1) {
      return here;
    }
    try (Tensor flags = integers(size)) {
      flags.put(rank, here ? 1 : 0);
      gather(each(flags));
      boolean any = false;
      for (int i = 0; i < size; i++) {
        any |= flags.get(i) != 0;
      }
      return any;
    }
  }

  /** A text from each rank, in their order: names, digests, messages; collective. */
  public final List<String> gatherTexts(String mine) {
    byte[] bytes = mine.getBytes(StandardCharsets.UTF_8);
    List<Tensor> texts = new ArrayList<>();
    try (Tensor lengths = integers(size)) {
      lengths.segment().setAtIndex(ValueLayout.JAVA_INT_UNALIGNED, rank, bytes.length);
      gather(each(lengths));
      for (int i = 0; i < size; i++) {
        int length = lengths.segment().getAtIndex(ValueLayout.JAVA_INT_UNALIGNED, i);
        texts.add(Tensor.allocate(Shape.of(length), DataType.U8, Layout.ROW_MAJOR));
      }
      texts.get(rank).segment().copyFrom(MemorySegment.ofArray(bytes));
      gather(texts);
      return texts.stream()
          .map(Tensor::segment)
          .map(text -> text.toArray(ValueLayout.JAVA_BYTE))
          .map(text -> new String(text, StandardCharsets.UTF_8))
          .toList();
    } finally {
      texts.forEach(Tensor::close);
    }
  }

  private static Tensor integers(int count) {
    return Tensor.allocate(Shape.of(count), DataType.I32, Layout.ROW_MAJOR);
  }

  private static Tensor at(Tensor tensor, int index) {
    return tensor.slice(index, Shape.of(1), Layout.ROW_MAJOR);
  }

  private List<Tensor> each(Tensor tensor) {
    List<Tensor> elements = new ArrayList<>();
    for (int i = 0; i < size; i++) {
      elements.add(at(tensor, i));
    }
    return elements;
  }

  private void requireAll(String what, List<? extends @Nullable Tensor> tensors) {
    if (tensors.size() != size) {
      throw new OperandException(
          "the " + what + " must be one for each of " + size + " ranks, got " + tensors.size());
    }
    for (@Nullable Tensor tensor : tensors) {
      if (tensor != null) {
        requireHere(tensor);
      }
    }
  }

  private void requireHere(Tensor tensor) {
    if (!tensor.device().equals(device())) {
      throw new OperandException(
          "only tensors on " + device() + " are exchanged here, got " + tensor);
    }
  }

  /** Exchanges after what the stream was given before. */
  void exchange(
      Stream on,
      String what,
      List<? extends @Nullable Tensor> send,
      List<? extends @Nullable Tensor> receive) {
    on.synchronize();
    exchange(what, send, receive);
  }

  /**
   * Implements exchanges of all kinds, in host memory; own entries are not to be looked at, null is
   * nothing.
   */
  protected abstract void exchange(
      String what, List<? extends @Nullable Tensor> send, List<? extends @Nullable Tensor> receive);

  /** Implements {@link #allReduce}: here each rank adds up a part, in the order of ranks. */
  protected void sum(Tensor values) {
    List<Tensor> parts = new ArrayList<>();
    long elements = values.shape().elements();
    for (int i = 0; i < size; i++) {
      long from = elements * i / size;
      Shape shape = Shape.of(Math.toIntExact(elements * (i + 1) / size - from));
      parts.add(values.slice(from, shape, Layout.ROW_MAJOR));
    }
    Tensor mine = parts.get(rank);
    List<Tensor> terms = new ArrayList<>();
    try {
      for (int i = 0; i < size; i++) {
        terms.add(Tensor.allocate(mine.shape(), DataType.F32, Layout.ROW_MAJOR));
      }
      terms.get(rank).segment().copyFrom(mine.segment());
      exchange("all-reduce", parts, terms);
      add(terms, mine.segment());
    } finally {
      terms.forEach(Tensor::close);
    }
    exchange("all-reduce", Collections.nCopies(size, mine), parts);
  }

  private static void add(List<Tensor> terms, MemorySegment to) {
    List<MemorySegment> from = terms.stream().map(Tensor::segment).toList();
    for (long i = 0; i < to.byteSize() / Float.BYTES; i++) {
      float sum = 0;
      for (MemorySegment term : from) {
        sum += term.getAtIndex(ValueLayout.JAVA_FLOAT_UNALIGNED, i);
      }
      to.setAtIndex(ValueLayout.JAVA_FLOAT_UNALIGNED, i, sum);
    }
  }

  /** A call that failed, told by its rank, name and number. */
  final DistributedException failure(String what, int call, String why) {
    return new DistributedException(
        "rank " + rank + " of " + size + ", " + what + " number " + call + ": " + why);
  }

  /** What a call that failed at its deadline says. */
  static String inVain(double seconds, List<Integer> missing) {
    String names = missing.stream().map(String::valueOf).collect(Collectors.joining(", "));
    return "waited "
        + seconds
        + " s in vain for "
        + (missing.isEmpty() ? "other ranks" : (missing.size() == 1 ? "rank " : "ranks ") + names);
  }

  /**
   * Ends the work of all ranks at once, without waiting for anybody. Where each has a process of
   * its own, these end, this one too: nothing after the call is run, and no shutdown hook need be.
   * For any thread.
   *
   * @param status their exit code, not 0
   */
  public abstract void abort(int status);

  /**
   * Leaves the others in order, once all have come here. Idempotent; does nothing after a failure.
   *
   * @throws DistributedException if others do not come before the deadline
   */
  @Override
  public abstract void close();
}
