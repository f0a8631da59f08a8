package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Memory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import jcuda.Pointer;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;

/**
 * Host memory that the device reads and writes by itself, so that copies are asynchronous. It ends
 * with its backend, if not before; its segments with it.
 */
final class PinnedMemory extends Memory {
  private final CudaContext context;
  private final Pointer pointer;
  private final MemorySegment segment;
  private final CudaBackend backend;
  private final Arena arena = Arena.ofShared(); // ends with the memory, and segments with it
  private boolean freed;

  private PinnedMemory(
      CudaBackend backend, CudaContext context, long bytes, Driver.HostPointer pointer) {
    super(Device.CPU, bytes, true);
    this.backend = backend;
    this.context = context;
    this.pointer = pointer;
    this.segment = MemorySegment.ofAddress(pointer.address()).reinterpret(bytes, arena, null);
  }

  /** Allocates zeroed memory. */
  static PinnedMemory allocate(CudaBackend backend, CudaContext context, long bytes) {
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
    PinnedMemory memory = new PinnedMemory(backend, context, bytes, pointer);
    memory.segment.fill((byte) 0);
    return memory;
  }

  @Override
  protected long rawAddress() {
    requireAccess();
    return segment.address();
  }

  @Override
  protected MemorySegment hostSegment() {
    return segment;
  }

  @Override
  protected void requireAccess() {
    if (!arena.scope().isAlive()) {
      throw new IllegalStateException(
          "use after close: the backend that this memory came from is closed");
    }
  }

  @Override
  protected void release() {
    backend.forget(this);
    free();
  }

  /** Ends the memory, with its backend or before. */
  synchronized void free() {
    if (freed) {
      return;
    }
    arena.close(); // refused while a native call reads a segment
    freed = true;
    context.enter();
    try {
      backend.quiesce(); // a copy may be on its way
      check(JCudaDriver.cuMemFreeHost(pointer), "cuMemFreeHost", bytes());
    } finally {
      context.leave();
    }
  }
}
