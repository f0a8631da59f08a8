package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.Event;
import io.jtrelu.backend.Stream;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.JCudaDriver;

/** An event of the driver, without a time. */
final class CudaEvent implements Event {
  private final CudaBackend backend;
  private final CudaContext context;
  private final CUevent handle = new CUevent();
  private final Lifetime lifetime = new Lifetime("event");

  CudaEvent(CudaBackend backend, CudaContext context) {
    this.backend = backend;
    this.context = context;
    // The host sleeps while it waits: data loaders want its core.
    int flags = CUevent_flags.CU_EVENT_DISABLE_TIMING | CUevent_flags.CU_EVENT_BLOCKING_SYNC;
    context.enter();
    try {
      check(JCudaDriver.cuEventCreate(handle, flags), "cuEventCreate");
    } finally {
      context.leave();
    }
  }

  @Override
  public void record(Stream stream) {
    lifetime.requireOpen();
    backend.own(stream).record(handle);
  }

  @Override
  public void await(Stream stream) {
    lifetime.requireOpen();
    backend.own(stream).await(handle);
  }

  @Override
  public void synchronize() {
    lifetime.requireOpen();
    context.enter();
    try {
      check(JCudaDriver.cuEventSynchronize(handle), "cuEventSynchronize");
    } finally {
      context.leave();
    }
  }

  @Override
  public void close() {
    if (lifetime.close()) {
      context.enter();
      try {
        check(JCudaDriver.cuEventDestroy(handle), "cuEventDestroy");
      } finally {
        context.leave();
      }
    }
  }
}
