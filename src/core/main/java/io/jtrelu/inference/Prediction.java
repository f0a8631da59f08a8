package io.jtrelu.inference;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * What a model makes of one image. Immutable.
 *
 * @param classes all classes, the most probable first; among equals the order is the model's
 */
public record Prediction(List<Ranked> classes) {
  /**
   * A class and its probability.
   *
   * @param name of the class
   * @param index of the class in the model's order
   * @param probability softmax of the logits, in [0, 1]; all of an image add up to 1
   */
  public record Ranked(String name, int index, double probability) {}

  /** Copies the list. */
  public Prediction {
    classes = List.copyOf(classes);
  }

  /** Softmax of a model's logits, in double. */
  static Prediction of(List<String> names, float[] logits) {
    double[] probabilities = softmax(logits);
    List<Ranked> ranked = new ArrayList<>();
    for (int i = 0; i < probabilities.length; i++) {
      ranked.add(new Ranked(names.get(i), i, probabilities[i]));
    }
    ranked.sort(Comparator.comparingDouble(Ranked::probability).reversed());
    return new Prediction(ranked);
  }

  static double[] softmax(float[] logits) {
    double greatest = Double.NEGATIVE_INFINITY;
    for (float logit : logits) {
      greatest = Math.max(greatest, logit);
    }
    double[] probabilities = new double[logits.length];
    double sum = 0;
    for (int i = 0; i < logits.length; i++) {
      probabilities[i] = Math.exp(logits[i] - greatest);
      sum += probabilities[i];
    }
    for (int i = 0; i < logits.length; i++) {
      probabilities[i] /= sum;
    }
    return probabilities;
  }

  /** The most probable class. */
  public Ranked best() {
    return classes.getFirst();
  }

  /** Name of the most probable class. */
  public String name() {
    return best().name();
  }

  /**
   * The most probable classes.
   *
   * @param count how many, or all if there are fewer
   */
  public List<Ranked> top(int count) {
    return classes.subList(0, Math.min(count, classes.size()));
  }
}
