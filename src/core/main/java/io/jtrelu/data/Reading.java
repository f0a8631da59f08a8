package io.jtrelu.data;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/**
 * How files of images (folders, shards) are read.
 *
 * @param place whether images lie in memory, decoded, or are read and decoded whenever they are
 *     needed
 * @param onBadImage what happens to a damaged image
 * @param threads that read and decode, 1 or more; nothing but the time depends on it
 */
public record Reading(Place place, OnBadImage onBadImage, int threads) {
  private static final int MOST_THREADS = 16;

  /** In memory where they fit, bad images refused, as many threads as there are cores, up to 16. */
  public static final Reading DEFAULT =
      new Reading(
          Place.AUTO,
          OnBadImage.STOP,
          Math.min(MOST_THREADS, Runtime.getRuntime().availableProcessors()));

  /** Where images are while a network is trained. */
  public enum Place {
    /** In memory, if they take no more than half of what Java may use; else streamed. */
    AUTO,
    /** In memory, brought to one size; refused if they do not fit. */
    MEMORY,
    /** On disk, read and decoded each time they are needed. */
    STREAM
  }

  /** What happens to an image that is damaged, or is none; one that cannot be read always stops. */
  public enum OnBadImage {
    /** Reading fails with the image's name. */
    STOP,
    /**
     * It is counted and named ({@link ImageDataset#skipped}), and passed over. In memory it is left
     * out of the data set. Of a streamed set, the next intact image in the data's order (after the
     * last, the first) takes its place in a training batch, with its own label; where batches are
     * not all full, as for measuring, its row is padding and counts for nothing.
     */
    SKIP
  }

  /**
   * @throws IllegalArgumentException if there are less than 1 or more than 1024 threads
   */
  public Reading {
    if (threads < 1 || threads > 1024) {
      throw new IllegalArgumentException("images are read by 1 to 1024 threads, got " + threads);
    }
  }

  /** The same, with images elsewhere. */
  public Reading at(Place where) {
    return new Reading(where, onBadImage, threads);
  }

  /** Does something for 0 to count - 1, on all threads; of failures the one of the least index. */
  void forEach(int count, IntConsumer action) {
    AtomicInteger next = new AtomicInteger();
    AtomicInteger firstFailed = new AtomicInteger(Integer.MAX_VALUE);
    @Nullable Throwable[] failures = new Throwable[1];
    Runnable work =
        () -> {
          int i;
          while ((i = next.getAndIncrement()) < count && i < firstFailed.get()) {
            try {
              action.accept(i);
            } catch (Throwable failure) {
              synchronized (failures) {
                if (i < firstFailed.get()) {
                  firstFailed.set(i);
                  failures[0] = failure;
                }
              }
            }
          }
        };
    List<Thread> others = new ArrayList<>();
    for (int t = 1; t < Math.min(threads, count); t++) {
      others.add(Thread.ofPlatform().daemon().name("jtrelu-reader-" + t).start(work));
    }
    work.run();
    boolean interrupted = false;
    for (Thread other : others) {
      while (other.isAlive()) {
        try {
          other.join();
        } catch (InterruptedException again) {
          interrupted = true; // what they write to is in use until then
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    Throwable failure = failures[0];
    if (failure instanceof Error error) {
      throw error;
    }
    if (failure instanceof RuntimeException known) {
      throw known;
    }
  }
}
