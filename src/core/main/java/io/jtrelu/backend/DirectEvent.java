package io.jtrelu.backend;

/** For backends whose operations have run when the call returns: there is nothing to wait for. */
final class DirectEvent implements Event {
  private volatile boolean closed;

  private void requireOpen() {
    if (closed) {
      throw new IllegalStateException("use after close: this event is closed");
    }
  }

  @Override
  public void record(Stream stream) {
    requireOpen();
  }

  @Override
  public void await(Stream stream) {
    requireOpen();
  }

  @Override
  public void synchronize() {
    requireOpen();
  }

  @Override
  public void close() {
    closed = true;
  }
}
