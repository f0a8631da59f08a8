package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.tensor.Lifetime;
import jcuda.driver.CUcontext;
import jcuda.driver.JCudaDriver;

/**
 * The primary context of a device: retained while open, and current on a calling thread for as long
 * as a call takes. It is pushed and popped, so the thread's context (another library's, or none) is
 * afterwards what it was; that costs two calls of the driver that touch nothing but the thread.
 */
final class CudaContext implements AutoCloseable {
  private final CudaDevice device;
  private final CUcontext context = new CUcontext();
  private final CUcontext popped = new CUcontext(); // nobody reads it
  private final Lifetime lifetime = new Lifetime("CUDA context");

  CudaContext(CudaDevice device) {
    this.device = device;
    check(
        JCudaDriver.cuDevicePrimaryCtxRetain(context, CudaDevice.handle(device.index())),
        "cuDevicePrimaryCtxRetain");
  }

  CudaDevice device() {
    return device;
  }

  /** Makes this context current on the calling thread, until {@link #leave}; may be nested. */
  void enter() {
    lifetime.requireOpen();
    check(JCudaDriver.cuCtxPushCurrent(context), "cuCtxPushCurrent");
  }

  /** Makes the context current that was so before {@link #enter}. */
  void leave() {
    check(JCudaDriver.cuCtxPopCurrent(popped), "cuCtxPopCurrent");
  }

  @Override
  public void close() {
    if (lifetime.close()) {
      check(
          JCudaDriver.cuDevicePrimaryCtxRelease(CudaDevice.handle(device.index())),
          "cuDevicePrimaryCtxRelease");
    }
  }
}
