package io.jtrelu.backend;

/**
 * An ordered queue of work on one device: operations take effect in the order they were given, each
 * seeing the results of those before it. Work on different streams is unordered.
 *
 * <p>A stream is used by one thread at a time. On the CPU an operation has run when the call
 * returns; on a GPU it may still be under way until {@link #synchronize}.
 */
public interface Stream extends AutoCloseable {
  /** Waits until all work given so far has finished; reports what failed in it. */
  void synchronize();

  /** Waits, then releases the stream. Idempotent. */
  @Override
  void close();
}
