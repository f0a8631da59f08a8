package io.jtrelu.backend.reference;

import io.jtrelu.backend.Stream;

/** Whether a closeable thing is still open. */
final class Lifetime {
  private final String what;
  private volatile boolean closed;

  /**
   * @param what name of the thing, for messages
   */
  Lifetime(String what) {
    this.what = what;
  }

  /** Throws IllegalStateException after close. */
  void requireOpen() {
    if (closed) {
      throw new IllegalStateException("use after close: this " + what + " is closed");
    }
  }

  /** Requires this and a stream of this backend to be open. */
  void requireOpen(Stream stream) {
    requireOpen();
    if (!(stream instanceof ReferenceStream own)) {
      throw new IllegalArgumentException(
          "this " + what + " runs on streams of the reference backend, got " + stream);
    }
    own.requireOpen();
  }

  void close() {
    closed = true;
  }
}
