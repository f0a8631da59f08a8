package io.jtrelu.train;

/**
 * What one pass over the data measured.
 *
 * @param epoch which, from 1
 * @param step steps taken until its end
 * @param trainLoss mean loss over the epoch's batches, while it was training
 * @param trainAccuracy fraction classified correctly over the same batches, in [0, 1]
 * @param testLoss mean loss on the test data after the epoch
 * @param testAccuracy fraction of the test data classified correctly, in [0, 1]
 * @param imagesPerSecond training throughput over the epoch
 * @param seconds time since the run began, without time before a resume
 */
public record EpochMetric(
    int epoch,
    long step,
    double trainLoss,
    double trainAccuracy,
    double testLoss,
    double testAccuracy,
    double imagesPerSecond,
    double seconds) {}
