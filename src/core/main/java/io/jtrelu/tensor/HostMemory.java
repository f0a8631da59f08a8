package io.jtrelu.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A block of host memory: allocated here, or wrapped without a copy and owned by the caller.
 *
 * <p>Wrapped memory keeps what its owner made it: read-only memory is refused as a destination,
 * that of a confined arena serves the arena's thread alone (not a network's lanes), and after its
 * arena was closed it cannot be used. Its owner must not close that arena while an operation runs
 * on it: no library can hold up the arena of somebody else.
 */
public final class HostMemory extends Memory {
  /** One cache line, and the widest vector register. */
  public static final long ALIGNMENT = 64;

  private final MemorySegment segment;
  private final @Nullable Arena arena;
  private final Runnable onRelease;

  private HostMemory(MemorySegment segment, @Nullable Arena arena, Runnable onRelease) {
    super(Device.CPU, segment.byteSize(), arena != null);
    this.segment = segment;
    this.arena = arena;
    this.onRelease = onRelease;
  }

  /** Allocates zeroed memory, 64-byte aligned, owned by the result. */
  public static HostMemory allocate(long bytes) {
    return allocate(bytes, () -> {});
  }

  /**
   * Allocates zeroed memory, 64-byte aligned, owned by the result.
   *
   * @param bytes size
   * @param onRelease run once when the block is closed (an allocator's bookkeeping)
   */
  @SuppressWarnings("MustBeClosedChecker") // the block owns the arena
  public static HostMemory allocate(long bytes, Runnable onRelease) {
    Arena arena = Arena.ofShared();
    try {
      return new HostMemory(arena.allocate(bytes, ALIGNMENT), arena, onRelease);
    } catch (Throwable failure) {
      arena.close();
      throw failure;
    }
  }

  /**
   * Wraps memory that the caller owns and must keep alive; closing the result releases nothing.
   *
   * @param segment a native segment
   * @throws IllegalArgumentException if the segment is on the Java heap, which has no stable
   *     address
   */
  public static HostMemory wrap(MemorySegment segment) {
    if (!segment.isNative()) {
      throw new IllegalArgumentException(
          "only direct (off-heap) memory can be wrapped without a copy; this segment is on the Java"
              + " heap: use ByteBuffer.allocateDirect or Arena.allocate");
    }
    return new HostMemory(segment, null, () -> {});
  }

  @Override
  public boolean isReadOnly() {
    return segment.isReadOnly();
  }

  @Override
  protected void requireAccess() {
    if (arena != null) {
      return; // our own, which closes with this block
    }
    if (!segment.scope().isAlive()) {
      throw new IllegalStateException(
          "use after close: the arena of this wrapped memory ("
              + bytes()
              + " bytes) was closed by its owner");
    }
    if (!segment.isAccessibleBy(Thread.currentThread())) {
      throw new WrongThreadException(
          "this wrapped memory ("
              + bytes()
              + " bytes) belongs to a confined arena, so to another thread alone: wrap memory of a"
              + " shared or automatic arena");
    }
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
    if (arena != null) {
      arena.close();
    }
    onRelease.run();
  }
}
