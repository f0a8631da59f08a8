package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import java.util.function.LongSupplier;

/**
 * Device memory that an operation uses while it runs, 256-byte aligned. The first block is of what
 * operations are expected to need. It grows and never shrinks; what is outgrown stays until close,
 * because work under way or recorded may use it.
 */
final class Scratch implements AutoCloseable {
  private final MemoryPool pool;
  private final LongSupplier expected;
  private final List<MemoryPool.Block> blocks = new ArrayList<>(); // the last is the largest

  /**
   * @param expected bytes that operations have said they need
   */
  Scratch(MemoryPool pool, LongSupplier expected) {
    this.pool = pool;
    this.expected = expected;
  }

  /** Bytes after which the next piece of a block is aligned as the block is. */
  static long aligned(long bytes) {
    return (bytes + 255) & -256;
  }

  /** Address of at least so many bytes. */
  long atLeast(long bytes) {
    if (blocks.isEmpty() || blocks.getLast().bytes() < bytes) {
      long grown = blocks.isEmpty() ? expected.getAsLong() : 2 * blocks.getLast().bytes();
      blocks.add(pool.allocate(Math.max(bytes, grown)));
    }
    return blocks.getLast().address();
  }

  /** Gives all of it back to the pool. */
  @Override
  public void close() {
    blocks.forEach(pool::free);
    blocks.clear();
  }
}
