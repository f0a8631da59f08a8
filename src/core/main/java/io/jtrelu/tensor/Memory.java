package io.jtrelu.tensor;

import java.lang.foreign.MemorySegment;
import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * One block of memory and its owner. Tensors are views of it; closing it invalidates them all.
 *
 * <p>Closing is idempotent and thread-safe. Nothing is released by the garbage collector: a block
 * that becomes unreachable while open is only reported, as a warning on the logger {@code
 * io.jtrelu.tensor}.
 */
public abstract class Memory implements AutoCloseable {
  private static final Cleaner LEAKS = Cleaner.create();

  private final Device device;
  private final long bytes;
  private final AtomicBoolean closed = new AtomicBoolean();

  /**
   * @param device where the block lies
   * @param bytes its size
   * @param owned whether closing releases something, so that forgetting to close is a leak
   */
  protected Memory(Device device, long bytes, boolean owned) {
    this.device = device;
    this.bytes = bytes;
    if (owned) {
      LEAKS.register(this, new LeakReport(closed, device, bytes));
    }
  }

  private record LeakReport(AtomicBoolean closed, Device device, long bytes) implements Runnable {
    @Override
    public void run() {
      if (!closed.get()) {
        System.getLogger("io.jtrelu.tensor")
            .log(
                System.Logger.Level.WARNING,
                "leak: {0} bytes on {1} became unreachable without close()",
                bytes,
                device);
      }
    }
  }

  /** Where the block lies. */
  public final Device device() {
    return device;
  }

  /** Size in bytes. */
  public final long bytes() {
    return bytes;
  }

  /** Whether {@link #close} was called. */
  public final boolean isClosed() {
    return closed.get();
  }

  /**
   * Native address of the first byte, in the device's address space.
   *
   * @throws IllegalStateException after close
   */
  public final long address() {
    requireOpen();
    return rawAddress();
  }

  /**
   * The block as a segment of host memory.
   *
   * @throws IllegalStateException after close, or if the block is not host memory
   */
  public final MemorySegment segment() {
    requireOpen();
    return hostSegment();
  }

  private void requireOpen() {
    if (closed.get()) {
      throw new IllegalStateException(
          "use after close: this tensor's memory ("
              + bytes
              + " bytes on "
              + device
              + ") is closed");
    }
  }

  /** The address, called only while open. */
  protected abstract long rawAddress();

  /** The host segment, called only while open; throws IllegalStateException on a device block. */
  protected abstract MemorySegment hostSegment();

  /** Gives the memory back; called once. */
  protected abstract void release();

  @Override
  public final void close() {
    if (closed.compareAndSet(false, true)) {
      release();
    }
  }
}
