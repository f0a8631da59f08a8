package io.jtrelu.tensor;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;

/**
 * Whether something that is closed once is open, and whether it is in use: native code must not
 * work on what another thread closes meanwhile.
 *
 * <p>A use lies between {@link #acquire} and {@link #release}; any number may overlap. {@link
 * #close} never waits: while there is a use it is refused, so that no two threads can wait for each
 * other, nor one for itself. What was refused stays open as it was, and can be closed later.
 *
 * <p>Thread-safe. Uses are counted apart for threads of different numbers, so that many threads do
 * not pass one cache line around.
 */
public final class Lifetime {
  private static final int STRIPES = 8; // a power of two
  private static final int STRIDE = 16; // a cache line of counters, of which one is used
  private static final VarHandle COUNT = MethodHandles.arrayElementVarHandle(int[].class);

  private final Object what;
  private final int[] uses = new int[(STRIPES + 1) * STRIDE]; // a line before the first
  private volatile State state = State.OPEN;

  /** CLOSING counts as open for those who use it: they may be why it stays so. */
  private enum State {
    OPEN,
    CLOSING,
    CLOSED
  }

  /**
   * @param what the thing's name for messages, as its {@code toString}
   */
  public Lifetime(Object what) {
    this.what = what;
  }

  /** Whether it is closed. */
  public boolean isClosed() {
    return state == State.CLOSED;
  }

  /**
   * Requires it to be open now.
   *
   * @throws IllegalStateException after close
   */
  public void requireOpen() {
    if (state == State.CLOSED) {
      throw new IllegalStateException("use after close: this " + what + " is closed");
    }
  }

  /**
   * Begins a use, during which it stays open.
   *
   * @throws IllegalStateException after close
   */
  public void acquire() {
    int stripe = stripe();
    while (true) {
      COUNT.getAndAdd(uses, stripe, 1);
      State now = state; // read after the count was written; close reads the counts after the state
      if (now == State.OPEN) {
        return;
      }
      COUNT.getAndAdd(uses, stripe, -1);
      requireOpen();
      Thread.onSpinWait(); // for the few instructions until it is known whether it closes
    }
  }

  /** Ends a use. Once for each that was begun, by any thread. */
  public void release() {
    COUNT.getAndAdd(uses, stripe(), -1);
  }

  /**
   * Closes it. Idempotent.
   *
   * @return true for the call that closed it: whoever gets that gives back what it held
   * @throws IllegalStateException if it is in use; it stays open
   */
  public synchronized boolean close() {
    if (state == State.CLOSED) {
      return false;
    }
    state = State.CLOSING;
    int sum = 0;
    for (int stripe = 1; stripe <= STRIPES; stripe++) {
      sum += (int) COUNT.getVolatile(uses, stripe * STRIDE);
    }
    if (sum != 0) {
      state = State.OPEN;
      throw new IllegalStateException(
          "this " + what + " is in use, and was not closed: close it again when that has ended");
    }
    state = State.CLOSED;
    return true;
  }

  private static int stripe() {
    return (1 + ((int) Thread.currentThread().threadId() & (STRIPES - 1))) * STRIDE;
  }
}
