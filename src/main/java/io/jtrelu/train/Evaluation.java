package io.jtrelu.train;

import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;

/**
 * Loss and accuracy on a data set.
 *
 * @param loss mean over the images
 * @param accuracy fraction classified correctly, in [0, 1]
 * @param images how many there were
 */
public record Evaluation(double loss, double accuracy, int images) {
  /** Runs a network, whose parameters the executor has loaded, over all images once. */
  public static Evaluation run(
      BatchExecutor executor, Model model, ImageDataset data, int batchSize) {
    double loss = 0;
    long correct = 0;
    try (BatchLoader loader =
            BatchLoader.over(data, model.normalization()).batch(batchSize).open();
        Tensor labels =
            Tensor.allocate(io.jtrelu.tensor.Shape.of(batchSize), DataType.I32, Layout.ROW_MAJOR)) {
      for (int step = 0; step < loader.stepsPerEpoch(); step++) {
        try (Batch batch = loader.next()) {
          for (int i = 0; i < batchSize; i++) {
            labels.put(i, i < batch.valid() ? batch.labels().get(i) : -1); // -1 counts for nothing
          }
          BatchExecutor.Result result = executor.evaluate(batch.src(), labels);
          loss += result.loss();
          correct += result.correct();
        }
      }
    }
    return new Evaluation(loss / data.size(), (double) correct / data.size(), data.size());
  }
}
