package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.jtrelu.backend.FisherRows;

/**
 * How K-FAC trains: see {@link Optimizer.Kind#KFAC}. Its learning rate, momentum and weight decay
 * are those of {@link TrainingConfig}.
 *
 * @param damping added to the Fisher matrix, split between each pair of factors by their traces
 * @param normConstraint largest squared length of a step, measured by the Fisher matrix
 * @param decay of the factors' moving averages at each measurement, in [0, 1)
 * @param measureEvery steps from one measurement of the factors to the next
 * @param invertEvery steps from one inversion of a factor to the next; a multiple of measureEvery,
 *     as a share of the factors is inverted after each measurement
 * @param empirical whether factors are measured with the labels of the data instead of labels drawn
 *     from the prediction: the empirical Fisher matrix, for comparison
 * @param form what the places of an image, which share their weights, count for; the expand form is
 *     for comparison, and takes memory for as many rows as a batch has places
 */
public record KfacConfig(
    @JsonProperty(required = true) double damping,
    @JsonProperty(required = true) double normConstraint,
    @JsonProperty(required = true) double decay,
    @JsonProperty(required = true) int measureEvery,
    @JsonProperty(required = true) int invertEvery,
    @JsonProperty boolean empirical,
    @JsonProperty FisherRows.Form form) {
  /** Those of {@code jtrelu train --optimizer kfac}. */
  public static final KfacConfig DEFAULTS = new KfacConfig(0.3, 1e-3, 0.95, 10, 50, false);

  /**
   * @throws IllegalArgumentException naming the value that is out of range and what is allowed
   */
  public KfacConfig {
    require(damping > 0 && damping < 1e6, "damping", damping, "above 0 and below 1e6");
    require(normConstraint > 0, "norm constraint", normConstraint, "positive; infinity for none");
    require(decay >= 0 && decay < 1, "decay of the factors", decay, "in [0, 1)");
    require(measureEvery >= 1, "steps between measurements", measureEvery, "1 or more");
    require(
        invertEvery >= measureEvery && invertEvery % measureEvery == 0,
        "steps between inversions",
        invertEvery,
        "a multiple of the " + measureEvery + " between measurements");
    if (form == null) { // of a run from before there was a choice
      form = FisherRows.Form.REDUCE;
    }
  }

  /** In the reduce form. */
  public KfacConfig(
      double damping,
      double normConstraint,
      double decay,
      int measureEvery,
      int invertEvery,
      boolean empirical) {
    this(
        damping,
        normConstraint,
        decay,
        measureEvery,
        invertEvery,
        empirical,
        FisherRows.Form.REDUCE);
  }

  private static void require(boolean holds, String name, Object value, String allowed) {
    if (!holds) {
      throw new IllegalArgumentException(
          "K-FAC's " + name + " must be " + allowed + ", got " + value);
    }
  }
}
