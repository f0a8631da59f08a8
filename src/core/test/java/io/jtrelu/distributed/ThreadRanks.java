package io.jtrelu.distributed;

import io.jtrelu.tensor.Tensor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/** Ranks that are threads of this process, for tests: they copy from each other's tensors. */
public final class ThreadRanks {
  private static final int SECONDS = 60;

  /** That is told to who waits for devices. */
  static final Duration DEADLINE = Duration.ofSeconds(1);

  private final CyclicBarrier meeting;
  private final List<List<? extends @Nullable Tensor>> sent = new ArrayList<>();

  private ThreadRanks(int count) {
    meeting = new CyclicBarrier(count);
    for (int i = 0; i < count; i++) {
      sent.add(List.of());
    }
  }

  /** What one rank does. */
  public interface Body<T> {
    /** Does it. */
    T run(Communicator ranks) throws Exception;
  }

  /** Runs as many ranks at once, and returns what each of them returned. */
  public static <T> List<T> run(int count, Body<T> body) {
    ThreadRanks all = new ThreadRanks(count);
    try (ExecutorService threads = Executors.newFixedThreadPool(count)) {
      List<Future<T>> running = new ArrayList<>();
      for (int rank = 0; rank < count; rank++) {
        Rank mine = all.new Rank(rank, count);
        running.add(threads.submit(() -> all.run(mine, body)));
      }
      List<T> results = new ArrayList<>();
      for (Future<T> future : running) {
        results.add(future.get());
      }
      return results;
    } catch (ExecutionException failure) {
      throw new AssertionError(failure.getCause());
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }

  private <T> T run(Rank rank, Body<T> body) throws Exception {
    try (rank) {
      return body.run(rank);
    } catch (Exception | Error failure) {
      meeting.reset(); // the others need not wait
      throw failure;
    }
  }

  private final class Rank extends Communicator {
    Rank(int rank, int size) {
      super(rank, size);
    }

    @Override
    public String name() {
      return "threads";
    }

    @Override
    public Duration deadline() {
      return ThreadRanks.DEADLINE; // not that of communicators
    }

    @Override
    protected void exchange(
        String what,
        List<? extends @Nullable Tensor> send,
        List<? extends @Nullable Tensor> receive) {
      sent.set(rank(), send);
      await();
      for (int other = 0; other < size(); other++) {
        Tensor to = receive.get(other);
        Tensor from = sent.get(other).get(rank());
        if (other != rank() && to != null && from != null) {
          if (to.bytes() != from.bytes()) {
            throw new AssertionError(what + ": " + from + " does not fit " + to);
          }
          to.segment().copyFrom(from.segment());
        }
      }
      await();
    }

    private void await() {
      try {
        meeting.await(SECONDS, TimeUnit.SECONDS);
      } catch (BrokenBarrierException | TimeoutException | InterruptedException failure) {
        throw new AssertionError("rank " + rank() + " waits in vain", failure);
      }
    }

    @Override
    public void abort(int status) {
      throw new UnsupportedOperationException();
    }

    @Override
    public void close() {}
  }
}
