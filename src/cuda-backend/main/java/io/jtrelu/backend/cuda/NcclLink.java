package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Link;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Lifetime;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * GPUs of several processes, each of one, that NCCL links: an exchange is a group of {@code
 * ncclSend} and {@code ncclRecv}. Parts may be of different sizes, and what a GPU sends and
 * receives are the bytes of NCCL's own all-gather.
 *
 * <p>A communicator that was aborted or destroyed must not be touched: whoever does something with
 * it holds the lock.
 */
final class NcclLink implements Link {
  private static final int ID_BYTES = 128;
  private static final int IN_PROGRESS = 7;

  /** How long to wait at the end for others, who may have failed. */
  private static final Duration PARTING = Duration.ofSeconds(5);

  private final CudaBackend backend;
  private final CudaContext context;
  private final ForeignLibrary nccl;
  private final String title;
  private final long communicator;
  private final int rank;
  private final Lifetime lifetime = new Lifetime("link");
  private final Object lock = new Object();
  private boolean over; // guarded by it

  private NcclLink(
      CudaBackend backend,
      CudaContext context,
      NvidiaLibrary library,
      byte[] id,
      int rank,
      int size) {
    this.backend = backend;
    this.context = context;
    this.nccl = library.functions();
    this.title = title(library);
    this.rank = rank;
    context.enter();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment made = arena.allocate(JAVA_LONG);
      var struct = new ForeignLibrary.Struct(arena.allocateFrom(JAVA_BYTE, id));
      nccl.call("ncclCommInitRank", "rank " + rank + " of " + size, made, size, struct, rank);
      communicator = made.get(JAVA_LONG, 0);
    } finally {
      context.leave();
    }
  }

  /** Name and version. */
  static String title(NvidiaLibrary library) {
    return "NCCL " + library.version();
  }

  /** What the first of several processes makes for all. */
  static byte[] newId(NvidiaLibrary library) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment id = arena.allocate(ID_BYTES);
      library.functions().call("ncclGetUniqueId", "", id);
      return id.toArray(JAVA_BYTE);
    }
  }

  /** Links a device; all processes do it at once. */
  static NcclLink open(
      CudaBackend backend,
      CudaContext context,
      NvidiaLibrary library,
      byte[] id,
      int rank,
      int size,
      Duration deadline) {
    CompletableFuture<NcclLink> opening =
        begin(
            () -> {
              NcclLink link = new NcclLink(backend, context, library, id, rank, size);
              link.meet(size);
              return link;
            });
    try {
      return opening.get(deadline.toNanos(), TimeUnit.NANOSECONDS);
    } catch (TimeoutException late) {
      throw new BackendUnavailableException(
          title(library)
              + " has not linked rank "
              + rank
              + " of "
              + size
              + " in "
              + deadline.toMillis() * 1e-3
              + " s: the environment variable NCCL_DEBUG=INFO makes it tell what it tries",
          late);
    } catch (ExecutionException failure) {
      Throwable cause = failure.getCause();
      throw new BackendUnavailableException(String.valueOf(cause.getMessage()), cause);
    } catch (InterruptedException interrupted) {
      throw new BackendUnavailableException("interrupted while NCCL links devices", interrupted);
    }
  }

  /** In a thread of its own, as a call of NCCL has no deadline. */
  private static <T> CompletableFuture<T> begin(Supplier<T> work) {
    return CompletableFuture.supplyAsync(
        work, task -> Thread.ofPlatform().daemon().name("jtrelu-nccl").start(task));
  }

  /** Connects each pair now: nothing is left to be set up in a recording. */
  private void meet(int size) {
    try (Stream stream = backend.newStream();
        Tensor words = backend.allocate(Shape.of(size), DataType.I32, Layout.ROW_MAJOR)) {
      List<Tensor> each = new ArrayList<>();
      for (int i = 0; i < size; i++) {
        each.add(words.slice(i, Shape.of(1), Layout.ROW_MAJOR));
      }
      exchange(stream, Collections.nCopies(size, each.get(rank)), each);
      stream.synchronize();
    }
    String failure = failure();
    if (failure != null) {
      throw new BackendUnavailableException(failure);
    }
  }

  @Override
  public String name() {
    return title;
  }

  @Override
  public void exchange(
      Stream on, List<? extends @Nullable Tensor> send, List<? extends @Nullable Tensor> receive) {
    CudaStream stream = backend.own(on);
    try (BackendStream.Use use = stream.use("exchange")) {
      use.holds(lifetime);
      for (int peer = 0; peer < send.size(); peer++) {
        Tensor to = message(send, peer);
        Tensor from = message(receive, peer);
        if (to != null) {
          use.reads(to);
        }
        if (from != null) {
          use.writes("receive", from);
        }
      }
      stream.give(handle -> group(handle, send, receive));
    }
  }

  /** What goes to or comes from another rank; null where nothing does. */
  private @Nullable Tensor message(List<? extends @Nullable Tensor> tensors, int peer) {
    Tensor tensor = peer == rank ? null : tensors.get(peer);
    return tensor == null || tensor.bytes() == 0 ? null : tensor;
  }

  private void group(
      long stream,
      List<? extends @Nullable Tensor> send,
      List<? extends @Nullable Tensor> receive) {
    synchronized (lock) {
      if (over) {
        throw new IllegalStateException("the link is closed, or has failed");
      }
      nccl.call("ncclGroupStart", "");
      try {
        for (int peer = 0; peer < send.size(); peer++) {
          pass("ncclSend", message(send, peer), peer, stream);
          pass("ncclRecv", message(receive, peer), peer, stream);
        }
      } finally {
        nccl.call("ncclGroupEnd", "");
      }
    }
  }

  private void pass(String function, @Nullable Tensor tensor, int peer, long stream) {
    if (tensor != null) {
      long count = tensor.shape().elements();
      int type = type(tensor.type());
      nccl.call(function, tensor, tensor.address(), count, type, peer, communicator, stream);
    }
  }

  /** ncclDataType_t. */
  private static int type(DataType type) {
    return switch (type) {
      case U8 -> 1;
      case I32 -> 2;
      case F16 -> 6;
      case F32 -> 7;
      case BF16 -> 9;
    };
  }

  @Override
  public @Nullable String failure() {
    synchronized (lock) {
      if (over) {
        return null;
      }
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment status = arena.allocate(JAVA_INT);
        nccl.call("ncclCommGetAsyncError", "", communicator, status);
        int found = status.get(JAVA_INT, 0);
        if (found == 0 || found == IN_PROGRESS) {
          return null;
        }
        String detail = nccl.text("ncclGetLastError", communicator);
        return title
            + " reports: "
            + nccl.nameOf(found)
            + (detail.isEmpty() ? "" : " (" + detail.strip() + ")");
      }
    }
  }

  /** The context is not needed, and may be in the hands of a thread that waits for the device. */
  @Override
  public void abort() {
    synchronized (lock) {
      if (!over) {
        over = true;
        nccl.call("ncclCommAbort", "", communicator);
      }
    }
  }

  @Override
  public void close() {
    if (!lifetime.close()) {
      return;
    }
    synchronized (lock) {
      if (over) {
        return;
      }
      over = true;
    }
    CompletableFuture<Boolean> parting =
        begin(
            () -> {
              context.enter();
              try {
                nccl.call("ncclCommDestroy", "", communicator);
              } finally {
                context.leave();
              }
              return true;
            });
    try {
      parting.get(PARTING.toMillis(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException | InterruptedException alone) {
      // The others have failed, or this process has: it ends soon, and the communicator with it.
    } catch (ExecutionException failure) {
      throw new IllegalStateException(failure.getCause());
    }
  }
}
