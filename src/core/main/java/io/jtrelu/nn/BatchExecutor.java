package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * Runs a network over batches, as micro-batches spread over the backend's lanes.
 *
 * <p>Without batch statistics the samples of a batch are independent from input to loss and back,
 * so a lane takes a micro-batch through the whole network with no barrier between layers, its
 * activations in cache. A batch is cut into a fixed number of parts; each part sums the gradients
 * of its micro-batches in order, and the parts are added in order: results do not depend on the
 * number of lanes. What follows a batch is shared likewise: the sum of the parts and the norm of
 * the gradient by slices of fixed size, the update and the packing by parameter.
 *
 * <p>Owns its threads, streams and programs. Used by one thread at a time.
 */
public final class BatchExecutor implements AutoCloseable {
  /** Parts of a batch, each with gradients of its own: as many lanes can work. */
  private static final int MAX_PARTS = 8;

  /**
   * Activations of a layer that a micro-batch should fill at most: with those before and after and
   * the weights they then stay in a second-level cache.
   */
  private static final long LAYER_BYTES = 192 * 1024;

  /**
   * Activations that a micro-batch may fill for each byte of a layer's weights: weights are read
   * once a micro-batch (and more of them than here, as Winograd's methods transform them), which
   * should not dominate.
   */
  private static final int BYTES_PER_WEIGHT_BYTE = 4;

  /**
   * A micro-batch leaves at least this many, for lanes to share; where only the weights ask for a
   * larger one, as many as there are parts.
   */
  private static final int LEAST_MICRO_BATCHES = 4;

  /**
   * Sums over one batch.
   *
   * @param loss sum of the samples' losses
   * @param correct number of samples whose largest logit is their label's
   */
  public record Result(double loss, int correct) {}

  private final Backend backend;
  private final Program program;
  private final int batch;
  private final int parts;
  private final int microBatches;
  private final int lanes;
  private final List<Lane> laneList = new ArrayList<>();
  private final List<Parameters> partGradients = new ArrayList<>();
  private final @Nullable GradientSlices slices; // null without a backward pass

  /** One stream and workspace, used by one thread at a time. */
  private final class Lane implements AutoCloseable {
    final ExecutorService thread;
    final Stream stream = backend.newStream();
    final Program.Workspace workspace = program.newWorkspace(stream);
    final @Nullable Tensor images; // staging, where the caller's cannot be used directly
    final @Nullable Tensor labels;
    final Tensor losses;
    final Tensor correct;
    final Tensor norm; // of a slice of the gradient, and its clipping factor

    Lane(ExecutorService thread) {
      this.thread = thread;
      Shape one = Shape.of(program.batch());
      boolean direct =
          backend.device().equals(Device.CPU) && program.options().type() == DataType.F32;
      Layer.Extent in = program.network().input();
      images =
          direct
              ? null
              : backend.allocate(
                  Shape.of(program.batch(), in.height(), in.width(), in.channels()),
                  program.options().type(),
                  Layout.NHWC);
      labels = direct ? null : backend.allocate(one, DataType.I32, Layout.ROW_MAJOR);
      losses = Tensor.allocate(one, DataType.F32, Layout.ROW_MAJOR);
      correct = Tensor.allocate(one, DataType.I32, Layout.ROW_MAJOR);
      norm = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
    }

    Tensor stage(Tensor source, @Nullable Tensor staging) {
      if (staging == null) {
        return source;
      }
      backend.copy(stream, source, staging);
      return staging;
    }

    @Override
    public void close() {
      thread.shutdown();
      workspace.close();
      stream.close();
      for (Tensor tensor : new Tensor[] {images, labels, losses, correct, norm}) {
        if (tensor != null) {
          tensor.close();
        }
      }
    }
  }

