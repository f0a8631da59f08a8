package io.jtrelu.cli;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Turns Ctrl-C and termination into a wish to stop, which the command grants at the next step. The
 * process ends when this is closed.
 */
public final class Interrupt implements AutoCloseable {
  /** How long the machine may take to finish a step and save. */
  private static final long PATIENCE_SECONDS = 120;

  private final CountDownLatch done = new CountDownLatch(1);
  private final Thread hook = new Thread(this::stop, "jtrelu-interrupt");
  private volatile boolean requested;

  /** Takes signals from now on. */
  public Interrupt() {
    Runtime.getRuntime().addShutdownHook(hook);
  }

  private void stop() {
    requested = true;
    try {
      if (!done.await(PATIENCE_SECONDS, TimeUnit.SECONDS)) {
        System.err.println("jtrelu: not stopped in time; the last checkpoint is good");
      }
    } catch (InterruptedException impatient) {
      Thread.currentThread().interrupt();
    }
  }

  /** Whether the user asked to stop. */
  public boolean requested() {
    return requested;
  }

  /** Lets the process end, if it is to. Idempotent. */
  @Override
  public void close() {
    done.countDown();
    if (!requested) {
      try {
        Runtime.getRuntime().removeShutdownHook(hook);
      } catch (IllegalStateException alreadyEnding) {
        return; // the hook has just been started, and finds the latch open
      }
    }
  }
}
