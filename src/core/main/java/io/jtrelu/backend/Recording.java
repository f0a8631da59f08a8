package io.jtrelu.backend;

/**
 * Operations that were given to a stream once and run again as one: {@link Backend#record}. On a
 * GPU a whole training step then costs the host a single launch.
 *
 * <p>Tensors, operations and packed weights in it must stay open as long as it; it is closed before
 * its backend. It runs on one stream at a time.
 */
public interface Recording extends AutoCloseable {
  /**
   * Runs the recorded operations on the same tensors, with the scalar arguments of then.
   *
   * @throws IllegalStateException after close
   */
  void replay(Stream stream);

  /** Releases it; work under way must have finished. Idempotent. */
  @Override
  void close();
}
