package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;

/** What every operation has: its backend and whether it is open. */
final class Prepared {
  private final CudaBackend backend;
  private final Lifetime lifetime;

  Prepared(CudaBackend backend, String what) {
    this.backend = backend;
    this.lifetime = new Lifetime(what);
  }

  Device device() {
    return backend.device();
  }

  boolean belongsTo(CudaBackend other) {
    return backend == other;
  }

  /** Throws where the operation is closed. */
  void requireOpen() {
    lifetime.requireOpen();
  }

  /** The stream to launch on; throws where the operation is closed or the stream is foreign. */
  CudaStream on(Stream stream) {
    lifetime.requireOpen();
    return backend.own(stream);
  }

  void close() {
    lifetime.close();
  }
}
