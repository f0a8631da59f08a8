package io.jtrelu.spark;

import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.Params;

/** Parameters that an estimator hands on to its model. */
interface ScoringParams extends Params {
  /** Parameter: column of images: binary, array, vector or image struct. */
  Param<String> featuresCol();

  /** Parameter: what a task computes on; cpu has a lane for each core of the task. */
  Param<String> device();

  /** Parameter: column of predicted labels; empty for none. */
  Param<String> predictionCol();

  /** Parameter: column of probabilities; empty for none. */
  Param<String> probabilityCol();

  /** Parameter: column of logits; empty for none. */
  Param<String> rawPredictionCol();

  /** Makes {@link #featuresCol}. */
  static Param<String> newFeaturesCol(ScoringParams of) {
    return new Param<>(
        of, "featuresCol", "column of images: binary, array, vector or image struct");
  }

  /** Makes {@link #device}. */
  static Param<String> newDevice(ScoringParams of) {
    return new Param<>(
        of, "device", "what a task computes on; cpu has a lane for each core of the task");
  }

  /** Makes {@link #predictionCol}. */
  static Param<String> newPredictionCol(ScoringParams of) {
    return new Param<>(of, "predictionCol", "column of predicted labels; empty for none");
  }

  /** Makes {@link #probabilityCol}. */
  static Param<String> newProbabilityCol(ScoringParams of) {
    return new Param<>(of, "probabilityCol", "column of probabilities; empty for none");
  }

  /** Makes {@link #rawPredictionCol}. */
  static Param<String> newRawPredictionCol(ScoringParams of) {
    return new Param<>(of, "rawPredictionCol", "column of logits; empty for none");
  }
}
