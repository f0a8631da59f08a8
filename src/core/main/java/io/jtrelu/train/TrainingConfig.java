package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonProperty;
import io.jtrelu.backend.Tuning;
import io.jtrelu.data.Augmentation;
import io.jtrelu.tensor.DataType;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * How a network is trained: everything that determines a run but the network, the data and the
 * machine. Two runs of one {@link Run} with the same data on the same backend give the same
 * parameters, bit for bit.
 *
 * <pre>{@code
 * TrainingConfig config = TrainingConfig.builder().epochs(20).batch(128).learningRate(0.05).build();
 * }</pre>
 *
 * @param epochs passes over the training data
 * @param batch images per pass through the network
 * @param accumulate passes whose gradients are added up for one step
 * @param microBatch images that a core takes through the network at a time, which sets the order of
 *     sums; 0 for {@link io.jtrelu.nn.BatchExecutor#microBatch}. A GPU takes whole batches whatever
 *     it says, so that a run can go on there
 * @param shards equal parts of a batch that processes may share, a power of two: any number of
 *     processes that divides it gives the same bits, as the order of sums is that of the shards; 0
 *     for a run of one process, without
 * @param exchange how processes add up the shards' gradients; a config.json says nothing of {@link
 *     GradientExchange#TREE}
 * @param optimizer the update rule
 * @param learningRate peak rate
 * @param warmup share of the steps in which the rate rises linearly, in [0, 1); then a half cosine
 * @param momentum of SGD, K-FAC and Muon, and beta1 of Adam
 * @param weightDecay on weights, not on biases
 * @param clipNorm gradients of a larger norm are scaled down to it; infinity for none. Not for
 *     K-FAC, which has its own constraint, nor for Muon, which does not ask how large they are
 * @param labelSmoothing share of the target spread over all classes, in [0, 1)
 * @param cropPadding pixels of padding before a random crop; 0 for no crop
 * @param flip whether images are mirrored at random
 * @param cropArea smallest share of a picture's area that is cut out at random and brought to the
 *     images' size ({@link Augmentation}); 1 for no such crop
 * @param type storage type of activations and their gradients: F32 or BF16
 * @param seed of initialisation, order of the data, augmentation, dropout, and K-FAC's labels
 * @param kfac settings of K-FAC, {@link KfacConfig#DEFAULTS} unless given; null for the others
 * @param tuning whether a GPU measures which of several ways computes a layer fastest; what it
 *     chooses is part of the {@link Run}
 */
public record TrainingConfig(
    @JsonProperty(required = true) int epochs,
    @JsonProperty(required = true) int batch,
    @JsonProperty(required = true) int accumulate,
    @JsonProperty int microBatch,
    @JsonInclude(JsonInclude.Include.NON_DEFAULT) @JsonProperty int shards,
    @JsonProperty(required = true) GradientExchange exchange,
    @JsonProperty(required = true) Optimizer.Kind optimizer,
    @JsonProperty(required = true) double learningRate,
    @JsonProperty(required = true) double warmup,
    @JsonProperty(required = true) double momentum,
    @JsonProperty(required = true) double weightDecay,
    @JsonProperty(required = true) double clipNorm,
    @JsonProperty(required = true) double labelSmoothing,
    @JsonProperty(required = true) int cropPadding,
    @JsonProperty(required = true) boolean flip,
    @JsonProperty(required = true) double cropArea,
    @JsonProperty(required = true) DataType type,
    @JsonProperty(required = true) long seed,
    @JsonInclude(JsonInclude.Include.NON_NULL) @JsonProperty @Nullable KfacConfig kfac,
    @JsonProperty(required = true) Tuning tuning) {

  /**
   * @throws IllegalArgumentException naming the value that is out of range and what is allowed
   */
  public TrainingConfig {
    if (optimizer != Optimizer.Kind.KFAC) {
      kfac = null;
    } else if (kfac == null) {
      kfac = KfacConfig.DEFAULTS;
    }
    require(epochs >= 1, "epochs", epochs, "1 or more");
    require(batch >= 1, "batch", batch, "1 or more");
    require(accumulate >= 1, "accumulate", accumulate, "1 or more");
    require(
        microBatch == 0 || (microBatch > 0 && batch % microBatch == 0),
        "micro-batch",
        microBatch,
        "a divisor of the batch of " + batch + ", or 0 for one that is chosen");
    require(
        shards == 0 || (Integer.bitCount(shards) == 1 && batch % shards == 0),
        "shards",
        shards,
        "a power of two that divides the batch of " + batch + ", or 0 for none");
    require(
        shards == 0 || microBatch == 0 || batch / shards % microBatch == 0,
        "micro-batch",
        microBatch,
        "a divisor of the " + (shards == 0 ? batch : batch / shards) + " images of a shard");
    require(
        exchange == GradientExchange.TREE || shards > 0,
        "exchange of gradients",
        exchange.name().toLowerCase(Locale.ROOT),
        "tree in a run without shards, whose gradients nobody exchanges");
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
    require(cropPadding >= 0, "crop padding", cropPadding, "0 or more");
    require(
        cropArea > 0 && cropArea <= 1 && (cropArea == 1 || cropPadding == 0),
        "area of a crop",
        cropArea,
        "above 0 and at most 1, and 1 with a crop by padding");
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

  /** What happens to images before they are seen. */
  Augmentation augmentation() {
    return new Augmentation(cropPadding, flip, cropArea);
  }

  /** The defaults, to be changed: those of {@code jtrelu train}. */
  public static Builder builder() {
    return new Builder();
  }

  /** This configuration, to be changed. */
  public Builder toBuilder() {
    return new Builder()
        .epochs(epochs)
        .batch(batch)
        .accumulate(accumulate)
        .microBatch(microBatch)
        .shards(shards)
        .exchange(exchange)
        .optimizer(optimizer)
        .learningRate(learningRate)
        .warmup(warmup)
        .momentum(momentum)
        .weightDecay(weightDecay)
        .clipNorm(clipNorm)
        .labelSmoothing(labelSmoothing)
        .cropPadding(cropPadding)
        .flip(flip)
        .cropArea(cropArea)
        .type(type)
        .seed(seed)
        .kfac(kfac)
        .tuning(tuning);
  }

  /** Values by name; those that are not set have defaults. Not thread-safe. */
  public static final class Builder {
    private int epochs = 6;
    private int batch = 64;
    private int accumulate = 1;
    private int microBatch;
    private int shards;
    private GradientExchange exchange = GradientExchange.TREE;
    private Optimizer.Kind optimizer = Optimizer.Kind.SGD;
    private @Nullable Double learningRate; // null: the optimiser's
    private double warmup = 0.1;
    private double momentum = 0.9;
    private double weightDecay;
    private double clipNorm = 1;
    private double labelSmoothing = 0.1;
    private int cropPadding;
    private boolean flip;
    private double cropArea = 1;
    private DataType type = DataType.F32;
    private long seed = 1;
    private @Nullable KfacConfig kfac;
    private Tuning tuning = Tuning.OFF;

    private Builder() {}

    /** See {@link TrainingConfig#epochs}; 6 unless set. */
    public Builder epochs(int value) {
      epochs = value;
      return this;
    }

    /** See {@link TrainingConfig#batch}; 64 unless set. */
    public Builder batch(int value) {
      batch = value;
      return this;
    }

    /** See {@link TrainingConfig#accumulate}; 1 unless set. */
    public Builder accumulate(int value) {
      accumulate = value;
      return this;
    }

    /** See {@link TrainingConfig#microBatch}; 0 unless set. */
    public Builder microBatch(int value) {
      microBatch = value;
      return this;
    }

    /** See {@link TrainingConfig#shards}; 0 unless set. */
    public Builder shards(int value) {
      shards = value;
      return this;
    }

    /** See {@link TrainingConfig#exchange}; TREE unless set. */
    public Builder exchange(GradientExchange value) {
      exchange = value;
      return this;
    }

    /** See {@link TrainingConfig#optimizer}; SGD unless set. */
    public Builder optimizer(Optimizer.Kind value) {
      optimizer = value;
      return this;
    }

    /**
     * See {@link TrainingConfig#learningRate}; 0.02 unless set, 0.003 for K-FAC and 0.001 for Muon.
     */
    public Builder learningRate(double value) {
      learningRate = value;
      return this;
    }

    /** See {@link TrainingConfig#warmup}; 0.1 unless set. */
    public Builder warmup(double value) {
      warmup = value;
      return this;
    }

    /** See {@link TrainingConfig#momentum}; 0.9 unless set. */
    public Builder momentum(double value) {
      momentum = value;
      return this;
    }

    /** See {@link TrainingConfig#weightDecay}; 0 unless set. */
    public Builder weightDecay(double value) {
      weightDecay = value;
      return this;
    }

    /** See {@link TrainingConfig#clipNorm}; 1 unless set. */
    public Builder clipNorm(double value) {
      clipNorm = value;
      return this;
    }

    /** See {@link TrainingConfig#labelSmoothing}; 0.1 unless set. */
    public Builder labelSmoothing(double value) {
      labelSmoothing = value;
      return this;
    }

    /** See {@link TrainingConfig#cropPadding}; 0 unless set. */
    public Builder cropPadding(int value) {
      cropPadding = value;
      return this;
    }

    /** See {@link TrainingConfig#flip}; false unless set. */
    public Builder flip(boolean value) {
      flip = value;
      return this;
    }

    /** See {@link TrainingConfig#cropArea}; 1 unless set. */
    public Builder cropArea(double value) {
      cropArea = value;
      return this;
    }

    /** See {@link TrainingConfig#type}; F32 unless set. */
    public Builder type(DataType value) {
      type = value;
      return this;
    }

    /** See {@link TrainingConfig#seed}; 1 unless set. */
    public Builder seed(long value) {
      seed = value;
      return this;
    }

    /** See {@link TrainingConfig#kfac}; {@link KfacConfig#DEFAULTS} unless set. */
    public Builder kfac(@Nullable KfacConfig value) {
      kfac = value;
      return this;
    }

    /** See {@link TrainingConfig#tuning}; OFF unless set. */
    public Builder tuning(Tuning value) {
      tuning = value;
      return this;
    }

    /**
     * The configuration.
     *
     * @throws IllegalArgumentException naming the value that is out of range and what is allowed
     */
    public TrainingConfig build() {
      return new TrainingConfig(
          epochs,
          batch,
          accumulate,
          microBatch,
          shards,
          exchange,
          optimizer,
          learningRate == null ? optimizer.defaultLearningRate() : learningRate,
          warmup,
          momentum,
          weightDecay,
          clipNorm,
          labelSmoothing,
          cropPadding,
          flip,
          cropArea,
          type,
          seed,
          kfac,
          tuning);
    }
  }
}
