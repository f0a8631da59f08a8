package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Memory;
import java.lang.foreign.MemorySegment;

/** A tensor's block of device memory; closing it gives the block back to the pool. */
final class CudaMemory extends Memory {
  private final MemoryPool pool;
  private final MemoryPool.Block block;

  /**
   * @param bytes what was asked for; the block may be larger
   */
  CudaMemory(MemoryPool pool, MemoryPool.Block block, Device device, long bytes) {
    super(device, bytes, true);
    this.pool = pool;
    this.block = block;
  }

  @Override
  protected long rawAddress() {
    return block.address();
  }

  @Override
  protected MemorySegment hostSegment() {
    throw new IllegalStateException(
        "this tensor lies on " + device() + ": copy it to a host tensor with Backend.copy first");
  }

  @Override
  protected void release() {
    pool.free(block);
  }
}