  /**
   * Compiles a network for batches of a size.
   *
   * @param batch images per call
   * @param microBatch images that pass through the network together; must divide batch. See {@link
   *     #microBatch}
   * @throws IllegalStateException if the network is no {@linkplain Network#isClassifier classifier}
   */
  public BatchExecutor(
      Network network, Backend backend, int batch, int microBatch, Program.Options options) {
    if (!network.isClassifier()) {
      throw network.noClassifier("the loss that a batch executor computes");
    }
    if (batch < 1 || microBatch < 1 || batch % microBatch != 0) {
      throw new IllegalArgumentException(
          "a batch of " + batch + " does not divide into micro-batches of " + microBatch);
    }
    this.backend = backend;
    this.batch = batch;
    this.microBatches = batch / microBatch;
    this.parts = Math.min(MAX_PARTS, microBatches);
    this.lanes = Math.min(backend.lanes(), parts);
    this.program = new Program(network, backend, microBatch, options);
    try {
      for (int lane = 0; lane < lanes; lane++) {
        ExecutorService thread =
            Executors.newSingleThreadExecutor(
                Thread.ofPlatform().daemon().name("jtrelu-lane-" + lane).factory());
        laneList.add(thread.submit(() -> new Lane(thread)).get());
      }
      if (options.training()) {
        for (int part = 1; part < parts; part++) {
          partGradients.add(Parameters.allocate(network, backend));
        }
        slices = new GradientSlices(network.parameters().getLast().end());
      } else {
        slices = null;
      }
    } catch (ExecutionException failure) {
      close();
      throw unchecked(failure);
    } catch (InterruptedException interrupted) {
      close();
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while compiling a network", interrupted);
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  /**
   * The micro-batch for a batch: the whole batch where the backend takes it so; else the largest
   * divisor for which a layer's activations stay in cache (on average) and four micro-batches
   * remain, or are few against its weights and eight remain. It depends on network, type and batch
   * alone, so that results do not depend on the machine's cores.
   */
  public static int microBatch(Network network, Backend backend, DataType type, int batch) {
    if (backend.takesWholeBatches()) {
      return batch;
    }
    List<Layer> layers =
        network.layers().stream().filter(layer -> !layer.parameters().isEmpty()).toList();
    double bytes =
        layers.stream().mapToLong(layer -> layer.extent().elements()).average().orElse(1)
            * type.bytes();
    double weights =
        network.parameters().stream()
                .filter(spec -> spec.kind() == ParameterSpec.Kind.WEIGHTS)
                .mapToLong(spec -> spec.shape().elements())
                .average()
                .orElse(0)
            * type.bytes();
    int best = 1;
    for (int size = 2; batch / size >= LEAST_MICRO_BATCHES; size++) {
      boolean cached = size * bytes <= LAYER_BYTES;
      boolean amortizes =
          size * bytes <= BYTES_PER_WEIGHT_BYTE * weights && batch / size >= MAX_PARTS;
      if (batch % size == 0 && (cached || amortizes)) {
        best = size;
      }
    }
    return best;
  }

  /** The program that lanes run. */
  public Program program() {
    return program;
  }

  /** Bytes of activations held for the backward pass, over all lanes. */
  public long activationBytes() {
    return program.activationBytes() * lanes;
  }

  /** Packs the parameters' present values; call it again whenever they change. */
  public void load(Parameters parameters) {
    update(parameters, (stream, parameter) -> {});
  }

  /** Changes parameters in place. */
  public interface Update {
    /**
     * Changes one parameter.
     *
     * @param stream to work on; other parameters may be changed on other streams meanwhile
     * @param parameter its index in {@link Network#parameters}
     */
    void run(Stream stream, int parameter);
  }

  /**
   * Updates each parameter and packs its new value.
   *
   * @param update called once for each parameter, by several threads at once
   */
  public void update(Parameters parameters, Update update) {
    share(
        parameters.network().parameters().size(),
        (lane, parameter) -> {
          update.run(lane.stream, parameter);
          program.pack(lane.stream, parameters, parameter);
        });
  }

  /**
   * Loss and gradients of a batch.
   *
   * @param images host NHWC [batch, h, w, c], F32
   * @param labels host I32 [batch]; -1 marks padding
   * @param gradients receives the mean gradient over the batch
   * @param mode whether gradients replace or add to what is there
   * @param gradientScale factor of the gradients, usually 1 / (number of samples in the step)
   * @param sequence a number that sets the dropout masks: give each step its own
   */
  public Result forwardBackward(
      Tensor images,
      Tensor labels,
      Parameters gradients,
      Write mode,
      float gradientScale,
      long sequence) {
    Result result =
        run(
            images,
            labels,
            (lane, part, micro) -> {
              lane.workspace.loss(lane.stage(micro(labels, micro), lane.labels), gradientScale);
              Parameters destination = part == 0 ? gradients : partGradients.get(part - 1);
              boolean first = micro < parts;
              lane.workspace.backward(
                  destination, !first ? Write.ACCUMULATE : part == 0 ? mode : Write.OVERWRITE);
            },
            sequence * microBatches);
    GradientSlices all = trainingSlices();
    share(all.count, (lane, slice) -> all.sum(lane, gradients.arena(), slice));
    return result;
  }

  /**
   * Norm of the gradients that {@link #forwardBackward} left last, from the norms of their slices,
   * and the factor that clips it: see {@link GradientNorm}.
   *
   * @param maxNorm largest norm left alone; infinity clips nothing
   * @param result F32 [2] on the device
   */
  public void gradientNorm(Stream stream, float maxNorm, Tensor result) {
    GradientSlices all = trainingSlices();
    all.norm.run(stream, all.norms, maxNorm, result);
  }

  private GradientSlices trainingSlices() {
    if (slices == null) {
      throw new IllegalStateException("this executor was compiled without a backward pass");
    }
    return slices;
  }

  /**
   * Gradients in slices that stay in cache: a lane adds the parts' slices to that of the first part
   * and takes the norm of the sum. A device that takes whole batches takes one slice.
   */
  private final class GradientSlices implements AutoCloseable {
    private static final int ELEMENTS = 1 << 14; // of a slice

    final int count;
    final Tensor norms;

    /** Of the slices' norms. */
    final GradientNorm norm;

    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private final List<Slice> list = new ArrayList<>();

    /** Operations for slices of one size. */
    private record Operations(GradientSum sum, GradientNorm norm) {}

    private record Slice(long at, int elements, Operations operations, List<Tensor> parts) {}

    GradientSlices(long elements) {
      long most = backend.takesWholeBatches() ? elements : Math.min(ELEMENTS, elements);
      try {
        Operations whole = operations(most);
        for (long at = 0; at < elements; at += most) {
          int size = (int) Math.min(most, elements - at);
          List<Tensor> parts = new ArrayList<>();
          for (Parameters part : partGradients) {
            parts.add(part.arena().slice(at, Shape.of(size), Layout.ROW_MAJOR));
          }
          list.add(new Slice(at, size, size == most ? whole : operations(size), parts));
        }
        count = list.size();
        norms = own(backend.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR));
        norm = own(backend.gradientNorm(count));
      } catch (RuntimeException | Error failure) {
        close();
        throw failure;
      }
    }

    private Operations operations(long elements) {
      return new Operations(
          own(backend.gradientSum(elements)), own(backend.gradientNorm(elements)));
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    void sum(Lane lane, Tensor gradients, int index) {
      Slice slice = list.get(index);
      Tensor gradient = gradients.slice(slice.at, Shape.of(slice.elements), Layout.ROW_MAJOR);
      slice.operations.sum.run(lane.stream, gradient, slice.parts);
      slice.operations.norm.run(lane.stream, gradient, Float.POSITIVE_INFINITY, lane.norm);
      backend.copy(lane.stream, scalar(lane.norm, 0), scalar(norms, index));
    }

    private static Tensor scalar(Tensor of, int index) {
      return of.slice(index, Shape.of(1), Layout.ROW_MAJOR);
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException("closing operations on gradients failed", failure);
        }
      }
    }
  }

