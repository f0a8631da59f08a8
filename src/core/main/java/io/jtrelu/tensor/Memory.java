package io.jtrelu.tensor;

import java.lang.foreign.MemorySegment;
import java.lang.ref.Cleaner;

/**
 * One block of memory and its owner. Tensors are views of it; closing it invalidates them all.
 *
 * <p>Closing is idempotent and thread-safe. An operation {@linkplain #acquire holds} its operands'
 * memory while it runs; closing it meanwhile, from another thread or from within the operation, is
 * refused with {@link IllegalStateException} and changes nothing: close again when the operation
 * has ended. Nobody ever waits here.
 *
 * <p>Nothing is released by the garbage collector: a block that becomes unreachable while open is
 * only reported, as a warning on the logger {@code io.jtrelu.tensor}.
 */
public abstract class Memory implements AutoCloseable {
  private static final Cleaner LEAKS = Cleaner.create();

  private final Device device;
  private final long bytes;
  private final Lifetime lifetime;

  /**
   * @param device where the block lies
   * @param bytes its size
   * @param owned whether closing releases something, so that forgetting to close is a leak
   */
  protected Memory(Device device, long bytes, boolean owned) {
    this.device = device;
    this.bytes = bytes;
    this.lifetime = new Lifetime(new Block(device, bytes));
    if (owned) {
      LEAKS.register(this, new LeakReport(lifetime, device, bytes));
    }
  }

  /** What a block is called in messages, made only where there is one. */
  private record Block(Device device, long bytes) {
    @Override
    public String toString() {
      return "tensor's memory (" + bytes + " bytes on " + device + ")";
    }
  }

  private record LeakReport(Lifetime lifetime, Device device, long bytes) implements Runnable {
    @Override
    public void run() {
      if (!lifetime.isClosed()) {
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
    return lifetime.isClosed();
  }

  /**
   * Native address of the first byte, in the device's address space.
   *
   * @throws IllegalStateException after close, or where the owner of wrapped memory has freed it
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

  /** Whether the block must not be written to: false, but for memory that was wrapped as such. */
  public boolean isReadOnly() {
    return false;
  }

  /**
   * Begins a use by the calling thread (for backends): while it lasts, the block cannot be closed.
   *
   * @return what to {@linkplain Lifetime#release release} when the use has ended
   * @throws IllegalStateException after close, or where the owner of wrapped memory has freed it
   * @throws WrongThreadException if the block is wrapped memory that another thread alone may use
   */
  public final Lifetime acquire() {
    lifetime.acquire();
    try {
      requireAccess();
    } catch (RuntimeException refused) {
      lifetime.release();
      throw refused;
    }
    return lifetime;
  }

  /** Whether it is open, and how often it is in use (for backends). */
  public final Lifetime lifetime() {
    return lifetime;
  }

  private void requireOpen() {
    lifetime.requireOpen();
  }

  /**
   * Requires the calling thread to have access to the memory beneath, where that is not this
   * block's own.
   *
   * @throws IllegalStateException if its owner has freed it
   * @throws WrongThreadException if it belongs to another thread
   */
  protected void requireAccess() {}

  /** The address, called only while open. */
  protected abstract long rawAddress();

  /** The host segment, called only while open; throws IllegalStateException on a device block. */
  protected abstract MemorySegment hostSegment();

  /** Gives the memory back; called once. */
  protected abstract void release();

  /**
   * Gives the memory back. Idempotent.
   *
   * @throws IllegalStateException if an operation or a recording uses it; it stays open
   */
  @Override
  public final void close() {
    if (lifetime.close()) {
      release();
    }
  }
}
