package io.jtrelu.tensor;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Holds callers to "used by one thread at a time": a thread takes its turn, possibly several times
 * over, and gives it back as often. Nobody waits: out of turn, taking and closing are refused.
 */
public final class Turn {
  private final Object what;
  private final AtomicReference<@Nullable Thread> holder = new AtomicReference<>();
  private int depth; // the holder's
  private volatile boolean closed;

  /**
   * @param what name of the thing that is used in turn, for messages, as its {@code toString}
   */
  public Turn(Object what) {
    this.what = what;
  }

  /**
   * Takes the turn, or takes it once more.
   *
   * @throws IllegalStateException after close, or while another thread has it
   */
  public void take() {
    Thread self = Thread.currentThread();
    if (holder.get() != self && !holder.compareAndSet(null, self)) {
      throw refusal("it is used by one thread at a time");
    }
    if (closed) {
      if (depth == 0) {
        holder.set(null);
      }
      requireOpen();
    }
    depth++;
  }

  /** Gives the turn back, once for each time that it was taken. By the thread that has it. */
  public void give() {
    if (--depth == 0) {
      holder.set(null);
    }
  }

  /** Whether it is closed. */
  public boolean isClosed() {
    return closed;
  }

  /** How many times over the calling thread has the turn. */
  public int depth() {
    return holder.get() == Thread.currentThread() ? depth : 0;
  }

  /**
   * Requires it to be open now.
   *
   * @throws IllegalStateException after close
   */
  public void requireOpen() {
    if (closed) {
      throw new IllegalStateException("use after close: this " + what + " is closed");
    }
  }

  /**
   * Closes it. Idempotent.
   *
   * @return true for the call that closed it: whoever gets that gives back what it held
   * @throws IllegalStateException while a thread, be it this one, has the turn; it stays open
   */
  public synchronized boolean close() {
    if (closed) {
      return false;
    }
    if (!holder.compareAndSet(null, Thread.currentThread())) {
      throw refusal("it was not closed: close it again when that has ended");
    }
    boolean first = !closed;
    closed = true;
    holder.set(null);
    return first;
  }

  /** Closes it by the thread that has the turn, which ends with that. */
  public void closeTaken() {
    closed = true;
    depth = 0;
    holder.set(null);
  }

  private IllegalStateException refusal(String consequence) {
    Thread user = holder.get();
    return new IllegalStateException(
        "this "
            + what
            + " is in use"
            + (user == null ? "" : " by thread " + user.getName())
            + "; "
            + consequence);
  }
}
