package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.TrainingConfig;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;

/**
 * This library as its trainer uses it: micro-batches over the lanes, clipping by the global norm,
 * SGD with Nesterov momentum, packing of the new weights.
 */
public final class JtreluContender implements Contender {
  private final Workload workload;
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final Backend backend;
  private final Parameters parameters;
  private final Parameters gradients;
  private final BatchExecutor training;
  private final NetworkFunction inference;
  private final Tensor logits;
  private final Optimizer optimizer;
  private final Tensor images;
  private final Tensor labels;
  private long steps;

  /**
   * Compiles the workload for training in a storage type.
   *
   * @param microBatch 0 for the one that the library chooses
   */
  public JtreluContender(Workload workload, DataType type, int microBatch) {
    this.workload = workload;
    backend = own(Backends.open("cpu"));
    int batch = workload.batch();
    parameters = own(Parameters.allocate(workload.network(), backend));
    parameters.arena().set(workload.parameters());
    gradients = own(Parameters.allocate(workload.network(), backend));
    var in = workload.network().input();
    images =
        own(
            Tensor.allocate(
                Shape.of(batch, in.height(), in.width(), in.channels()),
                DataType.F32,
                Layout.NHWC));
    images.set(workload.images());
    labels = own(Tensor.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR));
    for (int i = 0; i < batch; i++) {
      labels.put(i, workload.labels()[i]);
    }
    int micro =
        microBatch > 0
            ? microBatch
            : BatchExecutor.microBatch(workload.network(), backend, type, batch);
    training = own(new BatchExecutor(workload.network(), backend, batch, micro, options(type)));
    training.load(parameters);
    optimizer = own(new Optimizer(workload.network(), backend, config(workload, type)));
    inference =
        own(
            new NetworkFunction(
                workload.network(),
                backend,
                new NetworkFunction.Options(batch, micro, type, false, false, 0)));
    inference.load(parameters);
    logits =
        own(
            Tensor.allocate(
                Shape.of(batch, 1, 1, workload.network().classes()), DataType.F32, Layout.NHWC));
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  private static Program.Options options(DataType type) {
    return new Program.Options(type, Workload.LABEL_SMOOTHING, true, 1);
  }

  /** How a workload is trained. */
  static TrainingConfig config(Workload workload, DataType type) {
    return TrainingConfig.builder()
        .batch(workload.batch())
        .learningRate(Workload.LEARNING_RATE)
        .warmup(0)
        .momentum(Workload.MOMENTUM)
        .labelSmoothing(Workload.LABEL_SMOOTHING)
        .type(type)
        .build();
  }

  @Override
  public float step() {
    float loss = pass();
    optimizer.step(training, parameters, gradients, Workload.LEARNING_RATE, ++steps);
    return loss;
  }

  private float pass() {
    BatchExecutor.Result result =
        training.forwardBackward(
            images, labels, gradients, Write.OVERWRITE, 1f / workload.batch(), steps);
    return (float) (result.loss() / workload.batch());
  }

  @Override
  public float[] forward() {
    inference.forward(images, List.of(logits));
    return logits.toFloatArray();
  }

  @Override
  public Gradients gradients() {
    float loss = pass();
    float[] values = gradients.arena().toFloatArray();
    return new Gradients(loss, Arrays.copyOf(values, values.length));
  }

  /** By all micro-batches in flight. */
  @Override
  public long activationBytes() {
    return training.activationBytes();
  }

  /** The same, if the whole batch passed at once (what a framework without micro-batches holds). */
  public long activationBytesOfBatch() {
    return training.program().activationBytes() / training.program().batch() * workload.batch();
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException(failure);
      }
    }
  }
}
