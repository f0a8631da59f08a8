package io.jtrelu.random;

import static org.junit.jupiter.api.Assertions.assertTrue;

/** Sample mean of a statistic against its expectation, within five standard errors. */
final class Mean {
  private double sum;
  private double squares;
  private int count;

  void add(double value) {
    sum += value;
    squares += value * value;
    count++;
  }

  void expect(String name, double expectation) {
    double mean = sum / count;
    double error = Math.sqrt((squares / count - mean * mean) / count);
    assertTrue(
        Math.abs(mean - expectation) <= 5 * error,
        "mean of " + name + " is " + mean + " +- " + error + ", expected " + expectation);
  }
}
