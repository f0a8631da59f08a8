package io.jtrelu.spark;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Datasets;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.distributed.DistributedException;
import io.jtrelu.distributed.SocketCommunicator;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.spark.SharedRows.Sample;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.NonFiniteException;
import io.jtrelu.train.Run;
import io.jtrelu.train.StepMetric;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingListener;
import io.jtrelu.train.TrainingState;
import java.io.IOException;
import java.io.Serializable;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.spark.BarrierTaskContext;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Tuple2;
import scala.jdk.javaapi.CollectionConverters;
import scala.runtime.AbstractFunction1;

/**
 * What each task of the training stage does: one rank of a run.
 *
 * <p>A rank that fails of itself does not throw, but returns why: Spark would try the stage again,
 * which would fail again, and tell the driver of whichever task it heard first. Where a process was
 * lost the task throws: Spark may have another executor, and begins the stage again, from the last
 * checkpoint if there is one.
 */
final class TrainingTask
    extends AbstractFunction1<
        scala.collection.Iterator<Tuple2<Long, Sample>>,
        scala.collection.Iterator<TrainingTask.Outcome>>
    implements Serializable {
  private static final Logger LOG = LoggerFactory.getLogger(TrainingTask.class);
  private static final long TELL_NANOS = 10_000_000_000L;

  private final Settings settings;

  TrainingTask(Settings settings) {
    this.settings = settings;
  }

  /**
   * What became of a rank.
   *
   * @param model checkpoint without the optimiser's state, from the first one
   * @param failure why it failed; null if it did not
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record Outcome(int rank, byte @Nullable [] model, @Nullable String failure)
      implements Serializable {}

  @Override
  public scala.collection.Iterator<Outcome> apply(
      scala.collection.Iterator<Tuple2<Long, Sample>> rows) {
    BarrierTaskContext context = BarrierTaskContext.get();
    Outcome outcome = train(context, CollectionConverters.asJava(rows));
    return CollectionConverters.asScala(List.of(outcome).iterator());
  }

  private Outcome train(BarrierTaskContext context, Iterator<Tuple2<Long, Sample>> rows) {
    int rank = context.partitionId();
    String address = context.getTaskInfos()[rank].address();
    SocketCommunicator ranks =
        SocketCommunicator.open(
            rank,
            address.replaceFirst(":[0-9]+$", ""),
            mine -> List.of(context.allGather(mine)),
            Duration.ofNanos((long) (settings.deadlineSeconds() * 1e9)));
    try {
      byte[] model = train(ranks, context, rows);
      ranks.close();
      return new Outcome(rank, model, null);
    } catch (Throwable failure) {
      LOG.error("rank {} of {} ends", rank, ranks.size(), failure);
      String why = failure.getMessage() == null ? failure.toString() : failure.getMessage();
      ranks.abort(why);
      if (ranks.isLost() || !(failure instanceof Exception)) {
        throw unchecked(failure);
      }
      String prefix = "rank " + rank + " of " + ranks.size() + " failed: ";
      return new Outcome(rank, null, failure instanceof DistributedException ? why : prefix + why);
    }
  }

  private static RuntimeException unchecked(Throwable failure) {
    if (failure instanceof Error error) {
      throw error;
    }
    return failure instanceof RuntimeException runtime
        ? runtime
        : new IllegalStateException(failure);
  }

  private byte @Nullable [] train(
      Communicator ranks, BarrierTaskContext context, Iterator<Tuple2<Long, Sample>> rows)
      throws IOException {
    String device = settings.device();
    Path folder = Files.createTempDirectory("jtrelu-spark");
    try (Backend backend = Backends.open(device.equals("cpu") ? "cpu:" + context.cpus() : device);
        Stream stream = backend.newStream();
        Arena images = Arena.ofShared()) {
      Path files = Files.createDirectory(folder.resolve("images"));
      Datasets data = SharedRows.gather(ranks, stream, rows, settings, files, images);
      try (Trainer trainer = open(ranks, folder, data, backend)) {
        train(trainer, data, ranks, context, folder);
        return ranks.rank() == 0 ? parameters(trainer, backend, stream, folder) : null;
      }
    } catch (NonFiniteException failure) {
      // Nobody can go to a task's own folder.
      String good = "; the last checkpoint in " + folder + " is good";
      throw new IllegalStateException(
          String.valueOf(failure.getMessage()).replace(good, ""), failure);
    } finally {
      delete(folder);
    }
  }

  /** Begins the run, or goes on with it where the first rank finds that it was begun. */
  private Trainer open(Communicator ranks, Path folder, Datasets data, Backend backend)
      throws IOException {
    Run run =
        Run.of(settings.networkOptions(), settings.shaping(), settings.training(), data, "spark");
    CheckpointFolder checkpoints = settings.checkpoints();
    String last = checkpoints == null || ranks.rank() > 0 ? "" : checkpoints.last().orElse("");
    last = ranks.gatherTexts(last).getFirst();
    if (checkpoints == null || last.isEmpty()) {
      return Trainer.start(run, data, backend, folder, null, ranks);
    }
    checkpoints.fetch(last, folder);
    if (!Run.read(folder).toJson().equals(run.toJson())) {
      throw new IllegalArgumentException(
          "checkpointDir "
              + checkpoints.folder()
              + " holds another run, of other images or parameters: choose another folder, or"
              + " remove it");
    }
    return Trainer.resume(folder, data, backend, ranks);
  }

  private void train(
      Trainer trainer, Datasets data, Communicator ranks, BarrierTaskContext context, Path folder)
      throws IOException {
    CheckpointFolder checkpoints = settings.checkpoints();
    boolean first = ranks.rank() == 0;
    try (Progress.Sender progress = first ? new Progress.Sender(settings.progress()) : null) {
      if (progress != null) {
        trainer.add(new Told(progress, trainer, data, ranks.size()));
      }
      while (!trainer.finished()) {
        if (context.isInterrupted()) {
          throw new IllegalStateException("Spark ended the task");
        }
        trainer.advance();
        if (first && checkpoints != null && trainer.steps() % trainer.stepsPerEpoch() == 0) {
          checkpoints.save(folder, trainer.steps());
        }
      }
    }
  }

  /** Tells the driver of steps, now and then, and of epochs. */
  private static final class Told implements TrainingListener {
    private final Progress.Sender to;
    private final int epochs;
    private long last = System.nanoTime();

    Told(Progress.Sender to, Trainer trainer, Datasets data, int ranks) {
      this.to = to;
      this.epochs = trainer.run().training().epochs();
      to.tell(
          String.format(
              Locale.ROOT,
              "%s: %,d parameters, %,d training and %,d validation images of %d classes, by %d"
                  + " tasks, from step %d of %d",
              trainer.network().name(),
              trainer.network().parameterCount(),
              data.train().size(),
              data.test().size(),
              trainer.model().classes().size(),
              ranks,
              trainer.steps(),
              trainer.totalSteps()));
    }

    @Override
    public void step(Trainer trainer, StepMetric step) {
      if (System.nanoTime() - last > TELL_NANOS) {
        last = System.nanoTime();
        to.tell(
            String.format(
                Locale.ROOT,
                "epoch %d/%d, step %d of %d: loss %.3f, %.0f images/s",
                step.epoch(),
                epochs,
                step.step(),
                trainer.totalSteps(),
                step.loss(),
                step.imagesPerSecond()));
      }
    }

    @Override
    public void epoch(Trainer trainer, EpochMetric epoch) {
      to.tell(
          String.format(
              Locale.ROOT,
              "epoch %d/%d: training loss %.4f%s, %.0f images/s",
              epoch.epoch(),
              epochs,
              epoch.trainLoss(),
              Double.isNaN(epoch.testAccuracy())
                  ? ""
                  : String.format(
                      Locale.ROOT,
                      ", validation loss %.4f, accuracy %.2f %%",
                      epoch.testLoss(),
                      100 * epoch.testAccuracy()),
              epoch.imagesPerSecond()));
    }
  }

  private static byte[] parameters(Trainer trainer, Backend backend, Stream stream, Path folder)
      throws IOException {
    TrainingState state;
    try (Checkpoint last = Checkpoint.open(folder.resolve(Trainer.CHECKPOINT))) {
      state = last.state();
    }
    Map<String, Tensor> host = new LinkedHashMap<>();
    try {
      List<ParameterSpec> specs = trainer.network().parameters();
      for (int p = 0; p < specs.size(); p++) {
        Tensor view = trainer.parameters().view(p);
        Tensor copy = Tensor.allocate(view.shape(), view.type(), view.layout());
        host.put(specs.get(p).name(), copy);
        backend.copy(stream, view, copy);
      }
      stream.synchronize();
      Path file = folder.resolve("parameters.safetensors");
      Checkpoint.save(file, state, host, Map.of());
      return Files.readAllBytes(file);
    } finally {
      host.values().forEach(Tensor::close);
    }
  }

  private static void delete(Path folder) throws IOException {
    try (var files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    }
  }
}
