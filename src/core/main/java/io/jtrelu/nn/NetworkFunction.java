package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.tensor.Turn;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * A network as a differentiable function of its input and its parameters, for a training loop that
 * is somebody else's: the loss, the optimiser and the memory are the caller's.
 *
 * <pre>{@code
 * function.load(parameters);                                   // whenever they changed
 * function.forward(input, outputs);                            // outputs = f(input; parameters)
 * function.backward(outputGradients, gradients, mode, null);   // gradients of the last forward
 * }</pre>
 *
 * <p>A batch passes as micro-batches, spread over the backend's lanes; each keeps its activations
 * from {@code forward} to {@code backward} in a workspace of its own (without training one per lane
 * is enough). It may have any size up to the one compiled for: it counts as filled up with zero
 * images whose output gradients are zero, and micro-batches of nothing else are left out. Results
 * do not depend on the number of lanes: a batch is cut into a fixed number of parts, whose
 * gradients are added in order. On the CPU, without training, a single micro-batch passes on the
 * calling thread, which {@linkplain Backend#newSharedStream others help}.
 *
 * <p>Tensors of the caller lie in host memory or on the backend's device, in any floating type;
 * they are free again when a call returns, and nothing is allocated in a call.
 *
 * <p>Owns its threads, streams and programs; close it before the backend. Used by one thread at a
 * time: during a call others, and close, are refused with {@link IllegalStateException}, as is use
 * after close. The tensors of a call are used by the lanes' threads, so they cannot be wrapped
 * memory of a confined arena.
 */
public final class NetworkFunction implements AutoCloseable {
  /**
   * What a function is compiled for.
   *
   * @param batch largest number of images per call
   * @param microBatch images that pass through the network together; 0 for {@link
   *     BatchExecutor#microBatch}
   * @param type storage type of activations and their gradients
   * @param training whether there is a backward pass; without one, dropout is the identity
   * @param inputGradient whether the backward pass can give the gradient of the input
   * @param seed key of the dropout masks
   */
  public record Options(
      int batch,
      int microBatch,
      DataType type,
      boolean training,
      boolean inputGradient,
      long seed) {
    /**
     * @throws IllegalArgumentException if a number is out of range, or a gradient of the input is
     *     asked for without training
     */
    public Options {
      if (batch < 1 || microBatch < 0 || microBatch > batch) {
        throw new IllegalArgumentException(
            "a function needs a batch of 1 or more and a micro-batch of at most that, or 0 to have"
                + " it chosen; got "
                + batch
                + " and "
                + microBatch);
      }
      if (inputGradient && !training) {
        throw new IllegalArgumentException(
            "a gradient of the input needs a backward pass: compile for training");
      }
    }
  }

  /** Threads that share a micro-batch at most: rows of small images are not many more. */
  private static final int MOST_TOGETHER = 16;

  private final Network network;
  private final Backend backend;
  private final Options options;
  private final Program program;
  private final int parts;
  private final Lanes<Lane> lanes;

  /** The calling thread and its helpers, for a single micro-batch; null with training or a GPU. */
  private final @Nullable Lane together;

  private final List<Parameters> partGradients = new ArrayList<>();

  /** Null where no layer waits for the whole batch. */
  private final @Nullable LateGradients late;

  /** By number of elements; none where there is one part. */
  private final TreeMap<Long, GradientSum> sums = new TreeMap<>();

  /** With training one per micro-batch, each with the input that its backward pass reads. */
  private final List<Slot> slots = new ArrayList<>();

  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  /** Images of the last forward pass; 0 where no backward pass can follow. */
  private int pending;

  private long passes;

  private final Turn turn = new Turn("network function");

  /** A workspace and its input. */
  private record Slot(Program.Workspace workspace, Tensor input) {}

  /** A stream, and without training a slot, unless each pass is a single micro-batch. */
  private record Lane(Stream stream, @Nullable Slot slot) implements AutoCloseable {
    @Override
    public void close() {}
  }

  /**
   * Compiles a network. Nothing is computed before {@link #load}.
   *
   * @throws io.jtrelu.backend.UnsupportedException if the backend cannot run a layer
   * @throws io.jtrelu.backend.OutOfMemoryException if there is no room for the activations of a
   *     whole batch
   */
  public NetworkFunction(Network network, Backend backend, Options options) {
    this.network = network;
    this.backend = backend;
    this.options = options;
    if (options.training() && network.looksAtBatches()) {
      throw new UnsupportedException(
          "network "
              + network
              + " normalises over batches, which a function of micro-batches cannot train; use"
              + " io.jtrelu.train.Trainer or BatchExecutor, or this without training");
    }
    int micro =
        options.microBatch() > 0
            ? options.microBatch()
            : BatchExecutor.microBatch(network, backend, options.type(), options.batch());
    int microBatches = Math.ceilDiv(options.batch(), micro);
    this.parts = Math.min(Lanes.MAX_PARTS, microBatches);
    LateGradients.Batch whole =
        options.training() ? new LateGradients.Batch(micro * microBatches, parts) : null;
    try {
      this.program =
          own(
              new Program(
                  network,
                  backend,
                  micro,
                  1,
                  whole,
                  new Program.Options(
                      options.type(),
                      0,
                      options.training(),
                      options.seed(),
                      options.inputGradient())));
      LateGradients kept = program.newLate();
      this.late = kept == null ? null : own(kept);
      if (options.training()) {
        Stream first = own(backend.newStream()); // until a lane takes the workspace over
        for (int i = 0; i < microBatches; i++) {
          slots.add(newSlot(first));
          if (kept != null) {
            slots.getLast().workspace.keep(kept, i);
          }
        }
        for (int part = 1; part < parts; part++) {
          partGradients.add(own(Parameters.allocate(network, backend, program::isPartial)));
        }
        for (int p = 0; parts > 1 && p < network.parameters().size(); p++) {
          long elements = network.parameters().get(p).shape().elements();
          if (program.isPartial(p) && !sums.containsKey(elements)) {
            sums.put(elements, own(backend.gradientSum(elements)));
          }
        }
      }
      int laneCount = Math.min(backend.lanes(), parts);
      List<Slot> laneSlots = new ArrayList<>();
      boolean shares = !options.training() && !backend.takesWholeBatches();
      if (!options.training() && !(shares && microBatches == 1)) {
        Stream first = own(backend.newStream());
        for (int lane = 0; lane < laneCount; lane++) {
          laneSlots.add(newSlot(first));
        }
      }
      Deque<Slot> free = new ArrayDeque<>(laneSlots);
      this.lanes = own(new Lanes<>(backend, laneCount, stream -> new Lane(stream, free.poll())));
      if (shares) {
        Stream shared = own(backend.newSharedStream(Math.min(backend.lanes(), MOST_TOGETHER)));
        together = new Lane(shared, newSlot(shared));
      } else {
        together = null;
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  private Slot newSlot(Stream stream) {
    Shape shape = network.input().batch(program.batch());
    return new Slot(
        own(program.newWorkspace(stream)),
        own(backend.allocate(shape, options.type(), Layout.NHWC)));
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** What it was compiled for. */
  public Options options() {
    return options;
  }

  /**
   * Takes the parameters' present values. Call it again whenever they change; a backward pass must
   * not follow a forward pass with other values, so it needs a new one after this.
   *
   * @param parameters of this network, on the backend's device; they must stay alive and unchanged
   *     while the function is used, as it may read them where they are
   * @throws OperandException if these are the parameters of another network
   */
  public void load(Parameters parameters) {
    turn.take();
    try {
      parameters.requireFits(network);
      pending = 0;
      lanes.share(
          network.parameters().size(),
          (lane, parameter) -> program.pack(lane.stream, parameters, parameter));
    } finally {
      turn.give();
    }
  }

  /**
   * Computes the outputs. Each call has dropout masks of its own, numbered from 0.
   *
   * @param input NHWC [n, h, w, c], 1 to batch images
   * @param outputs receive them, NHWC [n, ...], in the order of {@link Network#outputs}
   * @throws OperandException if a tensor does not fit
   * @throws IllegalStateException if nothing was loaded
   */
  public void forward(Tensor input, List<Tensor> outputs) {
    turn.take();
    try {
      forward(input, outputs, passes++);
    } finally {
      turn.give();
    }
  }

  /**
   * As {@link #forward(Tensor, List)}, with a number of the caller for the dropout masks.
   *
   * @param sequence give each pass its own
   */
  public void forward(Tensor input, List<Tensor> outputs, long sequence) {
    turn.take();
    try {
      int rows = input.shape().rank() == 4 ? input.shape().dim(0) : 0;
      if (rows < 1 || rows > options.batch()) {
        throw new OperandException(
            "the input must have 1 to "
                + options.batch()
                + " images of "
                + network.input()
                + ", got "
                + input);
      }
      requireImages("input", input, rows, network.input());
      requireOutputs("output", outputs, rows);
      pending = 0;
      int used = Math.ceilDiv(rows, program.batch());
      long firstNumber = sequence * Math.ceilDiv(options.batch(), program.batch());
      if (together != null && used == 1) {
        forward(together, input, outputs, 0, firstNumber);
        together.stream.synchronize();
      } else {
        lanes.share(
            Math.min(parts, used),
            (lane, part) -> {
              for (int micro = part; micro < used; micro += parts) {
                forward(lane, input, outputs, micro, firstNumber + micro);
              }
            });
      }
      pending = options.training() ? rows : 0;
    } finally {
      turn.give();
    }
  }

  private void forward(Lane lane, Tensor input, List<Tensor> outputs, int micro, long number) {
    Slot slot = slot(lane, micro);
    slot.workspace.forward(input(lane, slot, input, micro), number);
    for (int k = 0; k < outputs.size(); k++) {
      Tensor destination = rows(outputs.get(k), micro);
      backend.copy(lane.stream, head(slot.workspace.output(k), destination), destination);
    }
  }

  /**
   * Computes the gradients of sum over k of &lt;outputs[k], outputGradients[k]&gt; for the outputs
   * and parameters of the last forward pass, once for each.
   *
   * @param outputGradients NHWC [n, ...] for the n images of that pass, in the order of {@link
   *     Network#outputs}
   * @param gradients receives those of the parameters, summed over the batch
   * @param mode whether they replace or add to what is there
   * @param inputGradient receives that of the input, NHWC [n, h, w, c]; null where it is not wanted
   * @throws OperandException if a tensor does not fit
   * @throws IllegalStateException if no forward pass for it came before, or the function was not
   *     compiled for it
   */
  public void backward(
      List<Tensor> outputGradients,
      Parameters gradients,
      Write mode,
      @Nullable Tensor inputGradient) {
    turn.take();
    try {
      if (!options.training()) {
        throw new IllegalStateException("this function was compiled without a backward pass");
      }
      if (inputGradient != null && !options.inputGradient()) {
        throw new IllegalStateException(
            "this function was compiled without a gradient of the input; ask for it in its options");
      }
      if (pending == 0) {
        throw new IllegalStateException(
            "a backward pass uses up the activations of a forward pass: call forward before each,"
                + " after load");
      }
      gradients.requireFits(network);
      requireOutputs("output gradient", outputGradients, pending);
      if (inputGradient != null) {
        requireImages("input gradient", inputGradient, pending, network.input());
      }
      int used = Math.ceilDiv(pending, program.batch());
      int usedParts = Math.min(parts, used);
      pending = 0;
      lanes.share(
          usedParts,
          (lane, part) -> {
            Parameters destination = part == 0 ? gradients : partGradients.get(part - 1);
            for (int micro = part; micro < used; micro += parts) {
              Slot slot = slot(lane, micro);
              for (int k = 0; k < outputGradients.size(); k++) {
                place(lane, rows(outputGradients.get(k), micro), slot.workspace.outputGradient(k));
              }
              Write first = part == 0 ? mode : Write.OVERWRITE;
              slot.workspace.backward(destination, micro < parts ? first : Write.ACCUMULATE);
              if (inputGradient != null) {
                Tensor there = rows(inputGradient, micro);
                backend.copy(lane.stream, head(slot.workspace.inputGradient(), there), there);
              }
            }
          });
      if (late != null) {
        late.compute(lanes, lane -> lane.stream, used, gradients, mode);
      }
      if (usedParts > 1) {
        lanes.share(
            network.parameters().size(),
            (lane, p) -> {
              if (!program.isPartial(p)) {
                return;
              }
              List<Tensor> others = new ArrayList<>();
              for (int part = 1; part < usedParts; part++) {
                others.add(partGradients.get(part - 1).view(p));
              }
              Tensor sum = gradients.view(p);
              sums.get(sum.shape().elements()).run(lane.stream, sum, others);
            });
      }
    } finally {
      turn.give();
    }
  }

  private Slot slot(Lane lane, int micro) {
    Slot slot = lane.slot == null ? slots.get(micro) : lane.slot;
    slot.workspace.moveTo(lane.stream);
    return slot;
  }

  /** The input of a micro-batch: the caller's where it can be, for it is needed only now. */
  private Tensor input(Lane lane, Slot slot, Tensor batch, int micro) {
    Tensor source = rows(batch, micro);
    boolean direct =
        !options.training()
            && source.shape().dim(0) == program.batch()
            && source.type() == options.type()
            && source.device().equals(backend.device());
    if (direct) {
      return source;
    }
    place(lane, source, slot.input);
    return slot.input;
  }

  /** Copies rows, and zeros behind them. */
  private void place(Lane lane, Tensor rows, Tensor destination) {
    if (rows.shape().dim(0) < program.batch()) {
      backend.fill(lane.stream, destination, 0);
    }
    backend.copy(lane.stream, rows, head(destination, rows));
  }

  /** The part of a batch that a micro-batch covers. */
  private Tensor rows(Tensor batch, int micro) {
    int[] dims = batch.shape().dims();
    int first = micro * program.batch();
    long row = batch.shape().elements() / dims[0];
    dims[0] = Math.min(program.batch(), dims[0] - first);
    return batch.slice(first * row, Shape.of(dims), Layout.NHWC);
  }

  /** The first rows of a micro-batch, as many as another tensor has. */
  private static Tensor head(Tensor whole, Tensor like) {
    return whole.slice(0, like.shape(), Layout.NHWC);
  }

  private void requireOutputs(String what, List<Tensor> tensors, int rows) {
    List<Integer> outputs = network.outputs();
    if (tensors.size() != outputs.size()) {
      throw new OperandException(
          network + " has " + outputs.size() + " outputs, got " + tensors.size() + " tensors");
    }
    for (int k = 0; k < outputs.size(); k++) {
      Layer layer = network.layers().get(outputs.get(k));
      requireImages(
          what + " " + k + " (" + layer.name() + ")", tensors.get(k), rows, layer.extent());
    }
  }

  private void requireImages(String what, Tensor tensor, int rows, Extent extent) {
    boolean floating =
        tensor.type() == DataType.F32
            || tensor.type() == DataType.BF16
            || tensor.type() == DataType.F16;
    boolean reachable =
        tensor.device().equals(Device.CPU) || tensor.device().equals(backend.device());
    if (!floating
        || !reachable
        || tensor.layout() != Layout.NHWC
        || !tensor.shape().equals(extent.batch(rows))) {
      throw new OperandException(
          "the "
              + what
              + " of "
              + network
              + " must be "
              + extent.batch(rows)
              + " NHWC of a floating type in host memory or on "
              + backend.device()
              + ", got "
              + tensor);
    }
  }

  @Override
  public void close() {
    turn.close();
    while (!owned.isEmpty()) {
      try {
        owned.peek().close(); // what is refused is closed by the next call
        owned.pop();
      } catch (IllegalStateException refused) {
        throw refused;
      } catch (Exception failure) {
        throw new IllegalStateException("closing a network function failed", failure);
      }
    }
  }
}
