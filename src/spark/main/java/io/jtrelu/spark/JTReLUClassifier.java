package io.jtrelu.spark;

import io.jtrelu.distributed.DistributedException;
import io.jtrelu.spark.SharedRows.InTurn;
import io.jtrelu.spark.SharedRows.Sample;
import io.jtrelu.spark.TrainingTask.Outcome;
import io.jtrelu.train.ShapingConfig;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Objects;
import org.apache.spark.api.java.JavaPairRDD;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.ml.Estimator;
import org.apache.spark.ml.attribute.Attribute;
import org.apache.spark.ml.attribute.NominalAttribute;
import org.apache.spark.ml.image.ImageSchema;
import org.apache.spark.ml.param.BooleanParam;
import org.apache.spark.ml.param.DoubleParam;
import org.apache.spark.ml.param.IntParam;
import org.apache.spark.ml.param.LongParam;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.param.ParamValidators;
import org.apache.spark.ml.util.DefaultParamsReader;
import org.apache.spark.ml.util.DefaultParamsWritable;
import org.apache.spark.ml.util.Identifiable$;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.rdd.RDD;
import org.apache.spark.sql.Column;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.BooleanType;
import org.apache.spark.sql.types.NumericType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Tuple2;
import scala.reflect.ClassTag;

/**
 * Trains a very deep network without shortcuts and normalisation on a table of images and labels,
 * as one stage of tasks that share each batch:
 *
 * <pre>{@code
 * JTReLUClassificationModel model = new JTReLUClassifier()
 *     .setImageHeight(28).setImageWidth(28).setImageChannels(1)
 *     .setEpochs(6).setNumTasks(4)
 *     .setCheckpointDir("hdfs:///runs/plain50")
 *     .fit(table);
 * }</pre>
 *
 * <p><b>Bits.</b> Rows count in the table's order. With the same rows and parameters the network is
 * that of {@code jtrelu train --shards}, bit for bit, whatever the number of tasks; see {@link
 * io.jtrelu.train.Trainer}.
 *
 * <p><b>Tasks.</b> They are a barrier stage: Spark starts all of them at once, or none, and needs
 * as many free slots. They exchange gradients by TCP among themselves ({@link
 * io.jtrelu.distributed.SocketCommunicator}). An epoch takes images in an order over all rows, so
 * that each task needs any of them: it has them as bytes in a file of its own in the executor's
 * temporary folder, and a few megabytes of them in memory.
 *
 * <p><b>Failure.</b> A task that fails ends all of them within seconds, and {@link #fit} throws
 * {@link DistributedException}, which says which one and why. Where an executor was lost, Spark
 * begins the stage again, as often as spark.stage.maxConsecutiveAttempts says. With a checkpointDir
 * either goes on after the last epoch that ended: fit the same rows with the same parameters again,
 * with more or fewer tasks if need be.
 *
 * <p>Labels are numbers from 0; where their column has Spark's attributes, as StringIndexer gives
 * it, classes have those names. Not thread-safe.
 */
