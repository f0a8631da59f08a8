package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Memory;
import java.lang.foreign.MemorySegment;
import jcuda.Pointer;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;

/** Host memory that the device reads and writes by itself, so that copies are asynchronous. */
final class PinnedMemory extends Memory {
  private final CudaContext context;
  private final Pointer pointer;
  private final MemorySegment segment;

  private PinnedMemory(CudaContext context, long bytes, Pointer pointer, MemorySegment segment) {
    super(Device.CPU, bytes, true);
    this.context = context;
    this.pointer = pointer;
    this.segment = segment;
  }

  /** Allocates zeroed memory. */
  static PinnedMemory allocate(CudaContext context, long bytes) {
    Driver.HostPointer pointer = new Driver.HostPointer();
    int result;
    context.enter();
    try {
      result = JCudaDriver.cuMemHostAlloc(pointer, Math.max(bytes, 1), 0);
    } finally {
      context.leave();
    }
    if (result == CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
      throw new io.jtrelu.backend.OutOfMemoryException(
          "the host has no room for "
              + bytes
              + " bytes of pinned memory; use a smaller batch, or raise the limit on locked memory"
              + " (ulimit -l)");
    }
    check(result, "cuMemHostAlloc", bytes);
    MemorySegment segment = MemorySegment.ofAddress(pointer.address()).reinterpret(bytes);
    segment.fill((byte) 0);
    return new PinnedMemory(context, bytes, pointer, segment);
  }

  @Override
  protected long rawAddress() {
    return segment.address();
  }

  @Override
  protected MemorySegment hostSegment() {
    return segment;
  }

  @Override
  protected void release() {
    context.enter();
    try {
      check(JCudaDriver.cuMemFreeHost(pointer), "cuMemFreeHost", bytes());
    } finally {
      context.leave();
    }
  }
}
