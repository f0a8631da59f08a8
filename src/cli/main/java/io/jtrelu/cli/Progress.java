package io.jtrelu.cli;

/** How far a task has come, as people see it. Used by one thread; closed when the task ends. */
public interface Progress extends AutoCloseable {
  /**
   * Shows the number of steps done and some figures beside it; shown when it is time to.
   *
   * @param step steps done
   * @param figures such as {@code epoch 2/4, loss 0.81, accuracy 79.6 %, 640 images/s}
   */
  void update(long step, String figures);

  /** A line that stays, such as the result of an epoch. */
  void line(String text);

  /** Ends the display. Idempotent. */
  @Override
  void close();
}
