package io.jtrelu.train;

import java.util.Map;

/**
 * Where a run stands, beside its tensors: enough to go on as if it had never stopped.
 *
 * @param step optimiser steps taken
 * @param epoch epochs completed
 * @param position samples of the current epoch already used, in the order that the seeds give
 * @param seeds seeds of the random streams by name; a stream is a function of its seed and the
 *     step, so a seed is all of its state
 * @param config the run's configuration, as JSON
 * @param bestMetric best test accuracy so far; NaN before the first evaluation
 */
public record TrainingState(
    long step,
    int epoch,
    long position,
    Map<String, Long> seeds,
    String config,
    double bestMetric) {
  /** Copies the seeds. */
  public TrainingState {
    seeds = Map.copyOf(seeds);
  }
}