  /**
   * Loss and hits of a batch, without gradients.
   *
   * @param images host NHWC [batch, h, w, c], F32
   * @param labels host I32 [batch]; -1 marks padding
   */
  public Result evaluate(Tensor images, Tensor labels) {
    return run(
        images,
        labels,
        (lane, part, micro) ->
            lane.workspace.loss(lane.stage(micro(labels, micro), lane.labels), 0),
        0);
  }

  /**
   * The first layer whose values hold a NaN or infinity when the images pass through, for a message
   * to people; slow.
   *
   * @return the layer's name, or null where all values are finite
   */
  public @Nullable String firstNonFiniteLayer(Tensor images) {
    String[] found = new String[1];
    share(
        1,
        (lane, all) -> {
          for (int i = 0; found[0] == null && i < microBatches; i++) {
            lane.workspace.forward(lane.stage(micro(images, i), lane.images), 0);
            found[0] =
                lane.workspace.firstNonFinite(
                    value -> {
                      try (Tensor host =
                          Tensor.allocate(value.shape(), value.type(), value.layout())) {
                        backend.copy(lane.stream, value, host);
                        lane.stream.synchronize();
                        return host.toFloatArray();
                      }
                    });
          }
        });
    return found[0];
  }

  private interface AfterForward {
    void run(Lane lane, int part, int micro);
  }

