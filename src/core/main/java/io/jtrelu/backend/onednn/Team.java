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

  /** What is being shared; parts are taken by whoever comes first. */
  private static final class Job {
    private final int count;
    private final Task task;
    private final AtomicInteger next = new AtomicInteger();
    private final AtomicInteger left;
    private volatile @Nullable Throwable failure;

    Job(int count, Task task) {
      this.count = count;
      this.task = task;
      this.left = new AtomicInteger(count);
    }

    void work(int member) {
      for (int i = next.getAndIncrement(); i < count; i = next.getAndIncrement()) {
        try {
          task.run(i, member);
        } catch (Throwable thrown) {
          failure = thrown;
        } finally {
          left.getAndDecrement();
        }
      }
    }
  }

  private final Helper[] helpers;
  private volatile Job job = new Job(0, (index, member) -> {});
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
      Job done = job;
      int looks = 0;
      while (!closed) {
        Job now = job;
        if (now != done) {
          now.work(member);
          done = now;
          looks = 0;
        } else if (looks++ < LOOKS) {
          Thread.onSpinWait();
        } else {
          sleeping =
              true; // before another look at the job, as the caller looks at this after it gave one
          if (job == done && !closed) {
            LockSupport.park(Team.this);
          }
          sleeping = false;
        }
      }
    }
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
    Job now = new Job(count, task);
    job = now;
    for (Helper helper : helpers) {
      if (helper.sleeping) {
        LockSupport.unpark(helper);
      }
    }
    now.work(0);
    for (int looks = 0; now.left.get() > 0; looks++) {
      if (looks < LOOKS) {
        Thread.onSpinWait();
      } else {
        LockSupport.parkNanos(10_000); // others may need this core
      }
    }
    Throwable failure = now.failure;
    if (failure instanceof Error error) {
      throw error;
    }
    if (failure != null) {
      throw (RuntimeException) failure; // tasks throw no others
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
