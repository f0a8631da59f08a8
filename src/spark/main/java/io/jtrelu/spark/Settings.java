package io.jtrelu.spark;

import io.jtrelu.nn.Networks;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.TrainingConfig;
import java.io.Serializable;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * What the driver tells its tasks.
 *
 * @param learningRate null for the optimiser's
 * @param images how large they are
 * @param classes names in the order of labels; empty for the labels that come
 * @param deadlineSeconds of each wait for others
 * @param checkpoints null for none
 * @param progress where lines for the driver's log go
 */
record Settings(
    String network,
    String method,
    String activation,
    String optimizer,
    @Nullable Double learningRate,
    int epochs,
    int batchSize,
    int shards,
    double weightDecay,
    double clipNorm,
    double labelSmoothing,
    int randomCrop,
    boolean flip,
    long seed,
    String device,
    Images images,
    List<String> classes,
    double deadlineSeconds,
    @Nullable CheckpointFolder checkpoints,
    String progress)
    implements Serializable {

  TrainingConfig training() {
    TrainingConfig.Builder config =
        TrainingConfig.builder()
            .optimizer(Optimizer.Kind.valueOf(optimizer.toUpperCase(Locale.ROOT)))
            .epochs(epochs)
            .batch(batchSize)
            .shards(shards)
            .weightDecay(weightDecay)
            .clipNorm(clipNorm)
            .labelSmoothing(labelSmoothing)
            .cropPadding(randomCrop)
            .flip(flip)
            .seed(seed);
    return (learningRate == null ? config : config.learningRate(learningRate)).build();
  }

  Networks.Options networkOptions() {
    return Networks.Options.of(network);
  }

  ShapingConfig shaping() {
    return ShapingConfig.of(method, activation);
  }
}
