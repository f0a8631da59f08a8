package io.jtrelu.backend;

import io.jtrelu.tensor.Lifetime;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * Whether a backend is open, and its open streams (for backends). It closes as a whole or not at
 * all: while a thread uses one of the streams, or prepares something, it is refused and nothing has
 * changed. As all work goes through streams, and these close with it, nothing runs afterwards.
 *
 * <p>Thread-safe.
 *
 * @param <S> the backend's streams
 */
public final class BackendLifetime<S extends BackendStream> {
  private final Lifetime lifetime;
  private final Set<S> streams = ConcurrentHashMap.newKeySet();

  /**
   * @param what name of the backend, for messages
   */
  public BackendLifetime(String what) {
    lifetime = new Lifetime(what);
  }

  /** Whether the backend is open. */
  public boolean isOpen() {
    return !lifetime.isClosed();
  }

  /**
   * Requires the backend to be open now.
   *
   * @throws IllegalStateException after close
   */
  public void requireOpen() {
    lifetime.requireOpen();
  }

  /**
   * Prepares something, during which the backend stays open.
   *
   * @throws IllegalStateException after close
   */
  public <T> T during(Supplier<T> preparation) {
    lifetime.acquire();
    try {
      return preparation.get();
    } finally {
      lifetime.release();
    }
  }

  /**
   * Makes a stream, which is closed with the backend if not before.
   *
   * @throws IllegalStateException after close
   */
  public synchronized S newStream(Supplier<S> maker) {
    lifetime.requireOpen();
    S stream = maker.get();
    streams.add(stream);
    return stream;
  }

  /** Forgets a stream that closes. */
  public void forget(S stream) {
    streams.remove(stream);
  }

  /** Does something with each open stream. */
  public void forEachStream(Consumer<S> action) {
    streams.forEach(action);
  }

  /**
   * Closes the streams, and the backend for everything else. Idempotent.
   *
   * @param release gives back what the backend held; run by the call that closed it
   * @throws IllegalStateException if something is running or being prepared; all stays open
   */
  public synchronized void close(Runnable release) {
    if (lifetime.isClosed()) {
      return;
    }
    List<S> taken = new ArrayList<>();
    try {
      for (S stream : streams) {
        if (stream.takeToClose()) {
          taken.add(stream);
        }
      }
      lifetime.close();
    } catch (RuntimeException refused) {
      taken.forEach(BackendStream::giveBack);
      throw refused;
    }
    RuntimeException failure = null;
    for (S stream : taken) {
      try {
        stream.closeTaken();
      } catch (RuntimeException failed) {
        if (failure == null) {
          failure = failed;
        } else {
          failure.addSuppressed(failed);
        }
      }
    }
    release.run();
    if (failure != null) {
      throw failure;
    }
  }
}
