package io.jtrelu.spark;

import io.jtrelu.train.Checkpoint;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.stream.Stream;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.Path;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.ml.Model;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.util.DefaultParamsReader;
import org.apache.spark.ml.util.DefaultParamsWriter;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.ml.util.MLWritable;
import org.apache.spark.ml.util.MLWriter;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.jspecify.annotations.Nullable;

/**
 * A network that {@link JTReLUClassifier} has trained. Adds to a table of images the columns that
 * Spark's classifiers add: logits, probabilities and the label of the largest. Rows are scored by
 * partitions, in batches.
 *
 * <p>Saved, it is Spark's metadata and {@value #FILE}, a checkpoint as {@code jtrelu} takes it
 * everywhere: {@code jtrelu predict --model}, {@code evaluate}, {@code export}.
 *
 * <p>Setters are not thread-safe, all else is.
 */
public final class JTReLUClassificationModel extends Model<JTReLUClassificationModel>
    implements MLWritable, ScoringParams {
  private static final long serialVersionUID = 1;

  /** Name of the checkpoint beside the metadata. */
  public static final String FILE = "model.safetensors";

  private final String uid;
  private final Param<String> featuresCol;
  private final Param<String> device;
  private final Param<String> predictionCol;
  private final Param<String> probabilityCol;
  private final Param<String> rawPredictionCol;
  private byte @Nullable [] checkpoint;
  private transient io.jtrelu.train.@Nullable Model trained;

  /** Without a network yet: Spark loads parameters first. */
  public JTReLUClassificationModel(String uid) {
    this.uid = uid;
    featuresCol = ScoringParams.newFeaturesCol(this);
    setDefault(featuresCol, "features");
    device = ScoringParams.newDevice(this);
    setDefault(device, "cpu");
    predictionCol = ScoringParams.newPredictionCol(this);
    setDefault(predictionCol, "prediction");
    probabilityCol = ScoringParams.newProbabilityCol(this);
    setDefault(probabilityCol, "probability");
    rawPredictionCol = ScoringParams.newRawPredictionCol(this);
    setDefault(rawPredictionCol, "rawPrediction");
  }

  /** The network of a checkpoint. */
  JTReLUClassificationModel with(byte[] bytes) {
    try {
      trained =
          Scorer.onFile(
              bytes,
              file -> {
                try (Checkpoint read = Checkpoint.open(file)) {
                  return read.run().model();
                }
              });
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
    checkpoint = bytes;
    return this;
  }

  @Override
  public String uid() {
    return uid;
  }

  private io.jtrelu.train.Model trained() {
    if (trained == null) {
      throw new IllegalStateException(uid + " has no network: train one, or load it");
    }
    return trained;
  }

  private byte[] checkpoint() {
    trained();
    return Objects.requireNonNull(checkpoint);
  }

  /** Names of the classes, by label. */
  public List<String> classes() {
    return trained().classes();
  }

  /** Number of classes. */
  public int numClasses() {
    return classes().size();
  }

  /** Images as they are scored: their size is the network's. */
  private Images images() {
    io.jtrelu.train.Model of = trained();
    return new Images(getOrDefault(featuresCol), of.height(), of.width(), of.channels());
  }

  @Override
  public JTReLUClassificationModel copy(ParamMap extra) {
    JTReLUClassificationModel copy = copyValues(new JTReLUClassificationModel(uid), extra);
    copy.checkpoint = checkpoint;
    copy.trained = trained;
    return copy.setParent(parent());
  }

  /**
   * @throws IllegalArgumentException if the images' column is missing or of another kind, or a
   *     column to be added is there already
   */
  @Override
  public StructType transformSchema(StructType schema) {
    String features = getOrDefault(featuresCol);
    Images.requireType(features, schema.apply(features).dataType());
    StructType all = schema;
    for (Output output : outputs()) {
      if (Arrays.asList(all.fieldNames()).contains(output.name())) {
        throw new IllegalArgumentException("column " + output.name() + " is there already");
      }
      all = all.add(output.name(), output.type(), false);
    }
    return all;
  }

  private record Output(String name, DataType type, Scorer.Kind kind) {}

  /** Columns to be added, in the order of Spark's classifiers. */
  private List<Output> outputs() {
    return Stream.of(
            new Output(
                getOrDefault(rawPredictionCol), SQLDataTypes.VectorType(), Scorer.Kind.LOGITS),
            new Output(
                getOrDefault(probabilityCol), SQLDataTypes.VectorType(), Scorer.Kind.PROBABILITIES),
            new Output(getOrDefault(predictionCol), DataTypes.DoubleType, Scorer.Kind.LABEL))
        .filter(output -> !output.name().isEmpty())
        .toList();
  }

  @Override
  public Dataset<Row> transform(Dataset<?> dataset) {
    StructType all = transformSchema(dataset.schema());
    Broadcast<byte[]> network =
        JavaSparkContext.fromSparkContext(dataset.sparkSession().sparkContext())
            .broadcast(checkpoint());
    Scorer scorer =
        new Scorer(
            network,
            images(),
            dataset.schema().fieldIndex(getOrDefault(featuresCol)),
            outputs().stream().map(Output::kind).toList(),
            getOrDefault(device));
    return dataset.toDF().mapPartitions(scorer, Encoders.row(all));
  }

  @Override
  public MLWriter write() {
    return new Writer(this);
  }

  /** For {@code load}. */
  public static MLReader<JTReLUClassificationModel> read() {
    return new Reader();
  }

  /** One that was saved. */
  public static JTReLUClassificationModel load(String path) {
    return read().load(path);
  }

  private static final class Writer extends MLWriter {
    private final JTReLUClassificationModel model;

    Writer(JTReLUClassificationModel model) {
      this.model = model;
    }

    @Override
    public void saveImpl(String path) {
      byte[] checkpoint = model.checkpoint();
      new DefaultParamsWriter(model).session(sparkSession()).saveImpl(path);
      Path file = new Path(path, FILE);
      try (FSDataOutputStream to =
          file.getFileSystem(sc().hadoopConfiguration()).create(file, false)) {
        to.write(checkpoint);
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }
  }

  private static final class Reader extends MLReader<JTReLUClassificationModel> {
    @Override
    public JTReLUClassificationModel load(String path) {
      JTReLUClassificationModel model =
          new DefaultParamsReader<JTReLUClassificationModel>().session(sparkSession()).load(path);
      Path file = new Path(path, FILE);
      try (FSDataInputStream from = file.getFileSystem(sc().hadoopConfiguration()).open(file)) {
        return model.with(from.readAllBytes());
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }
  }

  @Override
  public Param<String> featuresCol() {
    return featuresCol;
  }

  /** Sets {@link #featuresCol}. */
  public JTReLUClassificationModel setFeaturesCol(String value) {
    set(featuresCol, value);
    return this;
  }

  @Override
  public Param<String> device() {
    return device;
  }

  /** Sets {@link #device}. */
  public JTReLUClassificationModel setDevice(String value) {
    set(device, value);
    return this;
  }

  @Override
  public Param<String> predictionCol() {
    return predictionCol;
  }

  /** Sets {@link #predictionCol}. */
  public JTReLUClassificationModel setPredictionCol(String value) {
    set(predictionCol, value);
    return this;
  }

  @Override
  public Param<String> probabilityCol() {
    return probabilityCol;
  }

  /** Sets {@link #probabilityCol}. */
  public JTReLUClassificationModel setProbabilityCol(String value) {
    set(probabilityCol, value);
    return this;
  }

  @Override
  public Param<String> rawPredictionCol() {
    return rawPredictionCol;
  }

  /** Sets {@link #rawPredictionCol}. */
  public JTReLUClassificationModel setRawPredictionCol(String value) {
    set(rawPredictionCol, value);
    return this;
  }
}
