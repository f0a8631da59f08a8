package io.jtrelu.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.distributed.DistributedException;
import io.jtrelu.inference.Predictor;
import io.jtrelu.nn.Parameters;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.ml.evaluation.MulticlassClassificationEvaluator;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** On a cluster of Spark's own: executors in processes beside this one. */
@Tag("spark")
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
@Timeout(180)
class OnSparkTest {
  private static final int EXTENT = 8;
  private static final int TRAINING = 40;
  private static final int VALIDATION = 9;

  @TempDir Path folder;
  private SparkSession spark;

  @BeforeAll
  void start() {
    SparkConf conf =
        new SparkConf()
            .setMaster(System.getProperty("jtrelu.spark.master", "local-cluster[2,2,512]"))
            .setAppName("jtrelu")
            .set("spark.driver.host", "localhost")
            .set("spark.ui.enabled", "false")
            .set("spark.executor.memory", "512m")
            .set("spark.executor.extraClassPath", System.getProperty("java.class.path"))
            .set("spark.executorEnv.JAVA_HOME", System.getProperty("java.home"))
            .set("spark.executor.extraJavaOptions", "--enable-native-access=ALL-UNNAMED")
            .set("spark.sql.shuffle.partitions", "3");
    spark = SparkSession.builder().config(conf).getOrCreate();
  }

  @AfterAll
  void stop() {
    spark.stop();
  }

  private static byte[] image(SplittableRandom random, int label) {
    byte[] image = new byte[EXTENT * EXTENT];
    for (int p = 0; p < image.length; p++) {
      int bright = p / (image.length / 2) == label ? 150 : 0;
      image[p] = (byte) (bright + random.nextInt(100));
    }
    return image;
  }

  /** Images that are bright in the upper or the lower half; the last ones are for validation. */
  private Dataset<Row> table() {
    List<Row> rows = new ArrayList<>();
    for (int part = 0; part < 2; part++) {
      SplittableRandom random = new SplittableRandom(part);
      for (int i = 0; i < (part == 0 ? TRAINING : VALIDATION); i++) {
        rows.add(RowFactory.create(image(random, i % 2), i % 2, part == 1));
      }
    }
    StructType schema =
        new StructType()
            .add("features", DataTypes.BinaryType)
            .add("label", DataTypes.IntegerType)
            .add("validation", DataTypes.BooleanType);
    JavaSparkContext context = JavaSparkContext.fromSparkContext(spark.sparkContext());
    return spark.createDataFrame(context.parallelize(rows, 5), schema);
  }

  /** The same in files, for the command line. */
  private static void write(Path data) throws IOException {
    for (int part = 0; part < 2; part++) {
      SplittableRandom random = new SplittableRandom(part);
      int count = part == 0 ? TRAINING : VALIDATION;
      ByteBuffer images = ByteBuffer.allocate(16 + count * EXTENT * EXTENT);
      images.putInt(0x803).putInt(count).putInt(EXTENT).putInt(EXTENT);
      ByteBuffer labels = ByteBuffer.allocate(8 + count).putInt(0x801).putInt(count);
      for (int i = 0; i < count; i++) {
        images.put(image(random, i % 2));
        labels.put((byte) (i % 2));
      }
      String prefix = part == 0 ? "train" : "t10k";
      Files.write(data.resolve(prefix + "-images-idx3-ubyte"), images.array());
      Files.write(data.resolve(prefix + "-labels-idx1-ubyte"), labels.array());
    }
  }

  /** With augmentation, and an optimiser that has a state. */
  private static JTReLUClassifier classifier(int tasks) {
    return new JTReLUClassifier()
        .setImageHeight(EXTENT)
        .setImageWidth(EXTENT)
        .setImageChannels(1)
        .setValidationIndicatorCol("validation")
        .setNetwork("plain:14:20")
        .setOptimizer("adam")
        .setLearningRate(0.002)
        .setEpochs(3)
        .setBatchSize(16)
        .setShards(4)
        .setNumTasks(tasks)
        .setRandomCrop(1)
        .setFlip(true)
        .setDeadline(30);
  }

  private static float[] parameters(Path checkpoint) throws IOException {
    try (Checkpoint of = Checkpoint.open(checkpoint);
        Backend backend = Backends.open("reference");
        Parameters parameters = Parameters.allocate(of.run().model().network(), backend)) {
      Trainer.restoreParameters(of, backend, parameters);
      return parameters.arena().toFloatArray();
    }
  }

  private float[] parameters(JTReLUClassificationModel model) throws IOException {
    Path saved = Files.createTempDirectory(folder, "model").resolve("saved");
    model.save(saved.toUri().toString());
    return parameters(saved.resolve(JTReLUClassificationModel.FILE));
  }