  private Result run(Tensor images, Tensor labels, AfterForward after, long sequence) {
    Layer.Extent in = program.network().input();
    Shape expected = Shape.of(batch, in.height(), in.width(), in.channels());
    if (!images.shape().equals(expected) || labels.shape().elements() != batch) {
      throw new OperandException(
          "a batch needs images "
              + expected
              + " and "
              + batch
              + " labels, got "
              + images
              + " and "
              + labels);
    }
    double[] losses = new double[microBatches];
    int[] correct = new int[microBatches];
    share(
        parts,
        (lane, part) -> {
          for (int micro = part; micro < microBatches; micro += parts) {
            Tensor source = lane.stage(micro(images, micro), lane.images);
            lane.workspace.forward(source, sequence + micro);
            after.run(lane, part, micro);
            backend.copy(lane.stream, lane.workspace.losses(), lane.losses);
            backend.copy(lane.stream, lane.workspace.correct(), lane.correct);
            lane.stream.synchronize();
            for (int i = 0; i < program.batch(); i++) {
              losses[micro] += lane.losses.get(i);
              correct[micro] += (int) lane.correct.get(i);
            }
          }
        });
    double loss = 0;
    int hits = 0;
    for (int micro = 0; micro < microBatches; micro++) {
      loss += losses[micro];
      hits += correct[micro];
    }
    return new Result(loss, hits);
  }

  /** The part of a batch tensor that a micro-batch covers. */
  private Tensor micro(Tensor tensor, int micro) {
    int[] dims = tensor.shape().dims();
    dims[0] = program.batch();
    Shape shape = Shape.of(dims);
    return tensor.slice(micro * shape.elements(), shape, tensor.layout());
  }

  private interface LaneTask {
    void run(Lane lane, int index);
  }

  /**
   * Runs a task for each index below a count, on all lanes at once, and waits until all is done.
   * Which lane takes which index is chance.
   */
  private void share(int count, LaneTask task) {
    AtomicInteger next = new AtomicInteger();
    List<Future<?>> running = new ArrayList<>();
    for (Lane lane : laneList) {
      running.add(
          lane.thread.submit(
              () -> {
                for (int i = next.getAndIncrement(); i < count; i = next.getAndIncrement()) {
                  task.run(lane, i);
                }
                lane.stream.synchronize();
              }));
    }
    ExecutionException failure = null;
    boolean interrupted = false;
    for (Future<?> future : running) {
      while (true) {
        try {
          future.get();
          break;
        } catch (ExecutionException failed) {
          if (failure == null) {
            failure = failed;
          } else {
            failure.getCause().addSuppressed(failed.getCause());
          }
          break;
        } catch (InterruptedException again) {
          interrupted = true; // finish the batch first: memory is in use
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    if (failure != null) {
      throw unchecked(failure);
    }
  }

  private static RuntimeException unchecked(ExecutionException failure) {
    Throwable cause = failure.getCause();
    if (cause instanceof Error error) {
      throw error;
    }
    return cause instanceof RuntimeException runtime
        ? runtime
        : new IllegalStateException("a lane failed", cause);
  }

  @Override
  public void close() {
    laneList.forEach(Lane::close);
    partGradients.forEach(Parameters::close);
    if (slices != null) {
      slices.close();
    }
    program.close();
  }
}
