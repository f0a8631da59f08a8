package io.jtrelu.backend;

/**
 * Operations that were given to a stream once and run again as one: {@link Backend#record}. On a
 * GPU a whole training step then costs the host a single launch.
 *
 * <p>Tensors, operations, packed weights and the stream in it must stay open as long as it: where
 * it holds them, their close is refused with {@link IllegalStateException}, else the replay is. It
 * is closed before its backend. It runs on one stream at a time.
 */
public interface Recording extends AutoCloseable {
  /**
   * Runs the recorded operations on the same tensors, with the scalar arguments of then.
   *
   * @throws IllegalStateException after close, or if something in it was closed
   */
  void replay(Stream stream);

  /**
   * Waits for its work under way, then releases it and what it holds. Idempotent.
   *
   * @throws IllegalStateException while a thread replays it; it stays open
   */
  @Override
  void close();
}
