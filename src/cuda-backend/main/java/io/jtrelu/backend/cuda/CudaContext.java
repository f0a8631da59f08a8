package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import jcuda.driver.CUcontext;
import jcuda.driver.JCudaDriver;

/** The primary context of a device: retained while open, current on every thread that calls. */
final class CudaContext implements AutoCloseable {
  private final CudaDevice device;
  private final CUcontext context = new CUcontext();
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

  /** Makes this context current on the calling thread; before any other call. */
  void enter() {
    lifetime.requireOpen();
    check(JCudaDriver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
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
