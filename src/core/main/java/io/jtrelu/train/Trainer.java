package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Augmentation;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Trains one network, a step at a time: the caller calls {@link #step} until {@link #finished}, and
 * may stop between any two steps, {@link #save} and go on later, bitwise as if it had not stopped.
 * {@link #advance} takes a step without waiting for its figures, which keeps a GPU busy.
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
  private final Steps passes;
  private final BatchExecutor evaluator;
  private final BatchLoader loader;
  private final @Nullable MetricsLog log;
  private final Schedule schedule;
  private final int stepsPerEpoch;

  private final Deque<Steps.Pass> underWay = new ArrayDeque<>();

  private long step;
  private double bestAccuracy = Double.NaN;
  private double epochLoss;
  private double epochAccuracy;
  private int epochSteps;
  private double epochSeconds;
  private double seconds;

  /** When the step that is under way, or the oldest of those, began. */
  private long mark;

  private double stepLoss;
  private int stepCorrect;
  private @Nullable StepMetric lastStep;
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
      trainer.passes.load();
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
      this.passes = own(openSteps(config));
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
        passes.load();
      }
    } catch (Throwable failure) {
      close();
      throw failure;
    }
  }

  private Steps openSteps(TrainingConfig config) {
    Program.Options options = model.options(true);
    int batch = config.batch();
    int micro = config.microBatch();
    int accumulate = config.accumulate();
    if (backend.device().equals(Device.CPU)) {
      return new LaneSteps(
          network, backend, batch, micro, accumulate, options, parameters, gradients, optimizer);
    }
    return new RecordedSteps(
        network, backend, batch, accumulate, options, parameters, gradients, optimizer);
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

  /**
   * The parameters, on the backend's device; they change with every step, and may do so until
   * {@link #settle}.
   */
  public Parameters parameters() {
    return parameters;
  }

  /** Bytes of activations that a training pass holds for its backward half. */
  public long activationBytes() {
    return passes.activationBytes();
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

  /** Figures of the last step whose figures are in, or null before the first. */
  public @Nullable StepMetric lastStep() {
    return lastStep;
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
   * Takes one step and waits for its figures; after the last one of an epoch also measures test
   * accuracy and saves.
   *
   * @throws NonFiniteException if loss or gradient is not finite; parameters and files are left as
   *     they were before the step
   * @throws IOException if a file cannot be written
   */
  public StepMetric step() throws IOException {
    advance();
    settle();
    return Objects.requireNonNull(lastStep);
  }

  /**
   * Takes one step as {@link #step} does, but need not wait for its figures: on a GPU they come in
   * with the next call, so that the device finds the next step queued when it has done this one. On
   * a CPU, and at the end of an epoch, they are in when this returns. See {@link #lastStep}.
   *
   * @throws NonFiniteException if loss or gradient of this step or of the one before is not finite.
   *     Parameters and files are left as they were before that step: what was queued behind it has
   *     changed nothing either, and {@link #steps} does not count it
   * @throws IOException if a file cannot be written
   */
  public void advance() throws IOException {
    if (finished()) {
      throw new IllegalStateException("the run has finished");
    }
    if (underWay.isEmpty()) {
      mark = System.nanoTime();
    }
    int accumulate = model.training().accumulate();
    for (int i = 0; i < accumulate; i++) {
      Steps.Pass pass =
          new Steps.Pass(
              i == 0, i == accumulate - 1, step * accumulate + i, schedule.rate(step), step + 1);
      try (Batch batch = loader.next()) {
        passes.submit(batch.src(), batch.labels(), pass);
        underWay.add(pass);
        settle(passes.ahead());
      }
    }
    step++;
    if (step % stepsPerEpoch == 0) {
      settle();
      endEpoch();
      skipRemainder();
    }
  }

  /**
   * Waits for the figures of all steps taken: {@link #parameters} are those of {@link #steps} steps
   * then.
   *
   * @throws NonFiniteException as {@link #advance}
   * @throws IOException if they cannot be written
   */
  public void settle() throws IOException {
    settle(0);
  }

  /** Takes figures until no more than so many passes are under way. */
  private void settle(int most) throws IOException {
    while (underWay.size() > most) {
      Steps.Figures figures = passes.take();
      settle(underWay.remove(), figures);
    }
  }

  private void settle(Steps.Pass pass, Steps.Figures figures) throws IOException {
    TrainingConfig config = model.training();
    int images = config.batch() * config.accumulate();
    stepLoss += figures.loss() / images;
    stepCorrect += figures.correct();
    if (!Double.isFinite(stepLoss)) {
      throw notFinite(pass, "loss is " + stepLoss);
    }
    if (!pass.last()) {
      return;
    }
    if (!Float.isFinite(figures.norm())) {
      throw notFinite(pass, "norm of the gradient is " + figures.norm());
    }
    long now = System.nanoTime();
    double elapsed = seconds(now - mark);
    mark = now;
    seconds += elapsed;
    epochSeconds += elapsed;
    StepMetric metric =
        new StepMetric(
            pass.number(),
            (int) ((pass.number() - 1) / stepsPerEpoch) + 1,
            pass.learningRate(),
            stepLoss,
            (double) stepCorrect / images,
            figures.norm(),
            images / elapsed,
            seconds);
    stepLoss = 0;
    stepCorrect = 0;
    lastStep = metric;
    epochLoss += metric.loss();
    epochAccuracy += metric.accuracy();
    epochSteps++;
    if (log != null) {
      log.append(metric);
    }
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
            imagesSeen / epochSeconds,
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

  /** A duration; NaN on the emulated device, whose speed means nothing. */
  private double seconds(long nanoseconds) {
    return backend.name().equals("emulated") ? Double.NaN : nanoseconds * 1e-9;
  }

  /** Undoes the steps from this one on, which have changed nothing, and says what is wrong. */
  private NonFiniteException notFinite(Steps.Pass pass, String what) {
    String layer = passes.firstNonFiniteLayer();
    passes.forgive();
    underWay.clear();
    stepLoss = 0;
    stepCorrect = 0;
    step = pass.number() - 1;
    return new NonFiniteException(
        "step "
            + pass.number()
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

  private Tensor onHost(Stream stream, Tensor tensor) {
    Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout());
    backend.copy(stream, tensor, host);
    stream.synchronize();
    return host;
  }

  /**
   * Saves the run as it stands, atomically, once its steps have {@linkplain #settle settled}; does
   * nothing for a run without a folder.
   *
   * @throws NonFiniteException as {@link #advance}; nothing is saved then
   * @throws IOException if it cannot be written; the checkpoint before it is then untouched
   */
  public void save() throws IOException {
    if (directory == null) {
      return;
    }
    settle();
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
