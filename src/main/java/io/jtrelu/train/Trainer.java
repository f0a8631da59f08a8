package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.data.Augmentation;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Trains one network, a step at a time: the caller calls {@link #step} until {@link #finished}, and
 * may stop between any two steps, {@link #save} and go on later, bitwise as if it had not stopped.
 *
 * <p>With a folder, it holds config.json, metrics.jsonl (a line per step and epoch) and
 * model.safetensors (parameters, optimiser, position), written at the start, at the end of each
 * epoch and by {@link #save}; files are replaced atomically.
 *
 * <p>Owns all it allocates but the backend. Used by one thread at a time.
 */
public final class Trainer implements AutoCloseable {
  /** Name of the checkpoint in a run's folder. */
  public static final String CHECKPOINT = "model.safetensors";

  /** Name of the metrics in a run's folder. */
  public static final String METRICS = "metrics.jsonl";

  private static final int EVALUATION_BATCH = 64;

  private final Model model;
  private final Network network;
  private final Datasets data;
  private final Backend backend;
  private final @Nullable Path directory;
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final Parameters parameters;
  private final Parameters gradients;
  private final Optimizer optimizer;
  private final BatchExecutor executor;
  private final BatchExecutor evaluator;
  private final BatchLoader loader;
  private final @Nullable MetricsLog log;
  private final Schedule schedule;
  private final int stepsPerEpoch;

  private long step;
  private double bestAccuracy = Double.NaN;
  private double epochLoss;
  private double epochAccuracy;
  private int epochSteps;
  private double epochSeconds;
  private double seconds;
  private @Nullable EpochMetric lastEpoch;

  /**
   * Begins a run.
   *
   * @param directory where its files go, created if it is missing; null for a run that leaves none
   * @throws IOException if the folder already holds a run, or cannot be written
   */
  public static Trainer start(Model model, Datasets data, Backend backend, @Nullable Path directory)
      throws IOException {
    stepsPerEpoch(model.training(), data.train()); // refused before anything is written
    if (directory != null) {
      Files.createDirectories(directory);
      if (Files.exists(directory.resolve(CHECKPOINT))) {
        throw new IOException(
            directory + " already holds a run; resume that one or choose another folder");
      }
      model.write(directory);
    }
    Trainer trainer = new Trainer(model, data, backend, directory, null);
    try {
      model.initializer().fill(backend, trainer.parameters);
      trainer.executor.load(trainer.parameters);
      if (directory != null) {
        trainer.save();
      }
      return trainer;
    } catch (Throwable failure) {
      trainer.close();
      throw failure;
    }
  }

  /**
   * Continues a run from its folder.
   *
   * @throws IOException if its files cannot be read
   * @throws CheckpointException if the checkpoint is of another network
   */
  public static Trainer resume(Model model, Datasets data, Backend backend, Path directory)
      throws IOException {
    model.requireFits(data.train());
    try (Checkpoint checkpoint = Checkpoint.open(directory.resolve(CHECKPOINT))) {
      model.requireOwn(checkpoint);
      return new Trainer(model, data, backend, directory, checkpoint);
    }
  }

  private Trainer(
      Model model,
      Datasets data,
      Backend backend,
      @Nullable Path directory,
      @Nullable Checkpoint checkpoint)
      throws IOException {
    TrainingConfig config = model.training();
    this.model = model;
    this.data = data;
    this.backend = backend;
    this.directory = directory;
    this.network = model.network();
    this.step = checkpoint == null ? 0 : checkpoint.state().step();
    try {
      ImageDataset train = data.train();
      this.parameters = own(Parameters.allocate(network, backend));
      this.gradients = own(Parameters.allocate(network, backend));
      this.optimizer = own(new Optimizer(network, backend, config));
      if (checkpoint != null) {
        restore(checkpoint);
        bestAccuracy = checkpoint.state().bestMetric();
      }
      this.stepsPerEpoch = stepsPerEpoch(config, train);
      long steps = (long) stepsPerEpoch * config.epochs();
      long warmup = Math.min(steps - 1, Math.round(steps * config.warmup()));
      this.schedule = new Schedule.WarmupCosine(config.learningRate(), warmup, steps);
      this.executor =
          own(
              new BatchExecutor(
                  network,
                  backend,
                  config.batch(),
                  BatchExecutor.microBatch(network, backend, config.type(), config.batch()),
                  model.options(true)));
      this.evaluator =
          own(
              new BatchExecutor(
                  network,
                  backend,
                  EVALUATION_BATCH,
                  BatchExecutor.microBatch(network, backend, config.type(), EVALUATION_BATCH),
                  model.options(false)));
      this.loader = own(openLoader(train, config));
      if (directory == null) {
        this.log = null;
      } else {
        Path metrics = directory.resolve(METRICS);
        this.log =
            own(checkpoint == null ? MetricsLog.create(metrics) : MetricsLog.resume(metrics, step));
        if (checkpoint != null) {
          resumeSums(Metrics.read(metrics));
        }
      }
      if (checkpoint != null) {
        executor.load(parameters);
      }
    } catch (Throwable failure) {
      close();
      throw failure;
    }
  }

  /** Whole steps in the training data; refuses a batch that is larger than it. */
  private static int stepsPerEpoch(TrainingConfig config, ImageDataset train) {
    long perStep = (long) config.batch() * config.accumulate();
    if (perStep > train.size()) {
      throw new IllegalArgumentException(
          "a batch of "
              + config.batch()
              + (config.accumulate() == 1 ? "" : " times " + config.accumulate() + " passes")
              + " is larger than the "
              + train.size()
              + " training images; choose a smaller --batch");
    }
    return Math.toIntExact(train.size() / perStep);
  }

  private BatchLoader openLoader(ImageDataset train, TrainingConfig config) {
    // Steps take whole groups of batches; what remains of an epoch is passed over.
    return BatchLoader.over(train, model.normalization())
        .batch(config.batch())
        .shuffle(config.seed())
        .augment(new Augmentation(config.cropPadding(), config.flip()), config.seed())
        .dropLast()
        .prefetch(3)
        .startAt(step / stepsPerEpoch, Math.toIntExact(step % stepsPerEpoch) * config.accumulate())
        .open();
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /** The means over the part of the epoch that was done before. */
  private void resumeSums(Metrics metrics) {
    for (StepMetric metric : metrics.steps()) {
      seconds = metric.seconds();
      if (metric.step() > step - step % stepsPerEpoch) {
        epochLoss += metric.loss();
        epochAccuracy += metric.accuracy();
        epochSteps++;
      }
    }
    if (!metrics.epochs().isEmpty()) {
      lastEpoch = metrics.epochs().getLast();
    }
  }

  /** What is trained. */
  public Model model() {
    return model;
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** The parameters, on the backend's device; they change with every step. */
  public Parameters parameters() {
    return parameters;
  }

  /** Runs training passes; for its figures on memory. */
  public BatchExecutor executor() {
    return executor;
  }

  /** Steps taken. */
  public long steps() {
    return step;
  }

  /** Steps of the whole run. */
  public long totalSteps() {
    return (long) stepsPerEpoch * model.training().epochs();
  }

  /** Steps of an epoch. */
  public int stepsPerEpoch() {
    return stepsPerEpoch;
  }

  /** Whether all steps are taken. */
  public boolean finished() {
    return step >= totalSteps();
  }

  /** Figures of the last epoch that ended, or null before the first. */
  public @Nullable EpochMetric lastEpoch() {
    return lastEpoch;
  }

  /** Best test accuracy at the end of an epoch; NaN before the first. */
  public double bestAccuracy() {
    return bestAccuracy;
  }

  /**
   * Takes one step; after the last one of an epoch also measures test accuracy and saves.
   *
   * @throws NonFiniteException if loss or gradient is not finite; parameters and files are left as
   *     they were before the step
   * @throws IOException if a file cannot be written
   */
  public StepMetric step() throws IOException {
    if (finished()) {
      throw new IllegalStateException("the run has finished");
    }
    TrainingConfig config = model.training();
    long begin = System.nanoTime();
    int images = config.batch() * config.accumulate();
    double loss = 0;
    int correct = 0;
    for (int pass = 0; pass < config.accumulate(); pass++) {
      try (Batch batch = loader.next()) {
        BatchExecutor.Result result =
            executor.forwardBackward(
                batch.src(),
                batch.labels(),
                gradients,
                pass == 0 ? Write.OVERWRITE : Write.ACCUMULATE,
                1f / images,
                step * config.accumulate() + pass);
        loss += result.loss() / images;
        correct += result.correct();
        if (!Double.isFinite(loss)) {
          throw notFinite("loss is " + loss, executor.firstNonFiniteLayer(batch.src()));
        }
      }
    }
    float norm = optimizer.measure(gradients);
    if (!Float.isFinite(norm)) {
      throw notFinite("norm of the gradient is " + norm, firstNonFiniteGradient());
    }
    double rate = schedule.rate(step);
    optimizer.step(parameters, gradients, rate, step + 1);
    executor.load(parameters);
    step++;
    double elapsed = (System.nanoTime() - begin) * 1e-9;
    seconds += elapsed;
    epochSeconds += elapsed;
    StepMetric metric =
        new StepMetric(
            step,
            (int) ((step - 1) / stepsPerEpoch) + 1,
            rate,
            loss,
            (double) correct / images,
            norm,
            throughput(images, elapsed),
            seconds);
    if (log != null) {
      log.append(metric);
    }
    epochLoss += loss;
    epochAccuracy += metric.accuracy();
    epochSteps++;
    if (step % stepsPerEpoch == 0) {
      endEpoch();
      skipRemainder();
    }
    return metric;
  }

  /** Passes over batches at the end of an epoch that do not fill a step. */
  private void skipRemainder() {
    int used = stepsPerEpoch * model.training().accumulate();
    for (int i = used; i < loader.stepsPerEpoch(); i++) {
      loader.next().close();
    }
  }

  private void endEpoch() throws IOException {
    evaluator.load(parameters);
    Evaluation test = Evaluation.run(evaluator, model, data.test(), EVALUATION_BATCH);
    double imagesSeen =
        (double) epochSteps * model.training().batch() * model.training().accumulate();
    EpochMetric metric =
        new EpochMetric(
            (int) (step / stepsPerEpoch),
            step,
            epochLoss / epochSteps,
            epochAccuracy / epochSteps,
            test.loss(),
            test.accuracy(),
            throughput(imagesSeen, epochSeconds),
            seconds);
    lastEpoch = metric;
    bestAccuracy =
        Double.isNaN(bestAccuracy) ? test.accuracy() : Math.max(bestAccuracy, test.accuracy());
    epochLoss = 0;
    epochAccuracy = 0;
    epochSteps = 0;
    epochSeconds = 0;
    if (log != null) {
      log.append(metric);
      save();
    }
  }

  /** Images per second; NaN on the emulated device, whose speed means nothing. */
  private double throughput(double images, double time) {
    return backend.name().equals("emulated") ? Double.NaN : images / time;
  }

  private NonFiniteException notFinite(String what, @Nullable String layer) {
    return new NonFiniteException(
        "step "
            + (step + 1)
            + ": the "
            + what
            + (layer == null ? "" : "; the first layer with a value that is not finite is " + layer)
            + ". Nothing was updated with it"
            + (directory == null ? "" : "; the last checkpoint in " + directory + " is good")
            + ". Lower --learning-rate (now "
            + model.training().learningRate()
            + ") or --clip-norm (now "
            + model.training().clipNorm()
            + ")");
  }

  private @Nullable String firstNonFiniteGradient() {
    List<ParameterSpec> specs = network.parameters();
    try (Stream stream = backend.newStream()) {
      for (int p = 0; p < specs.size(); p++) {
        try (Tensor host = onHost(stream, gradients.view(p))) {
          for (float value : host.toFloatArray()) {
            if (!Float.isFinite(value)) {
              return network.layers().get(specs.get(p).layer()).name();
            }
          }
        }
      }
    }
    return null;
  }

  private Tensor onHost(Stream stream, Tensor tensor) {
    Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout());
    backend.copy(stream, tensor, host);
    stream.synchronize();
    return host;
  }

  /**
   * Saves the run as it stands, atomically; does nothing for a run without a folder.
   *
   * @throws IOException if it cannot be written; the checkpoint before it is then untouched
   */
  public void save() throws IOException {
    if (directory == null) {
      return;
    }
    TrainingConfig config = model.training();
    TrainingState state =
        new TrainingState(
            step,
            (int) (step / stepsPerEpoch),
            step % stepsPerEpoch * config.batch() * config.accumulate(),
            Map.of("run", config.seed()),
            model.toJson(),
            bestAccuracy);
    Map<String, Tensor> host = new LinkedHashMap<>();
    Map<String, Tensor> optimizerState = new LinkedHashMap<>();
    try (Stream stream = backend.newStream()) {
      for (int p = 0; p < network.parameters().size(); p++) {
        host.put(network.parameters().get(p).name(), onHost(stream, parameters.view(p)));
      }
      for (Map.Entry<String, Tensor> entry : optimizer.state().entrySet()) {
        optimizerState.put(entry.getKey(), onHost(stream, entry.getValue()));
      }
      Checkpoint.save(directory.resolve(CHECKPOINT), state, host, optimizerState);
    } finally {
      host.values().forEach(Tensor::close);
      optimizerState.values().forEach(Tensor::close);
    }
  }

  private void restore(Checkpoint checkpoint) throws IOException {
    restoreParameters(checkpoint, backend, parameters, optimizer.state());
  }

  /**
   * Copies a checkpoint's parameters to a device.
   *
   * @throws CheckpointException if it is of another network
   */
  public static void restoreParameters(
      Checkpoint checkpoint, Backend backend, Parameters parameters) throws IOException {
    restoreParameters(checkpoint, backend, parameters, null);
  }

  private static void restoreParameters(
      Checkpoint checkpoint,
      Backend backend,
      Parameters parameters,
      @Nullable Map<String, Tensor> optimizer)
      throws IOException {
    Map<String, Tensor> host = new LinkedHashMap<>();
    Map<String, Tensor> optimizerHost = new LinkedHashMap<>();
    List<ParameterSpec> specs = parameters.network().parameters();
    try (Stream stream = backend.newStream()) {
      for (int p = 0; p < specs.size(); p++) {
        Tensor view = parameters.view(p);
        host.put(specs.get(p).name(), Tensor.allocate(view.shape(), view.type(), view.layout()));
      }
      if (optimizer == null) {
        checkpoint.restore(host);
      } else {
        optimizer.forEach(
            (name, t) -> optimizerHost.put(name, Tensor.allocate(t.shape(), t.type(), t.layout())));
        checkpoint.restore(host, optimizerHost);
        optimizerHost.forEach((name, t) -> backend.copy(stream, t, optimizer.get(name)));
      }
      for (int p = 0; p < specs.size(); p++) {
        backend.copy(stream, host.get(specs.get(p).name()), parameters.view(p));
      }
      stream.synchronize();
    } finally {
      host.values().forEach(Tensor::close);
      optimizerHost.values().forEach(Tensor::close);
    }
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing a training run failed", failure);
      }
    }
  }
}
