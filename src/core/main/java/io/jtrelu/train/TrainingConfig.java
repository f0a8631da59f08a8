package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;

/**
 * Everything that determines a run but the data's bytes and the machine. Two runs with the same
 * configuration on the same backend give the same parameters, bit for bit.
 *
 * @param network name as {@link Networks#build} takes it
 * @param block residual block of ResNets
 * @param shortcutWeight weight of shortcuts in ResNets, in [0, 1)
 * @param shaping how activations get their parameters
 * @param data {@code embedded}, {@code fashion-mnist} or a folder
 * @param cropPadding pixels of padding before a random crop; 0 for no crop
 * @param flip whether images are mirrored at random
 * @param epochs passes over the training data
 * @param batch images per pass through the network
 * @param accumulate passes whose gradients are added up for one step
 * @param microBatch images that a core takes through the network at a time, which sets the order of
 *     sums; 0 for {@link io.jtrelu.nn.BatchExecutor#microBatch}. A GPU takes whole batches whatever
 *     it says, so that a run can go on there
 * @param optimizer the update rule
 * @param learningRate peak rate
 * @param warmup share of the steps in which the rate rises linearly, in [0, 1); then a half cosine
 * @param momentum of SGD, and beta1 of Adam
 * @param weightDecay on weights, not on biases
 * @param clipNorm gradients of a larger norm are scaled down to it; infinity for none
 * @param labelSmoothing share of the target spread over all classes, in [0, 1)
 * @param dropout rate before the logits, in [0, 1)
 * @param type storage type of activations and their gradients: F32 or BF16
 * @param seed of initialisation, order of the data, augmentation and dropout
 */
public record TrainingConfig(
    @JsonProperty(required = true) String network,
    @JsonProperty(required = true) Networks.Block block,
    @JsonProperty(required = true) double shortcutWeight,
    @JsonProperty(required = true) ShapingConfig shaping,
    @JsonProperty(required = true) String data,
    @JsonProperty(required = true) int cropPadding,
    @JsonProperty(required = true) boolean flip,
    @JsonProperty(required = true) int epochs,
    @JsonProperty(required = true) int batch,
    @JsonProperty(required = true) int accumulate,
    @JsonProperty int microBatch,
    @JsonProperty(required = true) Optimizer.Kind optimizer,
    @JsonProperty(required = true) double learningRate,
    @JsonProperty(required = true) double warmup,
    @JsonProperty(required = true) double momentum,
    @JsonProperty(required = true) double weightDecay,
    @JsonProperty(required = true) double clipNorm,
    @JsonProperty(required = true) double labelSmoothing,
    @JsonProperty(required = true) double dropout,
    @JsonProperty(required = true) DataType type,
    @JsonProperty(required = true) long seed) {

  /**
   * @throws IllegalArgumentException naming the value that is out of range and what is allowed
   */
  public TrainingConfig {
    require(epochs >= 1, "epochs", epochs, "1 or more");
    require(batch >= 1, "batch", batch, "1 or more");
    require(accumulate >= 1, "accumulate", accumulate, "1 or more");
    require(
        microBatch == 0 || (microBatch > 0 && batch % microBatch == 0),
        "micro-batch",
        microBatch,
        "a divisor of the batch of " + batch + ", or 0 for one that is chosen");
    require(
        learningRate > 0 && learningRate < 1e6,
        "learning rate",
        learningRate,
        "above 0 and below 1e6");
    require(warmup >= 0 && warmup < 1, "warm-up", warmup, "a share of the steps in [0, 1)");
    require(momentum >= 0 && momentum < 1, "momentum", momentum, "in [0, 1)");
    require(
        weightDecay >= 0 && weightDecay < 1e6,
        "weight decay",
        weightDecay,
        "0 or more and below 1e6");
    require(clipNorm > 0, "clipping norm", clipNorm, "positive; infinity for none");
    require(
        labelSmoothing >= 0 && labelSmoothing < 1, "label smoothing", labelSmoothing, "in [0, 1)");
    require(dropout >= 0 && dropout < 1, "dropout", dropout, "in [0, 1)");
    require(cropPadding >= 0, "crop padding", cropPadding, "0 or more");
    require(
        type == DataType.F32 || type == DataType.BF16,
        "type",
        type,
        "f32 or bf16"
            + (type == DataType.F16
                ? " (gradients in f16 fall below its smallest numbers unless the loss is scaled,"
                    + " which is not there yet; bf16 takes as little memory and has the range of f32)"
                : ""));
  }

  private static void require(boolean holds, String name, Object value, String allowed) {
    if (!holds) {
      throw new IllegalArgumentException(name + " must be " + allowed + ", got " + value);
    }
  }
}
