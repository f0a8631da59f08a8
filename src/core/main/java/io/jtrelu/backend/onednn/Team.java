package io.jtrelu.backend.onednn;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * Threads that share one piece of work after another with the thread that calls, microseconds
 * apart: between pieces they spin for a while, and sleep when nothing comes. Used by one thread at
 * a time.
 */
final class Team implements AutoCloseable {
  /** How often a thread looks for work before it sleeps: some tens of microseconds. */
  private static final int LOOKS = 2000;

  /** A part of the work. */
  interface Task {
    /**
     * Does it.
     *
     * @param index of the part
     * @param member of the thread that does it; 0 is the calling one
     */
    void run(int index, int member);
  }

  private final Helper[] helpers;
  private final AtomicInteger untaken = new AtomicInteger(); // parts, taken from the last on
  private final AtomicInteger unfinished = new AtomicInteger();
  private Task task = (index, member) -> {}; // of whoever takes a part until that is finished
  private volatile @Nullable Throwable failure;
  private volatile boolean closed;

  /**
   * @param members threads, the calling one included
   */
  Team(int members) {
    helpers = new Helper[members - 1];
    for (int i = 0; i < helpers.length; i++) {
      helpers[i] = new Helper(i + 1);
      helpers[i].start();
    }
  }

  private final class Helper extends Thread {
    private final int member;
    private volatile boolean sleeping;

    Helper(int member) {
      super("jtrelu-team-" + member);
      this.member = member;
      setDaemon(true);
    }

    @Override
    public void run() {
      int looks = 0;
      while (!closed) {
        if (work(member)) {
          looks = 0;
        } else if (looks++ < LOOKS) {
          Thread.onSpinWait();
        } else {
          sleeping = true; // before another look, as the caller looks at this after it gave parts
          if (untaken.get() == 0 && !closed) {
            LockSupport.park(Team.this);
          }
          sleeping = false;
        }
      }
    }
  }

  /** Does parts while there are some that nobody has taken; returns whether there were. */
  private boolean work(int member) {
    boolean any = false;
    for (int left = untaken.get(); left > 0; left = untaken.get()) {
      if (untaken.compareAndSet(left, left - 1)) {
        any = true;
        try {
          task.run(left - 1, member);
        } catch (Throwable thrown) {
          failure = thrown;
        } finally {
          unfinished.getAndDecrement();
        }
      }
    }
    return any;
  }

  /** Threads, the calling one included. */
  int members() {
    return helpers.length + 1;
  }

  /**
   * Does all parts, and returns when they are done.
   *
   * @throws RuntimeException what a part threw, after the others
   */
  void share(int count, Task task) {
    this.task = task;
    unfinished.set(count);
    untaken.set(count);
    for (Helper helper : helpers) {
      if (helper.sleeping) {
        LockSupport.unpark(helper);
      }
    }
    work(0);
    for (int looks = 0; unfinished.get() > 0; looks++) {
      if (looks < LOOKS) {
        Thread.onSpinWait();
      } else {
        LockSupport.parkNanos(10_000); // others may need this core
      }
    }
    Throwable thrown = failure;
    if (thrown != null) {
      failure = null;
      if (thrown instanceof Error error) {
        throw error;
      }
      throw (RuntimeException) thrown; // tasks throw no others
    }
  }

  /** Ends the threads. */
  @Override
  public void close() {
    closed = true;
    for (Helper helper : helpers) {
      LockSupport.unpark(helper);
    }
    boolean interrupted = false;
    for (Helper helper : helpers) {
      while (helper.isAlive()) {
        try {
          helper.join();
        } catch (InterruptedException again) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
