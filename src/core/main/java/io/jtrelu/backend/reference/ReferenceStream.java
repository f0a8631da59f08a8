package io.jtrelu.backend.reference;

import io.jtrelu.backend.Stream;

/** Work is done when the call returns, so there is nothing to wait for. */
final class ReferenceStream implements Stream {
  private final Lifetime lifetime = new Lifetime("stream");

  void requireOpen() {
    lifetime.requireOpen();
  }

  @Override
  public void synchronize() {
    requireOpen();
  }

  @Override
  public void close() {
    lifetime.close();
  }
}
