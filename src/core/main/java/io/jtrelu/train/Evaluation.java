package io.jtrelu.train;

import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.nn.BatchExecutor;

/**
 * Loss and accuracy on a data set.
 *
 * @param loss mean over the images
 * @param accuracy fraction classified correctly, in [0, 1]
 * @param images how many there were, without bad ones that were skipped
 */
public record Evaluation(double loss, double accuracy, int images) {
  /** Runs a network, whose parameters the executor has loaded, over all images once. */
  public static Evaluation run(
      BatchExecutor executor, Model model, ImageDataset data, int batchSize) {
    double loss = 0;
    long correct = 0;
    try (BatchLoader loader =
        BatchLoader.over(data, model.normalization()).batch(batchSize).open()) {
      for (int step = 0; step < loader.stepsPerEpoch(); step++) {
        try (Batch batch = loader.next()) {
          BatchExecutor.Result result = executor.evaluate(batch.src(), batch.labels());
          loss += result.loss();
          correct += result.correct();
        }
      }
    }
    int images = data.size() - data.skipped().size();
    return new Evaluation(loss / images, (double) correct / images, images);
  }
}
