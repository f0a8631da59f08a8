package io.jtrelu.benchmarks;

import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;

/**
 * The check before anything is timed: a contender's logits, loss and gradients are this library's,
 * whose own kernels the contract tests hold against an oracle.
 *
 * <p>Two correct F32 implementations of a network of 50 layers differ by the order of their sums,
 * and at values near the kink by the branch they take; hence bounds on norms per tensor, not on
 * single elements.
 */
public final class Agreement {
  /** Relative distance of logits (of Euclidean norms). Rounding through 50 layers gives 1e-6. */
  private static final double LOGITS = 2e-5;

  /**
   * Relative distance of a parameter's gradient. With forward values off by a relative 1e-6, about
   * that share of them lies on the other side of the kink in each layer, where the derivative
   * changes by 1 - slope; over L layers that is a distance of up to sqrt(L * 1e-6) * (1 - slope),
   * some 1e-3 at L = 50. Any mistake (a tap, an axis, a scale) gives 1e-1 and more.
   */
  private static final double GRADIENT = 1e-2;

  private static final double LOSS = 2e-6;

  /** Eight bits of mantissa, through 50 layers. */
  private static final double LOSS_16_BITS = 3e-2;

  private Agreement() {}

  /**
   * Largest distances found.
   *
   * @param loss relative difference of the mean losses
   * @param logits relative distance of the logits
   * @param gradients largest relative distance of a parameter's gradient
   */
  public record Distances(double loss, double logits, double gradients) {}

  /**
   * Compares a contender with this library.
   *
   * @throws IllegalStateException if they differ by more than rounding explains
   */
  public static Distances require(String name, Workload workload, Contender contender) {
    Contender.Gradients ours;
    float[] logits;
    try (Contender library = new JtreluContender(workload, DataType.F32)) {
      ours = library.gradients();
      logits = library.forward();
    }
    int classes = workload.network().classes();
    double forward =
        distance(centred(logits, classes), centred(contender.forward(), classes), 0, logits.length);
    require(name, "logits", forward, LOGITS);
    Contender.Gradients theirs = contender.gradients();
    double loss = Math.abs(ours.loss() - theirs.loss()) / Math.abs(ours.loss());
    require(name, "loss", loss, LOSS);
    double worst = 0;
    for (ParameterSpec spec : workload.network().parameters()) {
      int from = Math.toIntExact(spec.offset());
      int count = Math.toIntExact(spec.shape().elements());
      double distance = distance(ours.values(), theirs.values(), from, count);
      require(name, "gradient of " + spec.name(), distance, GRADIENT);
      worst = Math.max(worst, distance);
    }
    return new Distances(loss, forward, worst);
  }

  /** Compares the logits alone, for a contender that cannot train. */
  public static void requireLogits(String name, Workload workload, Contender contender) {
    try (Contender library = new JtreluContender(workload, DataType.F32)) {
      float[] logits = library.forward();
      require(name, "logits", distance(logits, contender.forward(), 0, logits.length), LOGITS);
    }
  }

  /** Compares the loss alone, for a contender that computes in 16 bits. */
  public static void requireLoss(String name, Workload workload, Contender contender) {
    try (Contender library = new JtreluContender(workload, DataType.F32)) {
      float ours = library.gradients().loss();
      float theirs = contender.gradients().loss();
      require(name, "loss", Math.abs(ours - theirs) / Math.abs(ours), LOSS_16_BITS);
    }
  }

  /** Without each row's mean: what softmax sees. */
  private static float[] centred(float[] logits, int classes) {
    float[] result = logits.clone();
    for (int row = 0; row < logits.length; row += classes) {
      double mean = 0;
      for (int k = 0; k < classes; k++) {
        mean += logits[row + k] / classes;
      }
      for (int k = 0; k < classes; k++) {
        result[row + k] -= (float) mean;
      }
    }
    return result;
  }

  /** |a - b| / |a| over a range; NaN if anything is. */
  public static double distance(float[] a, float[] b, int from, int count) {
    if (a.length != b.length) {
      throw new IllegalStateException(a.length + " values against " + b.length);
    }
    double difference = 0;
    double norm = 0;
    for (int i = from; i < from + count; i++) {
      difference += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
      norm += (double) a[i] * a[i];
    }
    return Math.sqrt(difference / norm);
  }

  private static void require(String name, String what, double distance, double bound) {
    if (!(distance <= bound)) {
      throw new IllegalStateException(
          name + " disagrees: " + what + " differs by " + distance + ", allowed is " + bound);
    }
  }
}
