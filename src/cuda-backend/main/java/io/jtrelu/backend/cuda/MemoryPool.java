package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.backend.OutOfMemoryException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map;
import java.util.NavigableMap;
import java.util.TreeMap;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/**
 * Device memory with a cache of freed blocks, because the driver's own allocation synchronises the
 * device and takes long. Thread-safe.
 *
 * <p>A block that is freed may still be in use by work under way; so {@code quiesce} is run before
 * any block is used again or given back. No step allocates, hence the wait costs nothing that
 * matters.
 */
final class MemoryPool implements AutoCloseable {
  private static final long SMALL = 512;
  private static final long LARGE = 2L << 20;

  /** A piece of device memory. */
  record Block(long address, long bytes) {}

  private final CudaContext context;
  private final Runnable quiesce;
  private final NavigableMap<Long, Deque<Block>> cache = new TreeMap<>();
  private long inUse;
  private long cached;
  private long peak;
  private long allocations;

  /**
   * @param quiesce waits for all work of this device
   */
  MemoryPool(CudaContext context, Runnable quiesce) {
    this.context = context;
    this.quiesce = quiesce;
  }

  /**
   * A block of at least so many bytes; its contents are undefined, and no work under way uses it.
   *
   * @throws OutOfMemoryException if the device has no room after the cache was released
   */
  synchronized Block allocate(long bytes) {
    long size = sizeClass(bytes);
    Block block;
    context.enter();
    try {
      block = takeCached(size);
      if (block == null) {
        block = allocateNew(size);
      }
    } finally {
      context.leave();
    }
    inUse += block.bytes();
    peak = Math.max(peak, inUse);
    allocations++;
    return block;
  }

  /** Bytes that a block of so many takes. */
  static long sizeClass(long bytes) {
    long unit = bytes <= LARGE ? SMALL : LARGE;
    return Math.max(Math.ceilDiv(bytes, unit), 1) * unit;
  }

  private @Nullable Block takeCached(long size) {
    Map.Entry<Long, Deque<Block>> fit = cache.ceilingEntry(size);
    if (fit == null || fit.getKey() > size + size / 4 + SMALL) {
      return null; // none, or too much would be wasted
    }
    Block block = fit.getValue().pop();
    if (fit.getValue().isEmpty()) {
      cache.remove(fit.getKey());
    }
    cached -= block.bytes();
    quiesce.run();
    return block;
  }

  private Block allocateNew(long size) {
    Driver.DevicePointer pointer = new Driver.DevicePointer();
    int result = JCudaDriver.cuMemAlloc(pointer, size);
    if (result == CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
      trim();
      result = JCudaDriver.cuMemAlloc(pointer, size);
      if (result == CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
        long[] device = freeAndTotal();
        throw new OutOfMemoryException(
            String.format(
                "cuda:%d has no room for %d bytes: %d in use here, %d cached (after the cache"
                    + " was released), %d of %d free on the device; use a smaller batch, 16-bit"
                    + " storage, or free memory that other processes hold (nvidia-smi)",
                context.device().index(), size, inUse, cached, device[0], device[1]));
      }
    }
    check(result, "cuMemAlloc", size);
    return new Block(pointer.address(), size);
  }

  private static long[] freeAndTotal() {
    long[] free = new long[1];
    long[] total = new long[1];
    check(JCudaDriver.cuMemGetInfo(free, total), "cuMemGetInfo");
    return new long[] {free[0], total[0]};
  }

  /** Bytes that can still be allocated, cached blocks among them. */
  synchronized long available() {
    context.enter();
    try {
      return freeAndTotal()[0] + cached;
    } finally {
      context.leave();
    }
  }

  /** Takes a block back. */
  synchronized void free(Block block) {
    inUse -= block.bytes();
    cached += block.bytes();
    cache.computeIfAbsent(block.bytes(), size -> new ArrayDeque<>()).push(block);
  }

  /** Gives all cached memory back to the driver. */
  synchronized void trim() {
    if (cache.isEmpty()) {
      return;
    }
    context.enter();
    try {
      quiesce.run();
      for (Deque<Block> blocks : cache.values()) {
        for (Block block : blocks) {
          cached -= block.bytes();
          check(JCudaDriver.cuMemFree(Driver.device(block.address())), "cuMemFree", block.bytes());
        }
      }
    } finally {
      context.leave();
    }
    cache.clear();
  }

  synchronized MemoryStatistics statistics() {
    return new MemoryStatistics(inUse, cached, peak, allocations);
  }

  /** Gives cached memory back; blocks in use are the caller's mistake and stay. */
  @Override
  public void close() {
    trim();
  }
}
