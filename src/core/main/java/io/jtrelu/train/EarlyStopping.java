package io.jtrelu.train;

/**
 * Stops a run when test accuracy has not risen for some epochs. What it goes by is in the run's
 * metrics, so that a resumed run stops where an uninterrupted one would have.
 *
 * @param patience epochs to wait for a better one, 1 or more
 */
public record EarlyStopping(int patience) implements TrainingListener {
  /**
   * @throws IllegalArgumentException if patience is below 1
   */
  public EarlyStopping {
    if (patience < 1) {
      throw new IllegalArgumentException("patience must be 1 epoch or more, got " + patience);
    }
  }

  @Override
  public void epoch(Trainer trainer, EpochMetric metric) {
    if (trainer.epochsSinceBest() >= patience) {
      trainer.stop();
    }
  }
}
