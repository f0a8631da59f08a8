package io.jtrelu.backend.onednn;

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

  /** Requires this and a stream of this kind to be open, and returns that stream. */
  OneDnnStream requireOpen(Stream stream) {
    requireOpen();
    if (!(stream instanceof OneDnnStream own)) {
      throw new IllegalArgumentException(
          "this " + what + " runs on streams of the onednn backend, got " + stream);
    }
    own.requireOpen();
    return own;
  }

  /** Marks it closed; true for the first call. */
  synchronized boolean close() {
    boolean first = !closed;
    closed = true;
    return first;
  }
}
