package io.jtrelu.backend.cuda;

/**
 * A kernel that is loaded.
 *
 * @param name of its entry point
 * @param function the driver's handle
 * @param parameterBytes size of its parameter struct, as compiled
 * @param threads in a block
 * @param sharedMemory dynamic shared memory of a block in bytes
 */
record Kernel(
    String name,
    Driver.FunctionHandle function,
    int parameterBytes,
    int threads,
    int sharedMemory) {
  /** Blocks that give each of so many items a thread. */
  long blocksFor(long items) {
    return Math.ceilDiv(items, (long) threads);
  }
}