  @Test
  void anyNumberOfTasksGivesTheBitsOfTheCommandLine() throws Exception {
    Path data = Files.createDirectory(folder.resolve("data"));
    write(data);
    Path run = folder.resolve("run");
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("--enable-native-access=ALL-UNNAMED", "-cp"));
    command.addAll(List.of(System.getProperty("java.class.path"), "io.jtrelu.cli.Main", "train"));
    command.addAll(List.of("--data", data.toString(), "--out", run.toString()));
    command.addAll(List.of("--network", "plain:14:20", "--optimizer", "adam", "--epochs", "3"));
    command.addAll(List.of("--learning-rate", "0.002", "--batch", "16", "--shards", "4"));
    command.addAll(List.of("--random-crop", "1", "--flip", "--device", "cpu:1"));
    Path said = folder.resolve("said");
    Process alone =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(said.toFile()).start();
    assertTrue(alone.waitFor(60, TimeUnit.SECONDS));
    assertEquals(0, alone.exitValue(), Files.readString(said));
    float[] expected = parameters(run.resolve(Trainer.CHECKPOINT));
    for (int tasks : new int[] {1, 2, 4}) {
      assertArrayEquals(expected, parameters(classifier(tasks).fit(table())), tasks + " tasks");
    }
  }

  @Test
  void scoresAsThePredictorDoesBeforeAndAfterItIsSaved() throws IOException {
    Dataset<Row> table = table();
    Pipeline pipeline = new Pipeline().setStages(new PipelineStage[] {classifier(2).setEpochs(20)});
    String at = folder.resolve("pipeline").toUri().toString();
    pipeline.save(at);
    PipelineModel fitted = Pipeline.load(at).fit(table);
    String saved = folder.resolve("fitted").toUri().toString();
    fitted.save(saved);
    Dataset<Row> scored = PipelineModel.load(saved).transform(table);
    assertEquals(
        List.of("features", "label", "validation", "rawPrediction", "probability", "prediction"),
        Arrays.asList(scored.columns()));
    List<Row> rows = scored.collectAsList();
    assertEquals(
        fitted.transform(table).drop("features").collectAsList(),
        scored.drop("features").collectAsList());
    JTReLUClassificationModel model = (JTReLUClassificationModel) fitted.stages()[0];
    assertEquals(List.of("0", "1"), model.classes());
    Path of = folder.resolve("one");
    model.save(of.toUri().toString());
    try (Predictor predictor =
        Predictor.open(of.resolve(JTReLUClassificationModel.FILE), "cpu:1")) {
      for (Row row : rows) {
        float[] logits = predictor.logits(List.of((byte[]) row.get(0))).getFirst();
        Vector raw = (Vector) row.get(3);
        Vector probability = (Vector) row.get(4);
        double difference = logits[1] - logits[0];
        assertEquals(difference, raw.apply(1) - raw.apply(0), 1e-5);
        assertEquals(1 / (1 + Math.exp(-difference)), probability.apply(1), 1e-6);
        assertEquals(difference > 0 ? 1.0 : 0.0, row.getDouble(5));
      }
    }
    double accuracy =
        new MulticlassClassificationEvaluator().setMetricName("accuracy").evaluate(scored);
    assertTrue(accuracy > 0.9, "accuracy " + accuracy);
  }

  @Test
  void theDriverIsToldWhichTaskFailedAndWhy() {
    long begin = System.nanoTime();
    DistributedException wild =
        assertThrows(
            DistributedException.class,
            () ->
                classifier(2)
                    .setOptimizer("sgd")
                    .setLearningRate(9e5)
                    .setClipNorm(1e30)
                    .fit(table()));
    String message = String.valueOf(wild.getMessage());
    assertTrue(message.contains("of 2 failed: step "), message);
    assertTrue(message.contains("checkpointDir"), message);
    DistributedException label =
        assertThrows(DistributedException.class, () -> classifier(2).setImageWidth(9).fit(table()));
    assertTrue(String.valueOf(label.getMessage()).contains("64 bytes"), label::getMessage);
    assertTrue(System.nanoTime() - begin < 60e9);
    IllegalArgumentException three =
        assertThrows(IllegalArgumentException.class, () -> classifier(3).fit(table()));
    assertEquals("numTasks must divide the 4 shards, got 3", three.getMessage());
  }

  /** Spark begins the stage again, and the run goes on from the last epoch that had ended. */
  @Test
  void aRunOfWhichAnExecutorWasKilledGoesOn() throws Exception {
    Path checkpoints = folder.resolve("checkpoints");
    JTReLUClassifier killed =
        classifier(4).setEpochs(200).setCheckpointDir(checkpoints.toUri().toString());
    CompletableFuture<Void> killer = CompletableFuture.runAsync(() -> kill(checkpoints));
    float[] parameters = parameters(killed.fit(table()));
    killer.join(); // fails if nothing was killed
    assertArrayEquals(parameters(classifier(2).setEpochs(200).fit(table())), parameters);
    // What has ended is there already, for another number of tasks too.
    assertArrayEquals(parameters, parameters(killed.setNumTasks(1).fit(table())));
    DistributedException other =
        assertThrows(DistributedException.class, () -> killed.setSeed(2).fit(table()));
    assertTrue(String.valueOf(other.getMessage()).contains("holds another run"), other::getMessage);
  }

  /** Ends an executor's process once an epoch was saved; the cluster's are children of this one. */
  private static void kill(Path checkpoints) {
    long until = System.nanoTime() + 60_000_000_000L;
    while (!Files.isDirectory(checkpoints)) {
      if (System.nanoTime() - until > 0) {
        throw new AssertionError("no checkpoint was saved");
      }
      LockSupport.parkNanos(20_000_000);
    }
    ProcessHandle executor =
        ProcessHandle.current()
            .children()
            .filter(process -> process.info().command().orElse("").endsWith("java"))
            .findFirst()
            .orElseThrow();
    assertTrue(executor.destroyForcibly());
  }
}
