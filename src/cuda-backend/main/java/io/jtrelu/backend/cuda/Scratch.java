package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.List;

/**
 * Device memory that an operation uses while it runs, 256-byte aligned. It grows and never shrinks;
 * what is outgrown stays until close, because work under way or recorded may use it.
 */
final class Scratch implements AutoCloseable {
  private final MemoryPool pool;
  private final List<MemoryPool.Block> blocks = new ArrayList<>(); // the last is the largest

  Scratch(MemoryPool pool) {
    this.pool = pool;
  }

  /** Address of at least so many bytes. */
  long atLeast(long bytes) {
    if (blocks.isEmpty() || blocks.getLast().bytes() < bytes) {
      long grown = blocks.isEmpty() ? bytes : Math.max(bytes, 2 * blocks.getLast().bytes());
      blocks.add(pool.allocate(grown));
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
