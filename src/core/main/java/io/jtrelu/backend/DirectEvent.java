package io.jtrelu.backend;

import io.jtrelu.tensor.Lifetime;

/** For backends whose operations have run when the call returns: there is nothing to wait for. */
final class DirectEvent implements Event {
  private final Lifetime lifetime = new Lifetime("event");

  @Override
  public void record(Stream stream) {
    lifetime.requireOpen();
  }

  @Override
  public void await(Stream stream) {
    lifetime.requireOpen();
  }

  @Override
  public void synchronize() {
    lifetime.requireOpen();
  }

  @Override
  public void close() {
    lifetime.close();
  }
}
