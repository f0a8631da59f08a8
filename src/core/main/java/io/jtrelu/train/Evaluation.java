package io.jtrelu.train;

import io.jtrelu.backend.Stream;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.nn.BatchExecutor;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

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
    List<BatchExecutor.Result> results = batches(executor, model, data, batchSize, 0, 1);
    return of(results, data, data.skipped().size());
  }

  /**
   * As above, shared out to ranks: each takes consecutive batches, and the sums are those over all
   * batches in their order.
   */
  static Evaluation run(
      BatchExecutor executor,
      Model model,
      ImageDataset data,
      int batchSize,
      Communicator ranks,
      Stream stream) {
    List<BatchExecutor.Result> here =
        batches(executor, model, data, batchSize, ranks.rank(), ranks.size());
    List<Integer> counts = new ArrayList<>();
    int batches = Math.ceilDiv(data.size(), batchSize);
    for (int rank = 0; rank < ranks.size(); rank++) {
      counts.add(first(batches, rank + 1, ranks.size()) - first(batches, rank, ranks.size()));
    }
    Set<String> skipped = new HashSet<>(); // which two ranks may have come across
    for (String ofRank : ranks.gatherTexts(String.join("\n", data.skipped()))) {
      ofRank.lines().forEach(skipped::add);
    }
    return of(RankExchange.gather(ranks, stream, here, counts), data, skipped.size());
  }

  private static int first(int batches, int rank, int ranks) {
    return (int) ((long) batches * rank / ranks);
  }

  /** Those of a rank; none where there are no images, or too few for all ranks. */
  private static List<BatchExecutor.Result> batches(
      BatchExecutor executor, Model model, ImageDataset data, int batchSize, int rank, int ranks) {
    List<BatchExecutor.Result> results = new ArrayList<>();
    int batches = Math.ceilDiv(data.size(), batchSize);
    int begin = first(batches, rank, ranks);
    int end = first(batches, rank + 1, ranks);
    if (begin == end) {
      return results;
    }
    try (BatchLoader loader =
        BatchLoader.over(data, model.normalization()).batch(batchSize).startAt(0, begin).open()) {
      for (int step = begin; step < end; step++) {
        try (Batch batch = loader.next()) {
          results.add(executor.evaluate(batch.src(), batch.labels()));
        }
      }
    }
    return results;
  }

  private static Evaluation of(List<BatchExecutor.Result> results, ImageDataset data, int skipped) {
    double loss = 0;
    long correct = 0;
    for (BatchExecutor.Result result : results) {
      loss += result.loss();
      correct += result.correct();
    }
    int images = data.size() - skipped;
    return new Evaluation(loss / images, (double) correct / images, images);
  }
}
