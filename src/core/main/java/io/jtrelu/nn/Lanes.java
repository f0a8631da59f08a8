package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Threads that share work, each with a stream and what its work needs beside it. Used by one thread
 * at a time.
 *
 * @param <S> what belongs to a lane; closed with it, before its stream
 */
final class Lanes<S extends AutoCloseable> implements AutoCloseable {
  /** Parts of a batch, each with gradients of its own: as many lanes can work on it. */
  static final int MAX_PARTS = 8;

  private final List<Lane<S>> lanes = new ArrayList<>();

  private record Lane<S>(ExecutorService thread, Stream stream, S state) {}

  /** Makes what belongs to a lane, on its thread. */
  interface Maker<S> {
    S make(Stream stream);
  }

  /** One of several pieces of work. */
  interface Task<S> {
    void run(S lane, int index);
  }

  Lanes(Backend backend, int count, Maker<S> maker) {
    try {
      for (int lane = 0; lane < count; lane++) {
        add(backend, Thread.ofPlatform().daemon().name("jtrelu-lane-" + lane), maker);
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  private void add(Backend backend, Thread.Builder name, Maker<S> maker) {
    ExecutorService thread = Executors.newSingleThreadExecutor(name.factory());
    try {
      lanes.add(
          thread
              .submit(
                  () -> {
                    Stream stream = backend.newStream();
                    try {
                      return new Lane<>(thread, stream, maker.make(stream));
                    } catch (RuntimeException | Error failure) {
                      stream.close();
                      throw failure;
                    }
                  })
              .get());
    } catch (ExecutionException failure) {
      thread.shutdown();
      throw unchecked(failure);
    } catch (InterruptedException interrupted) {
      thread.shutdown();
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while compiling a network", interrupted);
    }
  }

  /**
   * Runs a task for each index below a count, on all lanes at once, and waits until all is done,
   * streams included. Which lane takes which index is chance.
   */
  void share(int count, Task<S> task) {
    AtomicInteger next = new AtomicInteger();
    List<Future<?>> running = new ArrayList<>();
    for (Lane<S> lane : lanes) {
      running.add(
          lane.thread.submit(
              () -> {
                for (int i = next.getAndIncrement(); i < count; i = next.getAndIncrement()) {
                  task.run(lane.state, i);
                }
                lane.stream.synchronize();
              }));
    }
    ExecutionException failure = null;
    boolean interrupted = false;
    for (Future<?> future : running) {
      while (true) {
        try {
          future.get();
          break;
        } catch (ExecutionException failed) {
          if (failure == null) {
            failure = failed;
          } else {
            failure.getCause().addSuppressed(failed.getCause());
          }
          break;
        } catch (InterruptedException again) {
          interrupted = true; // finish the work first: memory is in use
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    if (failure != null) {
      throw unchecked(failure);
    }
  }

  private static RuntimeException unchecked(ExecutionException failure) {
    Throwable cause = failure.getCause();
    if (cause instanceof Error error) {
      throw error;
    }
    return cause instanceof RuntimeException runtime
        ? runtime
        : new IllegalStateException("a lane failed", cause);
  }

  @Override
  public void close() {
    while (!lanes.isEmpty()) {
      Lane<S> lane = lanes.getFirst();
      lane.thread.shutdown();
      try {
        lane.state.close();
      } catch (RuntimeException failure) {
        throw failure;
      } catch (Exception failure) {
        throw new IllegalStateException("closing a lane failed", failure);
      }
      lane.stream.close();
      lanes.removeFirst(); // what is refused is closed by the next call
    }
  }
}
