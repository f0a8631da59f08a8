package io.jtrelu.backend;

/** Runs the work anew: for backends whose operations cost the host no more that way. */
final class DirectRecording implements Recording {
  private final Runnable work;
  private volatile boolean closed;

  DirectRecording(Runnable work) {
    this.work = work;
  }

  @Override
  public void replay(Stream stream) {
    if (closed) {
      throw new IllegalStateException("use after close: this recording is closed");
    }
    work.run();
  }

  @Override
  public void close() {
    closed = true;
  }
}
