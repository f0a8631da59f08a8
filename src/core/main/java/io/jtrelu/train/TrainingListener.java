package io.jtrelu.train;

import java.io.IOException;

/**
 * Is told what a {@link Trainer} does, by the thread that calls it, in the order in which listeners
 * were added. What a listener throws ends the call of the trainer; {@link Trainer#stop} ends the
 * run in order.
 */
public interface TrainingListener {
  /**
   * A step's figures are in.
   *
   * @param metric of the step, which need not be the last that was begun: see {@link
   *     Trainer#advance}
   */
  default void step(Trainer trainer, StepMetric metric) throws IOException {}

  /** An epoch has ended; its checkpoint is about to be written. */
  default void epoch(Trainer trainer, EpochMetric metric) throws IOException {}
}
