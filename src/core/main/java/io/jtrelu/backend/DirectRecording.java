package io.jtrelu.backend;

import io.jtrelu.tensor.Lifetime;

/** Runs the work anew: for backends whose operations cost the host no more that way. */
final class DirectRecording implements Recording {
  private final Runnable work;
  private final Lifetime lifetime = new Lifetime("recording");

  DirectRecording(Runnable work) {
    this.work = work;
  }

  @Override
  public void replay(Stream stream) {
    lifetime.acquire();
    try {
      work.run();
    } finally {
      lifetime.release();
    }
  }

  @Override
  public void close() {
    lifetime.close();
  }
}
