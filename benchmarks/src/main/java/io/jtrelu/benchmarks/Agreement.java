package io.jtrelu.benchmarks;

import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;

/**
 * The check before anything is timed: a contender's logits, loss and gradients are this library's,
 * whose own kernels the contract tests hold against an oracle.
 *
 * <p>The parameters are {@link KinkFree}: no rounding can change the branch of a rectifier, so two
 * correct implementations differ by rounding alone. With unit roundoff u, each of L layers rounds
 * its values on the way forward and its gradients on the way back; taken as independent, these
 * errors add up to a relative distance of some sqrt(2 L) u in a tensor's norm. A sum of n terms one
 * after the other in F32 multiplies that by up to sqrt(n); the longest are those of a bias's
 * gradient, over all locations of all images. Hence the bound 8 sqrt(2 L n) u, 2e-4 to 8e-4 here,
 * with the factor 8 for the transforms of Winograd's method; measured are 2e-6 to 5e-5. In bf16
 * storing is what rounds, and the bound is 4 sqrt(2 L) u, measured 1 sqrt(2 L) u. Any mistake (a
 * tap, an axis, a scale) gives 1e-1 and more.
 *
 * <p>Parameters near the kink need a bound that catches no more than gross mistakes: with values
 * off by a relative e, some 0.3 e of them change their branch in each layer, and the gradient moves
 * by sqrt(0.3 e L) (1 - slope); a single change among the n values of a small layer moves it by
 * sqrt(1 / n). At e = 1e-6 both are 1e-3 to 1e-2.
 */
public final class Agreement {
  private static final double UNIT_F32 = 0x1p-24;
  private static final double UNIT_BF16 = 0x1p-9;

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
   * @param workload with {@link KinkFree} parameters
   * @param sixteenBits whether it stores activations in bf16
   * @throws IllegalStateException if they differ by more than rounding explains
   */
  public static Distances require(
      String name, Workload workload, Contender contender, boolean sixteenBits) {
    Contender.Gradients ours;
    try (Contender library = new JtreluContender(workload, DataType.F32, 0)) {
      ours = library.gradients();
    }
    double bound = bound(workload, sixteenBits);
    double forward = requireLogits(name, workload, contender, sixteenBits);
    Contender.Gradients theirs = contender.gradients();
    double loss = Math.abs(ours.loss() - theirs.loss()) / Math.abs(ours.loss());
    require(name, "loss", loss, bound);
    double worst = 0;
    for (ParameterSpec spec : workload.network().parameters()) {
      int from = Math.toIntExact(spec.offset());
      int count = Math.toIntExact(spec.shape().elements());
      double distance = distance(ours.values(), theirs.values(), from, count);
      require(name, "gradient of " + spec.name(), distance, bound);
      worst = Math.max(worst, distance);
    }
    return new Distances(loss, forward, worst);
  }

  /** Compares the logits alone, as of a contender that cannot train; returns their distance. */
  public static double requireLogits(
      String name, Workload workload, Contender contender, boolean sixteenBits) {
    try (Contender library = new JtreluContender(workload, DataType.F32, 0)) {
      int classes = workload.network().classes();
      float[] logits = centred(library.forward(), classes);
      double distance = distance(logits, centred(contender.forward(), classes), 0, logits.length);
      require(name, "logits", distance, bound(workload, sixteenBits));
      return distance;
    }
  }

  private static double bound(Workload workload, boolean sixteenBits) {
    double layers = 0;
    double terms = 0;
    for (Layer layer : workload.network().layers()) {
      if (layer instanceof ConvolutionLayer convolution) {
        var d = convolution.descriptor();
        layers++;
        terms = Math.max(terms, (double) workload.batch() * d.oh() * d.ow());
      }
    }
    return sixteenBits
        ? 4 * Math.sqrt(2 * layers) * UNIT_BF16
        : 8 * Math.sqrt(2 * layers * terms) * UNIT_F32;
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
