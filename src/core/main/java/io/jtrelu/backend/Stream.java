package io.jtrelu.backend;

/**
 * An ordered queue of work on one device: operations take effect in the order they were given, each
 * seeing the results of those before it. Work on different streams is unordered.
 *
 * <p>A stream is used by one thread at a time: while it works for one, others are refused with
 * {@link IllegalStateException}. What an operation was given (its operands and packed weights, the
 * operation and the stream themselves) cannot be closed while the call lasts. On the CPU an
 * operation has run when the call returns; on a GPU it may still be under way until {@link
 * #synchronize}.
 */
public interface Stream extends AutoCloseable {
  /**
   * Waits until all work given so far has finished; reports what failed in it.
   *
   * @throws IllegalStateException after close, or while another thread uses the stream
   */
  void synchronize();

  /**
   * Waits, then releases the stream. Idempotent.
   *
   * @throws IllegalStateException while a thread uses the stream; it stays open
   */
  @Override
  void close();
}
