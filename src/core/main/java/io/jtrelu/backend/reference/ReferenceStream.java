package io.jtrelu.backend.reference;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.Stream;

/** Work is done when the call returns, so there is nothing to wait for. */
final class ReferenceStream extends BackendStream {
  private final ReferenceBackend backend;

  ReferenceStream(ReferenceBackend backend) {
    this.backend = backend;
  }

  /** Requires a stream of this kind of backend. */
  static ReferenceStream require(Stream stream) {
    if (stream instanceof ReferenceStream own) {
      return own;
    }
    throw new IllegalArgumentException(
        "operations of the reference backend run on streams of its own, got " + stream);
  }

  @Override
  protected void await() {}

  @Override
  protected void release() {
    backend.forget(this);
  }
}