public final class JTReLUClassifier extends Estimator<JTReLUClassificationModel>
    implements DefaultParamsWritable, ScoringParams {
  private static final long serialVersionUID = 1;
  private static final Logger LOG = LoggerFactory.getLogger(JTReLUClassifier.class);
  private static final List<String> OPTIMIZERS = List.of("sgd", "adam", "kfac", "muon");

  private final String uid;
  private final Param<String> featuresCol;
  private final Param<String> labelCol;
  private final Param<String> validationIndicatorCol;
  private final IntParam imageHeight;
  private final IntParam imageWidth;
  private final IntParam imageChannels;
  private final Param<String> network;
  private final Param<String> method;
  private final Param<String> activation;
  private final Param<String> optimizer;
  private final DoubleParam learningRate;
  private final IntParam epochs;
  private final IntParam batchSize;
  private final IntParam shards;
  private final IntParam numTasks;
  private final DoubleParam weightDecay;
  private final DoubleParam clipNorm;
  private final DoubleParam labelSmoothing;
  private final IntParam randomCrop;
  private final BooleanParam flip;
  private final LongParam seed;
  private final Param<String> checkpointDir;
  private final DoubleParam deadline;
  private final Param<String> device;
  private final Param<String> predictionCol;
  private final Param<String> probabilityCol;
  private final Param<String> rawPredictionCol;

  /** One with a name of its own. */
  public JTReLUClassifier() {
    this(Identifiable$.MODULE$.randomUID("jtrelu"));
  }

  /** One with a name. */
  public JTReLUClassifier(String uid) {
    this.uid = uid;
    featuresCol = ScoringParams.newFeaturesCol(this);
    setDefault(featuresCol, "features");
    labelCol = new Param<>(this, "labelCol", "column of classes: whole numbers from 0");
    setDefault(labelCol, "label");
    validationIndicatorCol =
        new Param<>(
            this,
            "validationIndicatorCol",
            "boolean column of rows to measure on after each epoch, not to learn from");
    imageHeight =
        new IntParam(
            this,
            "imageHeight",
            "rows that images are brought to; 0 for those of the first one, which only image structs tell",
            ParamValidators.gtEq(0));
    setDefault(imageHeight, 0);
    imageWidth = new IntParam(this, "imageWidth", "columns, likewise", ParamValidators.gtEq(0));
    setDefault(imageWidth, 0);
    imageChannels =
        new IntParam(
            this,
            "imageChannels",
            "values per location, likewise: 1 gray, 3 colour",
            ParamValidators.gtEq(0));
    setDefault(imageChannels, 0);
    network =
        new Param<>(
            this, "network", "plain50, plain100, plain200, plain:L[:width], resnet18 to resnet200");
    setDefault(network, "plain50");
    method =
        new Param<>(
            this,
            "method",
            "how activations are shaped: tat, dks, eoc, none or he",
            ParamValidators.inArray(ShapingConfig.methods()));
    setDefault(method, "tat");
    activation =
        new Param<>(
            this,
            "activation",
            "activation function",
            ParamValidators.inArray(ShapingConfig.activations()));
    setDefault(activation, "leaky_relu");
    optimizer =
        new Param<>(
            this,
            "optimizer",
            "update rule: sgd, adam, kfac or muon",
            ParamValidators.inArray(OPTIMIZERS));
    setDefault(optimizer, "sgd");
    learningRate =
        new DoubleParam(
            this,
            "learningRate",
            "peak of the learning rate; the optimiser's own unless set",
            ParamValidators.gt(0));
    epochs = new IntParam(this, "epochs", "passes over the rows", ParamValidators.gtEq(1));
    setDefault(epochs, 6);
    batchSize = new IntParam(this, "batchSize", "images of a step", ParamValidators.gtEq(1));
    setDefault(batchSize, 64);
    shards =
        new IntParam(
            this,
            "shards",
            "equal parts of a batch that tasks share, a power of two, which set the order of sums",
            ParamValidators.gtEq(1));
    setDefault(shards, 8);
    numTasks =
        new IntParam(
            this,
            "numTasks",
            "tasks that train together, all at once; a divisor of shards",
            ParamValidators.gtEq(1));
    setDefault(numTasks, 1);
    weightDecay =
        new DoubleParam(this, "weightDecay", "on weights, not on biases", ParamValidators.gtEq(0));
    setDefault(weightDecay, 0.0);
    clipNorm =
        new DoubleParam(
            this,
            "clipNorm",
            "gradients of a larger norm are scaled down to it",
            ParamValidators.gt(0));
    setDefault(clipNorm, 1.0);
    labelSmoothing =
        new DoubleParam(
            this,
            "labelSmoothing",
            "share of the target spread over all classes",
            ParamValidators.inRange(0, 1, true, false));
    setDefault(labelSmoothing, 0.1);
    randomCrop =
        new IntParam(
            this,
            "randomCrop",
            "pixels of padding before a random crop; 0 for none",
            ParamValidators.gtEq(0));
    setDefault(randomCrop, 0);
    flip = new BooleanParam(this, "flip", "whether images are mirrored at random");
    setDefault(flip, false);
    seed = new LongParam(this, "seed", "of weights, order and augmentation");
    setDefault(seed, 1L);
    checkpointDir =
        new Param<>(
            this,
            "checkpointDir",
            "URI of a folder that driver and executors reach, for a checkpoint after each epoch; a run that finds its own there goes on with it");
    deadline =
        new DoubleParam(
            this,
            "deadline",
            "seconds that a task waits for others before it gives up",
            ParamValidators.gt(0));
    setDefault(deadline, 300.0);
    device = ScoringParams.newDevice(this);
    setDefault(device, "cpu");
    predictionCol = ScoringParams.newPredictionCol(this);
    setDefault(predictionCol, "prediction");
    probabilityCol = ScoringParams.newProbabilityCol(this);
    setDefault(probabilityCol, "probability");
    rawPredictionCol = ScoringParams.newRawPredictionCol(this);
    setDefault(rawPredictionCol, "rawPrediction");
  }

  @Override
  public String uid() {
    return uid;
  }

  /** For {@code load}. */
  public static MLReader<JTReLUClassifier> read() {
    return new DefaultParamsReader<>();
  }

  /** One that was saved. */
  public static JTReLUClassifier load(String path) {
    return read().load(path);
  }

  @Override
  public JTReLUClassifier copy(ParamMap extra) {
    return defaultCopy(extra);
  }

  /**
   * @throws IllegalArgumentException if a column is missing, or of another kind
   */
  @Override
  public StructType transformSchema(StructType schema) {
    StructField label = schema.apply(getOrDefault(labelCol));
    if (!(label.dataType() instanceof NumericType)) {
      throw new IllegalArgumentException(
          "column "
              + label.name()
              + " must hold labels, numbers from 0, but is "
              + label.dataType().catalogString()
              + "; a StringIndexer makes them of names");
    }
    if (isSet(validationIndicatorCol)) {
      StructField indicator = schema.apply(getOrDefault(validationIndicatorCol));
      if (!(indicator.dataType() instanceof BooleanType)) {
        throw new IllegalArgumentException(
            "column " + indicator.name() + " must be boolean: whether a row is for validation");
      }
    }
    return empty().transformSchema(schema);
  }

  /** A model with the columns' names only. */
  private JTReLUClassificationModel empty() {
    return copyValues(new JTReLUClassificationModel(uid), ParamMap.empty());
  }

  /**
   * Trains.
   *
   * @throws DistributedException if a task fails, or tasks lose each other, saying how to go on
   * @throws IllegalArgumentException if parameters or columns do not fit together
   */
  @Override
  public JTReLUClassificationModel fit(Dataset<?> dataset) {
    transformSchema(dataset.schema());
    int tasks = (int) getOrDefault(numTasks);
    JavaSparkContext spark =
        JavaSparkContext.fromSparkContext(dataset.sparkSession().sparkContext());
    try (Progress.Receiver progress =
        new Progress.Receiver(line -> LOG.info("{}: {}", uid, line))) {
      Settings settings =
          settings(dataset, spark, progress.address(spark.getConf().get("spark.driver.host")));
      if (settings.training().shards() % tasks != 0) {
        throw new IllegalArgumentException(
            "numTasks must divide the " + settings.shards() + " shards, got " + tasks);
      }
      byte[] model = train(samples(dataset, settings.images()), settings, tasks);
      return empty().with(model).setParent(this);
    } catch (IOException noSocket) {
      throw new UncheckedIOException(noSocket);
    }
  }

  /** The network's checkpoint. */
  private static byte[] train(JavaPairRDD<Long, Sample> rows, Settings settings, int tasks) {
    RDD<Tuple2<Long, Sample>> shared =
        rows.repartitionAndSortWithinPartitions(new InTurn(tasks)).rdd();
    ClassTag<Outcome> kind = ClassTag.apply(Outcome.class);
    List<Outcome> outcomes;
    try {
      outcomes =
          shared
              .barrier()
              .mapPartitions(new TrainingTask(settings), false, kind)
              .toJavaRDD()
              .repartition(1) // as Spark begins a stage again only if another one follows it
              .collect();
    } catch (Exception failure) {
      throw new DistributedException(
          ended(tasks, String.valueOf(failure.getMessage()), settings), failure);
    }
    byte[] model = null;
    for (Outcome outcome : outcomes) {
      if (outcome.failure() != null) {
        throw new DistributedException(ended(tasks, outcome.failure(), settings));
      }
      model = outcome.model() == null ? model : outcome.model();
    }
    return Objects.requireNonNull(model);
  }

  private static String ended(int tasks, String why, Settings settings) {
    CheckpointFolder checkpoints = settings.checkpoints();
    return "training by "
        + tasks
        + " tasks has ended: "
        + why
        + (why.endsWith("\n") ? "" : ". ")
        + (checkpoints == null
            ? "Nothing is left of it; with a checkpointDir it could go on"
            : "Fit again with this checkpointDir to go on after the last epoch that ended, with"
                + " fewer tasks if need be: "
                + checkpoints.folder());
  }

  private Settings settings(Dataset<?> dataset, JavaSparkContext spark, String progress) {
    String folder = isSet(checkpointDir) ? getOrDefault(checkpointDir) : null;
    return new Settings(
        getOrDefault(network),
        getOrDefault(method),
        getOrDefault(activation),
        getOrDefault(optimizer),
        isSet(learningRate) ? (Double) getOrDefault(learningRate) : null,
        (int) getOrDefault(epochs),
        (int) getOrDefault(batchSize),
        (int) getOrDefault(shards),
        (double) getOrDefault(weightDecay),
        (double) getOrDefault(clipNorm),
        (double) getOrDefault(labelSmoothing),
        (int) getOrDefault(randomCrop),
        (boolean) getOrDefault(flip),
        (long) getOrDefault(seed),
        getOrDefault(device),
        images(dataset),
        classes(dataset.schema().apply(getOrDefault(labelCol))),
        (double) getOrDefault(deadline),
        folder == null ? null : CheckpointFolder.of(folder, spark.hadoopConfiguration()),
        progress);
  }

  /** The size that is said, or that of the first image. */
  private Images images(Dataset<?> dataset) {
    String column = getOrDefault(featuresCol);
    int height = (int) getOrDefault(imageHeight);
    int width = (int) getOrDefault(imageWidth);
    int channels = (int) getOrDefault(imageChannels);
    if (height > 0 && width > 0 && channels > 0) {
      return new Images(column, height, width, channels);
    }
    if (!Images.isStruct(dataset.schema().apply(column).dataType())) {
      throw new IllegalArgumentException(
          "set imageHeight, imageWidth and imageChannels: column " + column + " does not tell");
    }
    Row first = dataset.select(column).toDF().first().getStruct(0);
    return new Images(
        column,
        height > 0 ? height : ImageSchema.getHeight(first),
        width > 0 ? width : ImageSchema.getWidth(first),
        channels > 0 ? channels : Math.min(ImageSchema.getNChannels(first), 3));
  }

  /** Names that a column of labels has, in their order; empty where it has none. */
  private static List<String> classes(StructField label) {
    return Attribute.fromStructField(label) instanceof NominalAttribute names
            && names.values().isDefined()
        ? List.of(names.values().get())
        : List.of();
  }

  private JavaPairRDD<Long, Sample> samples(Dataset<?> dataset, Images images) {
    Column validation =
        isSet(validationIndicatorCol)
            ? functions.col(getOrDefault(validationIndicatorCol))
            : functions.lit(false);
    JavaRDD<Row> rows =
        dataset
            .select(
                functions.col(getOrDefault(featuresCol)),
                functions.col(getOrDefault(labelCol)).cast("double"),
                validation)
            .javaRDD();
    return rows.zipWithIndex().mapToPair(row -> new Tuple2<>(row._2(), sample(row._1(), images)));
  }

  private static Sample sample(Row row, Images images) {
    double label = row.isNullAt(1) ? Double.NaN : row.getDouble(1);
    if (label != (int) label || label < 0) {
      throw new IllegalArgumentException("labels are whole numbers from 0, got " + label);
    }
    boolean validation = !row.isNullAt(2) && row.getBoolean(2);
    return new Sample(images.pixels(row, 0), (int) label, validation);
  }

  @Override
  public Param<String> featuresCol() {
    return featuresCol;
  }

  /** Sets {@link #featuresCol}. */
  public JTReLUClassifier setFeaturesCol(String value) {
    set(featuresCol, value);
    return this;
  }

  /** Parameter: column of classes: whole numbers from 0. */
  public Param<String> labelCol() {
    return labelCol;
  }

  /** Sets {@link #labelCol}. */
  public JTReLUClassifier setLabelCol(String value) {
    set(labelCol, value);
    return this;
  }

  /** Parameter: boolean column of rows to measure on after each epoch, not to learn from. */
  public Param<String> validationIndicatorCol() {
    return validationIndicatorCol;
  }

  /** Sets {@link #validationIndicatorCol}. */
  public JTReLUClassifier setValidationIndicatorCol(String value) {
    set(validationIndicatorCol, value);
    return this;
  }

  /**
   * Parameter: rows that images are brought to; 0 for those of the first one, which only image
   * structs tell.
   */
  public IntParam imageHeight() {
    return imageHeight;
  }

  /** Sets {@link #imageHeight}. */
  public JTReLUClassifier setImageHeight(int value) {
    set(imageHeight, value);
    return this;
  }

  /** Parameter: columns, likewise. */
  public IntParam imageWidth() {
    return imageWidth;
  }

  /** Sets {@link #imageWidth}. */
  public JTReLUClassifier setImageWidth(int value) {
    set(imageWidth, value);
    return this;
  }

  /** Parameter: values per location, likewise: 1 gray, 3 colour. */
  public IntParam imageChannels() {
    return imageChannels;
  }

  /** Sets {@link #imageChannels}. */
  public JTReLUClassifier setImageChannels(int value) {
    set(imageChannels, value);
    return this;
  }

  /** Parameter: plain50, plain100, plain200, plain:L[:width], resnet18 to resnet200. */
  public Param<String> network() {
    return network;
  }

  /** Sets {@link #network}. */
  public JTReLUClassifier setNetwork(String value) {
    set(network, value);
    return this;
  }

  /** Parameter: how activations are shaped: tat, dks, eoc, none or he. */
  public Param<String> method() {
    return method;
  }

  /** Sets {@link #method}. */
  public JTReLUClassifier setMethod(String value) {
    set(method, value);
    return this;
  }

  /** Parameter: activation function. */
  public Param<String> activation() {
    return activation;
  }

  /** Sets {@link #activation}. */
  public JTReLUClassifier setActivation(String value) {
    set(activation, value);
    return this;
  }

  /** Parameter: update rule: sgd, adam, kfac or muon. */
  public Param<String> optimizer() {
    return optimizer;
  }

  /** Sets {@link #optimizer}. */
  public JTReLUClassifier setOptimizer(String value) {
    set(optimizer, value);
    return this;
  }

  /** Parameter: peak of the learning rate; the optimiser's own unless set. */
  public DoubleParam learningRate() {
    return learningRate;
  }

  /** Sets {@link #learningRate}. */
  public JTReLUClassifier setLearningRate(double value) {
    set(learningRate, value);
    return this;
  }

  /** Parameter: passes over the rows. */
  public IntParam epochs() {
    return epochs;
  }

  /** Sets {@link #epochs}. */
  public JTReLUClassifier setEpochs(int value) {
    set(epochs, value);
    return this;
  }

  /** Parameter: images of a step. */
  public IntParam batchSize() {
    return batchSize;
  }

  /** Sets {@link #batchSize}. */
  public JTReLUClassifier setBatchSize(int value) {
    set(batchSize, value);
    return this;
  }

  /**
   * Parameter: equal parts of a batch that tasks share, a power of two, which set the order of
   * sums.
   */
  public IntParam shards() {
    return shards;
  }

  /** Sets {@link #shards}. */
  public JTReLUClassifier setShards(int value) {
    set(shards, value);
    return this;
  }

  /** Parameter: tasks that train together, all at once; a divisor of shards. */
  public IntParam numTasks() {
    return numTasks;
  }

  /** Sets {@link #numTasks}. */
  public JTReLUClassifier setNumTasks(int value) {
    set(numTasks, value);
    return this;
  }

  /** Parameter: on weights, not on biases. */
  public DoubleParam weightDecay() {
    return weightDecay;
  }

  /** Sets {@link #weightDecay}. */
  public JTReLUClassifier setWeightDecay(double value) {
    set(weightDecay, value);
    return this;
  }

  /** Parameter: gradients of a larger norm are scaled down to it. */
  public DoubleParam clipNorm() {
    return clipNorm;
  }

  /** Sets {@link #clipNorm}. */
  public JTReLUClassifier setClipNorm(double value) {
    set(clipNorm, value);
    return this;
  }

  /** Parameter: share of the target spread over all classes. */
  public DoubleParam labelSmoothing() {
    return labelSmoothing;
  }

  /** Sets {@link #labelSmoothing}. */
  public JTReLUClassifier setLabelSmoothing(double value) {
    set(labelSmoothing, value);
    return this;
  }

  /** Parameter: pixels of padding before a random crop; 0 for none. */
  public IntParam randomCrop() {
    return randomCrop;
  }

  /** Sets {@link #randomCrop}. */
  public JTReLUClassifier setRandomCrop(int value) {
    set(randomCrop, value);
    return this;
  }

  /** Parameter: whether images are mirrored at random. */
  public BooleanParam flip() {
    return flip;
  }

  /** Sets {@link #flip}. */
  public JTReLUClassifier setFlip(boolean value) {
    set(flip, value);
    return this;
  }

  /** Parameter: of weights, order and augmentation. */
  public LongParam seed() {
    return seed;
  }

  /** Sets {@link #seed}. */
  public JTReLUClassifier setSeed(long value) {
    set(seed, value);
    return this;
  }

  /**
   * Parameter: URI of a folder that driver and executors reach, for a checkpoint after each epoch;
   * a run that finds its own there goes on with it.
   */
  public Param<String> checkpointDir() {
    return checkpointDir;
  }

  /** Sets {@link #checkpointDir}. */
  public JTReLUClassifier setCheckpointDir(String value) {
    set(checkpointDir, value);
    return this;
  }

  /** Parameter: seconds that a task waits for others before it gives up. */
  public DoubleParam deadline() {
    return deadline;
  }

  /** Sets {@link #deadline}. */
  public JTReLUClassifier setDeadline(double value) {
    set(deadline, value);
    return this;
  }

  @Override
  public Param<String> device() {
    return device;
  }

  /** Sets {@link #device}. */
  public JTReLUClassifier setDevice(String value) {
    set(device, value);
    return this;
  }

  @Override
  public Param<String> predictionCol() {
    return predictionCol;
  }

  /** Sets {@link #predictionCol}. */
  public JTReLUClassifier setPredictionCol(String value) {
    set(predictionCol, value);
    return this;
  }

  @Override
  public Param<String> probabilityCol() {
    return probabilityCol;
  }

  /** Sets {@link #probabilityCol}. */
  public JTReLUClassifier setProbabilityCol(String value) {
    set(probabilityCol, value);
    return this;
  }

  @Override
  public Param<String> rawPredictionCol() {
    return rawPredictionCol;
  }

  /** Sets {@link #rawPredictionCol}. */
  public JTReLUClassifier setRawPredictionCol(String value) {
    set(rawPredictionCol, value);
    return this;
  }
}
