package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.distributed.SoloCommunicator;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.PrintableText;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Trains a model on images that lie in memory or are streamed from files:
 *
 * <pre>{@code
 * try (Backend backend = Backends.open("auto");
 *     Trainer trainer = Trainer.start(model, config, data, backend, folder)) {
 *   trainer.add(new EarlyStopping(5));
 *   trainer.train();
 * }
 * }</pre>
 *
 * <p>{@link #train} takes all steps; who wants the loop himself calls {@link #step} until {@link
 * #finished}. A run may stop between any two steps, {@link #save} and go on later, bitwise as if it
 * had not stopped. {@link #advance} takes a step without waiting for its figures, which keeps a GPU
 * busy.
 *
 * <p>With a folder, it holds config.json, metrics.jsonl (a line per step and epoch),
 * model.safetensors (parameters, optimiser, position), written at the start, at the end of each
 * epoch and by {@link #save}, and best.safetensors (parameters at the end of the epoch with the
 * best test accuracy so far); files are replaced atomically.
 *
 * <p>A run of {@linkplain TrainingConfig#shards shards} may be shared by several processes: each
 * has a trainer with the same arguments, its own backend and its {@linkplain Communicator rank},
 * and calls the same methods. Rank 0 alone writes files, which all read; figures are the same on
 * all. Any number of ranks gives the same bits, and another number can go on with the run. A rank
 * that fails {@linkplain Communicator#abort aborts}, as the others wait for it.
 *
 * <p>Owns all it allocates but backend and communicator. Used by one thread at a time.
 */
public final class Trainer implements AutoCloseable {
  /** Name of the checkpoint in a run's folder. */
  public static final String CHECKPOINT = "model.safetensors";

  /** Name of the parameters of the best epoch in a run's folder. */
  public static final String BEST = "best.safetensors";

  /** Name of the metrics in a run's folder. */
  public static final String METRICS = "metrics.jsonl";

  static final int EVALUATION_BATCH = 64;

  private Run run;
  private final Model model;
  private final Network network;
  private final Datasets data;
  private final Backend backend;
  private final @Nullable Path directory;
  private final Communicator ranks;
  private final Stream stream; // of what is done between steps
  private final @Nullable RankExchange exchange; // null without shards
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final Parameters parameters;
  private final Parameters gradients;
  private final Optimizer optimizer;
  private final Steps passes;
  private final BatchExecutor evaluator;
  private final BatchLoader loader;
  private final @Nullable MetricsLog log;
  private final List<TrainingListener> listeners = new ArrayList<>();
  private final List<String> notes = new ArrayList<>();
  private final Schedule schedule;
  private final int stepsPerEpoch;

  private final Deque<Steps.Pass> underWay = new ArrayDeque<>();

  private long step;
  private double bestAccuracy = Double.NaN;
  private int epochsSinceBest;
  private double epochLoss;
  private double epochAccuracy;
  private int epochSteps;
  private double epochSeconds;

  /** Whether all steps of the last epoch are taken, but it was not measured. */
  private boolean epochIsOpen;

  /** Images of the epoch that were seen since the run was resumed: those that the time is of. */
  private long epochImages;

  private double seconds;

  /** Of them, since this trainer was opened. */
  private double ownSeconds;

  /** When the step that is under way, or the oldest of those, began. */
  private long mark;

  private double stepLoss;
  private int stepCorrect;
  private @Nullable StepMetric lastStep;
  private @Nullable EpochMetric lastEpoch;
  private List<String> newParameters = List.of();
  private volatile boolean stopRequested;

  /**
   * Begins a run of a model.
   *
   * @param data the same images as those that the model was made for
   * @param directory as in {@link #start(Run, Datasets, Backend, Path)}
   * @throws IOException likewise
   */
  public static Trainer start(
      Model model,
      TrainingConfig training,
      Datasets data,
      Backend backend,
      @Nullable Path directory)
      throws IOException {
    return start(Run.of(model, training, data), data, backend, directory);
  }

  /**
   * Begins a run.
   *
   * @param directory where its files go, created if it is missing; null for a run that leaves none
   * @throws IOException if the folder already holds a run, another process writes in it, or it
   *     cannot be written
   * @throws io.jtrelu.backend.OutOfMemoryException if the device has no room for it; nothing was
   *     allocated or written then
   */
  public static Trainer start(Run run, Datasets data, Backend backend, @Nullable Path directory)
      throws IOException {
    return start(run, data, backend, directory, null);
  }

  /**
   * Begins a run with the parameters of an earlier one, where names and shapes agree; others begin
   * anew, see {@link #newParameters}. Optimiser and position begin anew as well.
   *
   * @param directory as in {@link #start(Run, Datasets, Backend, Path)}
   * @param earlier a checkpoint, or a run's folder for its last one; null for none
   * @throws CheckpointException if it shares no parameter with the network
   * @throws IOException if it cannot be read, or as above
   */
  public static Trainer start(
      Run run, Datasets data, Backend backend, @Nullable Path directory, @Nullable Path earlier)
      throws IOException {
    return start(run, data, backend, directory, earlier, new SoloCommunicator());
  }

  /**
   * Begins a run that processes share; collective.
   *
   * @param directory as in {@link #start(Run, Datasets, Backend, Path)}, the same on all ranks
   * @param ranks stays the caller's, open for as long as the trainer is
   * @throws IllegalArgumentException if the run's shards cannot be shared out so, or the ranks do
   *     not have the same run
   * @throws CheckpointException as above
   * @throws IOException likewise
   */
  public static Trainer start(
      Run run,
      Datasets data,
      Backend backend,
      @Nullable Path directory,
      @Nullable Path earlier,
      Communicator ranks)
      throws IOException {
    requireShared(run, ranks);
    boolean writes = directory != null && ranks.rank() == 0;
    run.requireSame(data);
    stepsPerEpoch(run.training(), data.train()); // refused before anything is written
    TrainingMemory.requireRoom(run, backend, ranks.size()); // or allocated
    RunLock lock = null;
    if (directory != null && writes) {
      Files.createDirectories(directory);
      lock = RunLock.take(directory);
    }
    Trainer trainer = null;
    try {
      if (directory != null && writes) {
        if (Files.exists(directory.resolve(CHECKPOINT))) {
          throw new IOException(
              directory + " already holds a run; resume that one or choose another folder");
        }
        run.write(directory);
      }
      trainer = new Trainer(run, data, backend, directory, null, ranks);
      trainer.run = run.withChoices(backend.choices());
      if (directory != null && writes && !trainer.run.choices().isEmpty()) {
        trainer.run.write(directory);
      }
      run.initializer().fill(backend, trainer.parameters);
      if (earlier != null) {
        trainer.takeParameters(Files.isDirectory(earlier) ? earlier.resolve(CHECKPOINT) : earlier);
      }
      trainer.begin();
      if (lock != null) {
        trainer.owned.addLast(lock); // given back last
      }
      trainer.save();
      return trainer;
    } catch (Throwable failure) {
      close(trainer, failure);
      if (directory != null && lock != null && !Files.exists(directory.resolve(CHECKPOINT))) {
        for (String file : List.of(METRICS, Run.FILE)) {
          Files.deleteIfExists(directory.resolve(file)); // of a run that never was
        }
      }
      close(lock, failure);
      throw failure;
    }
  }

  private static void close(@Nullable AutoCloseable resource, Throwable failure) {
    if (resource != null) {
      try {
        resource.close();
      } catch (Exception also) {
        failure.addSuppressed(also);
      }
    }
  }

  /**
   * Continues a run from its folder.
   *
   * @param data the same images as before
   * @throws IOException if its files cannot be read
   * @throws CheckpointException if the checkpoint is of another run
   * @throws IllegalArgumentException if the data are others
   */
  public static Trainer resume(Path directory, Datasets data, Backend backend) throws IOException {
    return resume(directory, data, backend, new SoloCommunicator());
  }

  /**
   * Continues a run that processes share, as many as before or others; collective.
   *
   * @param data the same images as before
   * @param ranks as in {@link #start(Run, Datasets, Backend, Path, Path, Communicator)}
   * @throws IOException as above
   * @throws CheckpointException likewise
   * @throws IllegalArgumentException likewise, or if the run's shards cannot be shared out so
   */
  public static Trainer resume(Path directory, Datasets data, Backend backend, Communicator ranks)
      throws IOException {
    Run run = Run.read(directory);
    requireShared(run, ranks);
    run.requireSame(data);
    TrainingMemory.requireRoom(run, backend, ranks.size());
    RunLock lock = ranks.rank() == 0 ? RunLock.take(directory) : null;
    try (Checkpoint checkpoint = Checkpoint.open(directory.resolve(CHECKPOINT))) {
      run.requireOwn(checkpoint);
      if (lock != null) {
        // The others are written again soon, which removes theirs; this one may never be.
        AtomicFile.removeAllLeftovers(directory.resolve(BEST));
      }
      Trainer trainer = new Trainer(run, data, backend, directory, checkpoint, ranks);
      try {
        if (trainer.epochIsOpen) {
          trainer.endEpoch();
        }
      } catch (Throwable failure) {
        close(trainer, failure);
        throw failure;
      }
      if (lock != null) {
        trainer.owned.addLast(lock);
      }
      return trainer;
    } catch (Throwable failure) {
      close(lock, failure);
      throw failure;
    }
  }

  /** Refuses ranks that cannot share a run's batches. */
  private static void requireShared(Run run, Communicator ranks) {
    int shards = run.training().shards();
    if (ranks.size() == 1 || (shards > 0 && shards % ranks.size() == 0)) {
      return;
    }
    throw new IllegalArgumentException(
        shards == 0
            ? ranks.size()
                + " processes cannot share this run: it has no shards. Begin one with --shards, a"
                + " power of two that the number of processes divides"
            : "the run's "
                + shards
                + " shards cannot be shared out to "
                + ranks.size()
                + " processes: their number must divide them");
  }

  private Trainer(
      Run run,
      Datasets data,
      Backend backend,
      @Nullable Path directory,
      @Nullable Checkpoint checkpoint,
      Communicator ranks)
      throws IOException {
    TrainingConfig config = run.training();
    this.run = run;
    this.model = run.model();
    this.data = data;
    this.backend = backend;
    this.directory = directory;
    this.ranks = ranks;
    this.network = model.network();
    this.step = checkpoint == null ? 0 : checkpoint.state().step();
    try {
      backend.tune(config.tuning(), run.choices());
      this.stream = own(backend.newStream());
      requireSameOnAllRanks();
      ImageDataset train = data.train();
      this.parameters = own(Parameters.allocate(network, backend));
      this.gradients = own(Parameters.allocate(network, backend));
      this.exchange = config.shards() == 0 ? null : own(openExchange());
      this.optimizer =
          own(new Optimizer(network, backend, config, exchange == null ? null : exchange.owned()));
      if (checkpoint != null) {
        restore(checkpoint);
        bestAccuracy = checkpoint.state().bestMetric();
      }
      this.stepsPerEpoch = stepsPerEpoch(config, train);
      if (checkpoint != null) {
        requirePosition(checkpoint.state());
      }
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
                  run.options(false)));
      this.loader = own(openLoader(train, config));
      if (directory == null || ranks.rank() != 0) {
        this.log = null;
      } else {
        Path metrics = directory.resolve(METRICS);
        this.log =
            own(
                checkpoint == null
                    ? MetricsLog.create(metrics)
                    : MetricsLog.resume(metrics, step, notes));
        add(log);
      }
      if (checkpoint != null && directory != null) {
        ranks.barrier(stream); // until rank 0 has cut off what is behind the checkpoint
        resumeSums(Metrics.read(directory.resolve(METRICS)));
        ranks.barrier(stream); // before it writes on
      }
      if (checkpoint != null) {
        begin();
      }
    } catch (Throwable failure) {
      close();
      throw failure;
    }
  }

  /** Takes over the parameters, which are those of the first rank from here on. */
  private void begin() {
    if (exchange != null) {
      exchange.broadcast(parameters);
    }
    passes.load();
  }

  private void requireSameOnAllRanks() {
    List<String> all = ranks.gatherTexts(step + " " + run.toJson());
    for (int rank = 1; rank < all.size(); rank++) {
      if (!all.get(rank).equals(all.getFirst())) {
        throw new IllegalArgumentException(
            "ranks 0 and "
                + rank
                + " do not have the same run: start all processes with the same options, on files"
                + " that all of them see");
      }
    }
  }

  private RankExchange openExchange() {
    return new RankExchange(
        backend,
        ranks,
        RankExchange.partition(network, backend, run.training(), ranks.size()),
        run.training().exchange(),
        Boolean.parseBoolean(System.getProperty("jtrelu.overlap", "true")));
  }

  /** Step, epoch and position of a checkpoint say the same thing in three ways. */
  private void requirePosition(TrainingState state) {
    long position = step % stepsPerEpoch * run.training().batch() * run.training().accumulate();
    if (step < 0
        || step > totalSteps()
        || state.epoch() != step / stepsPerEpoch
        || state.position() != position) {
      throw new CheckpointException(
          "the checkpoint stands at step "
              + state.step()
              + ", epoch "
              + state.epoch()
              + ", image "
              + state.position()
              + "; with "
              + stepsPerEpoch
              + " steps an epoch that does not fit together: the file was changed, or the data");
    }
  }

  private Steps openSteps(TrainingConfig config) {
    Program.Options options = run.options(true);
    int batch = config.batch();
    int micro = config.microBatch();
    int accumulate = config.accumulate();
    boolean onCpu = backend.device().equals(Device.CPU);
    if (exchange != null && onCpu) {
      return new ShardSteps(
          network, backend, config, ranks, exchange, options, parameters, gradients, optimizer);
    }
    if (onCpu) {
      return new LaneSteps(
          network, backend, batch, micro, accumulate, options, parameters, gradients, optimizer);
    }
    return new RecordedSteps(
        network,
        backend,
        batch / ranks.size(),
        accumulate,
        options,
        parameters,
        gradients,
        optimizer,
        onDevice(model.normalization()),
        exchange == null ? new BatchExecutor.Shards(1, 0, 1) : ShardSteps.shards(config, ranks),
        exchange);
  }

  /** The normalisation as a device does it, where that gives the same bits; else null. */
  static LocationNorm.@Nullable Settings onDevice(PerLocationNormalization how) {
    return how.homogeneous() == PerLocationNormalization.Homogeneous.ONE
        ? new LocationNorm.Settings(
            Arrays.stream(how.mean()).boxed().toList(),
            Arrays.stream(how.std()).boxed().toList(),
            LocationNorm.Homogeneous.ONE,
            1)
        : null;
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
    BatchLoader.Builder loading = BatchLoader.over(train, model.normalization());
    if (passes.takesBytes()) {
      loading.bytes();
    }
    int part = config.batch() / ranks.size();
    return loading
        .batch(config.batch())
        .part(part * ranks.rank(), part)
        .shuffle(config.seed())
        .augment(config.augmentation(), config.seed())
        .dropLast()
        .prefetch(3)
        .startAt(step / stepsPerEpoch, Math.toIntExact(step % stepsPerEpoch) * config.accumulate())
        .open();
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /**
   * The means over the part of the epoch that was done before. That is all of it where the run
   * stopped because a test image could not be read: the epoch is still to be ended then.
   */
  private void resumeSums(Metrics metrics) {
    long begun = step - step % stepsPerEpoch;
    if (begun == step && metrics.epochs().stream().noneMatch(epoch -> epoch.step() == step)) {
      begun -= stepsPerEpoch;
    }
    for (StepMetric metric : metrics.steps()) {
      seconds = metric.seconds();
      if (metric.step() > begun) {
        epochLoss += metric.loss();
        epochAccuracy += metric.accuracy();
        epochSteps++;
      }
    }
    double best = Double.NEGATIVE_INFINITY;
    for (EpochMetric metric : metrics.epochs()) {
      lastEpoch = metric;
      epochsSinceBest = metric.testAccuracy() > best ? 0 : epochsSinceBest + 1;
      best = Math.max(best, metric.testAccuracy());
    }
    epochIsOpen = epochSteps == stepsPerEpoch;
    if (begun == step - stepsPerEpoch && !epochIsOpen) { // metrics were lost, no matter why
      epochLoss = 0;
      epochAccuracy = 0;
      epochSteps = 0;
    }
  }

  /** Tells a listener of steps and epochs from now on, after those that were added before it. */
  public void add(TrainingListener listener) {
    listeners.add(listener);
  }

  /** What is trained, and how. */
  public Run run() {
    return run;
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

  /** What carries bytes between the processes that share the run, for people. */
  public String carriedBy() {
    return exchange == null ? ranks.name() : exchange.carriedBy();
  }

  /** Bytes of activations that a training pass holds for its backward half. */
  public long activationBytes() {
    return passes.activationBytes();
  }

  /** Bytes of K-FAC's factors and their inverses; 0 for other optimisers. */
  public long factorBytes() {
    return optimizer.factorBytes();
  }

  /** Memory of the device that the run takes at most; on a CPU, an estimate of one lane's. */
  public TrainingMemory memory() {
    return TrainingMemory.ofRank(run, backend, ranks.size());
  }

  /** Steps taken. */
  public long steps() {
    return step;
  }

  /** Steps of the whole run. */
  public long totalSteps() {
    return (long) stepsPerEpoch * run.training().epochs();
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

  /** Epochs that have ended since the one with the best test accuracy. */
  public int epochsSinceBest() {
    return epochsSinceBest;
  }

  /**
   * Seconds that steps have waited for images since this trainer was opened; NaN on the emulated
   * device. A GPU may have had earlier steps to do meanwhile.
   */
  public double waitedSeconds() {
    return seconds(loader.waited());
  }

  /**
   * Share of the time of all steps since this trainer was opened in which they waited for images: 0
   * if reading and decoding were always ahead, near 1 if the network hardly mattered. NaN before
   * the first step, and on the emulated device.
   */
  public double waitedShare() {
    return waitedSeconds() / ownSeconds;
  }

  /** What the user should know about how the run was resumed, a sentence each; often empty. */
  public List<String> notes() {
    return List.copyOf(notes);
  }

  /** For a run with the parameters of an earlier one: those that it did not have. */
  public List<String> newParameters() {
    return newParameters;
  }

  /**
   * Takes all steps that are left, or until {@link #stop}; then saves. Saves too where an image
   * could not be read, before it throws.
   *
   * @return whether all are taken
   * @throws IllegalStateException if an image cannot be read or is damaged; the cause says which
   * @throws NonFiniteException as {@link #advance}
   * @throws IOException if a file cannot be written
   */
  public boolean train() throws IOException {
    while (!finished()) {
      if (ranks.any(stopRequested)) {
        stopRequested = false;
        save();
        return false;
      }
      try {
        advance();
      } catch (IllegalStateException failure) {
        if (failure.getCause() instanceof DataException && ranks.size() == 1) {
          save(); // which takes all ranks
        }
        throw failure;
      }
    }
    return true;
  }

  /**
   * Makes {@link #train} return after the step that is under way, or the one behind it; on all
   * ranks if one asks for it. For any thread.
   */
  public void stop() {
    stopRequested = true;
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
    int accumulate = run.training().accumulate();
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
    TrainingConfig config = run.training();
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
    ownSeconds += elapsed;
    epochSeconds += elapsed;
    epochImages += images;
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
    for (TrainingListener listener : listeners) {
      listener.step(this, metric);
    }
  }

  /** Passes over batches at the end of an epoch that do not fill a step. */
  private void skipRemainder() {
    int used = stepsPerEpoch * run.training().accumulate();
    for (int i = used; i < loader.stepsPerEpoch(); i++) {
      loader.next().close();
    }
  }

  private void endEpoch() throws IOException {
    evaluator.load(parameters);
    Evaluation test =
        Evaluation.run(evaluator, model, data.test(), EVALUATION_BATCH, ranks, stream);
    EpochMetric metric =
        new EpochMetric(
            (int) (step / stepsPerEpoch),
            step,
            epochLoss / epochSteps,
            epochAccuracy / epochSteps,
            test.loss(),
            test.accuracy(),
            epochImages / epochSeconds,
            seconds);
    lastEpoch = metric;
    boolean best = !(test.accuracy() <= bestAccuracy);
    if (best) {
      bestAccuracy = test.accuracy();
    }
    epochsSinceBest = best ? 0 : epochsSinceBest + 1;
    epochLoss = 0;
    epochAccuracy = 0;
    epochSteps = 0;
    epochSeconds = 0;
    epochImages = 0;
    // Metrics first: a run that is resumed from the checkpoint finds them.
    for (TrainingListener listener : listeners) {
      listener.epoch(this, metric);
    }
    // The best before the checkpoint: who goes on from that does not come back to this epoch.
    if (best && directory != null) {
      save(directory.resolve(BEST), false);
    }
    save();
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
            + run.training().learningRate()
            + ") or --clip-norm (now "
            + run.training().clipNorm()
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
    if (log != null) {
      log.sync(); // so that the checkpoint is never ahead of its metrics
    }
    save(directory.resolve(CHECKPOINT), true);
  }

  private void save(Path file, boolean withOptimizer) throws IOException {
    TrainingConfig config = run.training();
    TrainingState state =
        new TrainingState(
            step,
            (int) (step / stepsPerEpoch),
            step % stepsPerEpoch * config.batch() * config.accumulate(),
            Map.of("run", config.seed()),
            run.toJson(),
            bestAccuracy);
    Map<String, Tensor> host = new LinkedHashMap<>();
    Map<String, Tensor> optimizerState = new LinkedHashMap<>();
    boolean writes = ranks.rank() == 0;
    try {
      for (int p = 0; writes && p < network.parameters().size(); p++) {
        host.put(network.parameters().get(p).name(), onHost(stream, parameters.view(p)));
      }
      if (withOptimizer) {
        for (Map.Entry<String, Tensor> entry : optimizer.state().entrySet()) {
          collect(writes, entry.getKey(), entry.getValue(), optimizerState);
        }
      }
      if (writes) {
        Checkpoint.save(file, state, host, optimizerState);
      }
    } finally {
      host.values().forEach(Tensor::close);
      optimizerState.values().forEach(Tensor::close);
    }
  }

  /** Brings an optimiser's tensor to the host of the rank that writes, from all who share it. */
  private void collect(boolean writes, String name, Tensor state, Map<String, Tensor> to) {
    if (exchange == null || !optimizer.isShared()) {
      if (writes) {
        to.put(name, onHost(stream, state));
      }
      return;
    }
    if (writes) {
      to.put(name, wholeState());
    }
    exchange.collect(state, to.get(name));
  }

  /** Room on the host for an optimiser's tensor of all parameters. */
  private Tensor wholeState() {
    Tensor arena = parameters.arena();
    return Tensor.allocate(arena.shape(), arena.type(), arena.layout());
  }

  /** Takes over what an earlier run's checkpoint and this network share. */
  private void takeParameters(Path file) throws IOException {
    List<ParameterSpec> specs = network.parameters();
    List<String> missing = new ArrayList<>();
    try (Checkpoint checkpoint = Checkpoint.open(file);
        Stream stream = backend.newStream()) {
      for (int p = 0; p < specs.size(); p++) {
        Tensor view = parameters.view(p);
        try (Tensor host = Tensor.allocate(view.shape(), view.type(), view.layout())) {
          if (checkpoint.read(specs.get(p).name(), host)) {
            backend.copy(stream, host, view);
            stream.synchronize();
          } else {
            missing.add(specs.get(p).name());
          }
        }
      }
    }
    if (missing.size() == specs.size()) {
      throw new CheckpointException(
          file + " has no parameter of the names and shapes of " + network + "'s");
    }
    newParameters = List.copyOf(missing);
  }

  private void restore(Checkpoint checkpoint) throws IOException {
    if (exchange == null || !optimizer.isShared()) {
      restoreParameters(checkpoint, backend, parameters, optimizer.state());
      return;
    }
    Map<String, Tensor> whole = new LinkedHashMap<>();
    try {
      optimizer.state().keySet().forEach(name -> whole.put(name, wholeState()));
      restoreParameters(checkpoint, backend, parameters, whole);
      for (Map.Entry<String, Tensor> entry : optimizer.state().entrySet()) {
        exchange.distribute(whole.get(entry.getKey()), entry.getValue());
      }
    } finally {
      whole.values().forEach(Tensor::close);
    }
  }

  /**
   * Copies a checkpoint's parameters to a device.
   *
   * @throws CheckpointException if it is of another network, or a value is not finite
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
        Tensor values = host.get(specs.get(p).name());
        requireFinite(specs.get(p).name(), values);
        backend.copy(stream, values, parameters.view(p));
      }
      stream.synchronize();
    } finally {
      host.values().forEach(Tensor::close);
      optimizerHost.values().forEach(Tensor::close);
    }
  }

  private static void requireFinite(String parameter, Tensor values) {
    for (float value : values.toFloatArray()) {
      if (!Float.isFinite(value)) {
        throw new CheckpointException(
            "the checkpoint's "
                + PrintableText.of(parameter)
                + " holds a value that is not finite; the model is spoilt");
      }
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
