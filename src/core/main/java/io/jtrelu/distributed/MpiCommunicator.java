package io.jtrelu.distributed;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.Availability;
import io.jtrelu.distributed.Launcher.Family;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.List;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Processes that an MPI connects: Open MPI or MPICH, whichever started them. Exchanges are messages
 * between pairs of ranks, so that a wait that ends at its deadline can tell who was missing.
 *
 * <p>MPI starts once in a process: one communicator for as long as it lives.
 */
public final class MpiCommunicator extends Communicator {
  /** Bytes of one message; MPI counts them in an int. */
  private static final long MESSAGE_BYTES = 1L << 30;

  private static final int TAGS = 1 << 14; // that any MPI has

  private final MpiLibrary mpi;
  private final double seconds;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment send;
  private final MemorySegment sendBytes;
  private final MemorySegment receive;
  private final MemorySegment receiveBytes;
  private final MemorySegment missing;
  private int calls;
  private boolean over;

  private MpiCommunicator(MpiLibrary mpi, int rank, int size, Duration deadline) {
    super(rank, size);
    this.mpi = mpi;
    this.seconds = deadline.toNanos() * 1e-9;
    this.send = arena.allocate(ADDRESS, size);
    this.sendBytes = arena.allocate(JAVA_LONG, size);
    this.receive = arena.allocate(ADDRESS, size);
    this.receiveBytes = arena.allocate(JAVA_LONG, size);
    this.missing = arena.allocate(JAVA_INT, size);
  }

  /**
   * Starts MPI in a process that a launcher started.
   *
   * @throws DistributedException if its MPI is not there, does not start, or sees other processes
   *     than the launcher says
   */
  static MpiCommunicator open(Launcher launcher, Duration deadline) {
    if (!(deadline.toNanos() > 0)) {
      throw new IllegalArgumentException("the deadline must be positive, got " + deadline);
    }
    MpiLibrary mpi;
    try {
      mpi = MpiLibrary.load(launcher.family());
    } catch (DistributedException missing) {
      throw new DistributedException(
          launcher.name()
              + " started this as one of "
              + launcher.size()
              + " processes, but "
              + missing.getMessage(),
          missing);
    }
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment rank = arena.allocate(JAVA_INT);
      MemorySegment size = arena.allocate(JAVA_INT);
      if (mpi.start(rank, size) != MpiLibrary.OK) {
        throw new DistributedException(mpi.title() + " does not start: " + mpi.error());
      }
      int ranks = size.get(JAVA_INT, 0);
      if (ranks != launcher.size()) {
        throw new DistributedException(
            launcher.name()
                + " started "
                + launcher.size()
                + " processes, but "
                + mpi.title()
                + " sees "
                + ranks
                + ": the launcher is not that MPI's; use the mpirun or mpiexec that came with it");
      }
      return new MpiCommunicator(mpi, rank.get(JAVA_INT, 0), ranks, deadline);
    }
  }

  /** Whether processes that a kind of MPI starts could be brought together here; starts nothing. */
  public static Availability availability(Family family) {
    try {
      return new Availability.Available(MpiLibrary.load(family).title(), List.of());
    } catch (DistributedException missing) {
      return new Availability.Unavailable(String.valueOf(missing.getMessage()));
    }
  }

  @Override
  public String name() {
    return mpi.title();
  }

  @Override
  public Duration deadline() {
    return Duration.ofNanos((long) (seconds * 1e9));
  }

  @Override
  protected void exchange(
      String what, List<? extends @Nullable Tensor> to, List<? extends @Nullable Tensor> from) {
    requireUsable();
    int tag = calls++ % TAGS;
    long most = Math.max(longest(to), longest(from));
    long at = 0;
    do {
      enter(to, at, send, sendBytes);
      enter(from, at, receive, receiveBytes);
      int result = mpi.exchange(send, sendBytes, receive, receiveBytes, tag, seconds, missing);
      requireDone(what, result);
      at += MESSAGE_BYTES;
    } while (at < most);
  }

  private @Nullable Tensor other(List<? extends @Nullable Tensor> tensors, int index) {
    return index == rank() ? null : tensors.get(index);
  }

  private long longest(List<? extends @Nullable Tensor> tensors) {
    long longest = 0;
    for (int i = 0; i < size(); i++) {
      Tensor tensor = other(tensors, i);
      longest = tensor == null ? longest : Math.max(longest, tensor.bytes());
    }
    return longest;
  }

  /** Enters what goes to, or comes from, each rank in one message: that from a byte on. */
  private void enter(
      List<? extends @Nullable Tensor> tensors,
      long at,
      MemorySegment addresses,
      MemorySegment counts) {
    for (int i = 0; i < size(); i++) {
      Tensor tensor = other(tensors, i);
      long left = tensor == null ? 0 : Math.max(0, tensor.bytes() - at);
      MemorySegment from =
          tensor == null || left == 0 ? MemorySegment.NULL : tensor.segment().asSlice(at);
      addresses.setAtIndex(ADDRESS, i, from);
      counts.setAtIndex(JAVA_LONG, i, Math.min(left, MESSAGE_BYTES));
    }
  }

  @Override
  protected void sum(Tensor values) {
    requireUsable();
    missing.fill((byte) 0); // nobody knows
    long most = MESSAGE_BYTES / Float.BYTES;
    long elements = values.shape().elements();
    for (long at = 0; at < elements; at += most) {
      MemorySegment from = values.segment().asSlice(at * Float.BYTES);
      requireDone("all-reduce", mpi.sum(from, Math.min(most, elements - at), seconds));
    }
  }

  private void requireUsable() {
    if (over) {
      throw new IllegalStateException("the communicator is closed, or a call of it has failed");
    }
  }

  private void requireDone(String what, int result) {
    if (result == MpiLibrary.OK) {
      return;
    }
    over = true;
    throw failure(
        what, calls, result == MpiLibrary.DEADLINE ? inVain(seconds, missing()) : mpi.error());
  }

  private List<Integer> missing() {
    return IntStream.range(0, size())
        .filter(i -> missing.getAtIndex(JAVA_INT, i) != 0)
        .boxed()
        .toList();
  }

  @Override
  public void abort(int status) {
    mpi.abort(status);
  }

  @Override
  public void close() {
    if (over) {
      return;
    }
    meet("leaving"); // MPI's own way to leave has no deadline
    over = true;
    int result = mpi.finish();
    arena.close();
    requireDone("leaving", result);
  }
}
