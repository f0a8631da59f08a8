package io.jtrelu.backend;

/**
 * A point in a stream's work that the host or another stream can wait for: {@link
 * Backend#newEvent}. It can be recorded again and again; a wait is for the last recording before
 * it, and returns at once where there is none.
 *
 * <p>Used by one thread at a time; closed before its backend.
 */
public interface Event extends AutoCloseable {
  /**
   * Marks the end of the work given to a stream so far.
   *
   * @throws IllegalArgumentException if the stream is of another backend
   */
  void record(Stream stream);

  /**
   * Makes the work that is given to a stream from now on wait for the marked point; the host does
   * not wait.
   *
   * @throws IllegalArgumentException if the stream is of another backend
   */
  void await(Stream stream);

  /** Makes the host wait for the marked point; reports what failed before it. */
  void synchronize();

  /**
   * Releases it. Idempotent.
   *
   * @throws IllegalStateException while a thread uses it; it stays open
   */
  @Override
  void close();
}
