package io.jtrelu.train;

/**
 * What one optimiser step measured.
 *
 * @param step steps taken so far, this one included: 1 for the first
 * @param epoch the epoch it belongs to, from 1
 * @param learningRate rate of the step
 * @param loss mean loss of the batch
 * @param accuracy fraction of the batch classified correctly, in [0, 1]
 * @param gradientNorm L2 norm of the gradient before clipping
 * @param imagesPerSecond throughput
 * @param seconds time since the run began, without time before a resume
 */
public record StepMetric(
    long step,
    int epoch,
    double learningRate,
    double loss,
    double accuracy,
    double gradientNorm,
    double imagesPerSecond,
    double seconds) {}
