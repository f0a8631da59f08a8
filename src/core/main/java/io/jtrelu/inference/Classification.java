package io.jtrelu.inference;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * How a model did on labelled images. Immutable.
 *
 * @param classes the model's, in its order
 * @param images how many there were
 * @param loss mean cross-entropy, -log of the probability of an image's class (natural logarithm);
 *     without label smoothing
 * @param uniformLoss mean over images and classes of -log of the class's probability
 * @param confusion images by [their class][the class that was predicted]
 * @param mistakes images that were taken for another class, the most confident first, at most
 *     {@value #MISTAKES}
 */
public record Classification(
    List<String> classes,
    int images,
    double loss,
    double uniformLoss,
    List<List<Integer>> confusion,
    List<Mistake> mistakes) {
  /** Mistakes that are kept. */
  public static final int MISTAKES = 24;

  /**
   * An image that was taken for another class.
   *
   * @param image its index in the data
   * @param label its class
   * @param predicted the class that it was taken for
   * @param probability of that class, as the model has it
   */
  public record Mistake(int image, int label, int predicted, double probability) {}

  /** Copies the lists. */
  public Classification {
    classes = List.copyOf(classes);
    confusion = confusion.stream().map(List::copyOf).toList();
    mistakes = List.copyOf(mistakes);
  }

  /** Images that were classified correctly. */
  public int correct() {
    int sum = 0;
    for (int i = 0; i < classes.size(); i++) {
      sum += confusion.get(i).get(i);
    }
    return sum;
  }

  /** Fraction classified correctly, in [0, 1]; NaN without images. */
  public double accuracy() {
    return images == 0 ? Double.NaN : (double) correct() / images;
  }

  /**
   * The loss of a training with label smoothing, which spreads a share s of the target over all
   * classes: (1 - s) * loss + s * uniformLoss.
   */
  public double smoothedLoss(double smoothing) {
    return (1 - smoothing) * loss + smoothing * uniformLoss;
  }

  /** Images of a class. */
  public int imagesOf(int label) {
    return confusion.get(label).stream().mapToInt(Integer::intValue).sum();
  }

  /** Fraction of a class's images that were classified correctly; NaN where it has none. */
  public double accuracyOf(int label) {
    int all = imagesOf(label);
    return all == 0 ? Double.NaN : (double) confusion.get(label).get(label) / all;
  }

  /** Adds images up. */
  static final class Builder {
    private final List<String> classes;
    private final int[][] confusion;
    private final List<Mistake> mistakes = new ArrayList<>();
    private int images;
    private double loss;
    private double uniformLoss;

    Builder(List<String> classes) {
      this.classes = classes;
      this.confusion = new int[classes.size()][classes.size()];
    }

    void add(int image, int label, float[] logits) {
      double[] probabilities = Prediction.softmax(logits);
      int predicted = 0;
      for (int i = 1; i < probabilities.length; i++) {
        if (probabilities[i] > probabilities[predicted]) {
          predicted = i;
        }
      }
      images++;
      double logSum = logSumOfExp(logits);
      loss += logSum - logits[label];
      double mean = 0;
      for (float logit : logits) {
        mean += (logSum - logit) / logits.length;
      }
      uniformLoss += mean;
      confusion[label][predicted]++;
      if (predicted != label) {
        mistakes.add(new Mistake(image, label, predicted, probabilities[predicted]));
      }
    }

    /** log(sum of exp(logits)): -log p = this - logit is finite where p rounds to 0. */
    private static double logSumOfExp(float[] logits) {
      double greatest = Double.NEGATIVE_INFINITY;
      for (float logit : logits) {
        greatest = Math.max(greatest, logit);
      }
      double sum = 0;
      for (float logit : logits) {
        sum += Math.exp(logit - greatest);
      }
      return greatest + Math.log(sum);
    }

    Classification build() {
      List<List<Integer>> rows = new ArrayList<>();
      for (int[] row : confusion) {
        List<Integer> counts = new ArrayList<>();
        for (int count : row) {
          counts.add(count);
        }
        rows.add(counts);
      }
      mistakes.sort(Comparator.comparingDouble(Mistake::probability).reversed());
      return new Classification(
          classes,
          images,
          loss / images,
          uniformLoss / images,
          rows,
          mistakes.subList(0, Math.min(MISTAKES, mistakes.size())));
    }
  }
}
