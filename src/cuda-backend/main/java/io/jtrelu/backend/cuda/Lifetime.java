package io.jtrelu.backend.cuda;

import java.util.concurrent.atomic.AtomicBoolean;

/** Whether a closeable thing is still open. */
final class Lifetime {
  private final String what;
  private final AtomicBoolean closed = new AtomicBoolean();

  /**
   * @param what name of the thing, for messages
   */
  Lifetime(String what) {
    this.what = what;
  }

  /** Throws IllegalStateException after close. */
  void requireOpen() {
    if (closed.get()) {
      throw new IllegalStateException("use after close: this " + what + " is closed");
    }
  }

  /** Closes; true the first time. */
  boolean close() {
    return closed.compareAndSet(false, true);
  }
}
