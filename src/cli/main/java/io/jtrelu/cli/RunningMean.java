package io.jtrelu.cli;

/** A mean that forgets: each value counts a twentieth less than the next. */
final class RunningMean {
  private static final double DECAY = 0.95;

  private double sum;
  private double weight;

  void add(double value) {
    sum = DECAY * sum + value;
    weight = DECAY * weight + 1;
  }

  /** NaN before the first value. */
  double value() {
    return sum / weight;
  }
}
