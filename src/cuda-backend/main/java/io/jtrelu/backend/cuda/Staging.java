package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import java.lang.foreign.MemorySegment;
import jcuda.Pointer;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;

/**
 * Two buffers of pinned host memory that uploads of one stream pass through in turn: while the
 * device reads one, the host fills the other. Only from pinned memory is a copy asynchronous.
 */
final class Staging implements AutoCloseable {
  private static final int BUFFERS = 2;
  private static final long BYTES = 1L << 20;

  private final Pointer[] pinned = new Pointer[BUFFERS];
  private final MemorySegment[] buffer = new MemorySegment[BUFFERS];
  private final CUevent[] read = new CUevent[BUFFERS];
  private int next;

  /** The context must be current. */
  Staging() {
    for (int i = 0; i < BUFFERS; i++) {
      pinned[i] = new Pointer();
      check(JCudaDriver.cuMemHostAlloc(pinned[i], BYTES, 0), "cuMemHostAlloc", BYTES);
      buffer[i] = MemorySegment.ofBuffer(pinned[i].getByteBuffer(0, BYTES));
      read[i] = new CUevent();
      check(
          JCudaDriver.cuEventCreate(read[i], CUevent_flags.CU_EVENT_DISABLE_TIMING),
          "cuEventCreate");
    }
  }

  void upload(MemorySegment from, long to, long bytes, CUstream stream) {
    for (long offset = 0; offset < bytes; offset += BYTES) {
      long size = Math.min(BYTES, bytes - offset);
      check(JCudaDriver.cuEventSynchronize(read[next]), "cuEventSynchronize");
      MemorySegment.copy(from, offset, buffer[next], 0, size);
      check(
          JCudaDriver.cuMemcpyHtoDAsync(Driver.device(to + offset), pinned[next], size, stream),
          "cuMemcpyHtoDAsync",
          size);
      check(JCudaDriver.cuEventRecord(read[next], stream), "cuEventRecord");
      next = (next + 1) % BUFFERS;
    }
  }

  /** The stream must be idle. */
  @Override
  public void close() {
    for (int i = 0; i < BUFFERS; i++) {
      check(JCudaDriver.cuEventDestroy(read[i]), "cuEventDestroy");
      check(JCudaDriver.cuMemFreeHost(pinned[i]), "cuMemFreeHost");
    }
  }
}
