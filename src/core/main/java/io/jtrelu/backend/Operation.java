package io.jtrelu.backend;

/**
 * An operation prepared for one descriptor on one backend.
 *
 * <p>Immutable after preparation: it may run on several streams at once. It is closed by whoever
 * prepared it, before its backend; close is idempotent and use after close throws {@link
 * IllegalStateException}. While it runs, close throws {@link IllegalStateException} and leaves it
 * open.
 */
public interface Operation extends AutoCloseable {
  @Override
  void close();
}
