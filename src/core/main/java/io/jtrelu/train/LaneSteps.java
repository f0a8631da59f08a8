package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Steps on a CPU: a pass has run when it has been submitted, its micro-batches spread over lanes.
 */
final class LaneSteps implements Steps {
  private final Parameters parameters;
  private final Parameters gradients;
  private final Optimizer optimizer;
  private final BatchExecutor executor;
  private final Backend backend;
  private final float gradientScale;
  private @Nullable Figures figures;
  private @Nullable Tensor images;

  /**
   * @param batch images per pass
   * @param accumulate passes of a step
   */
  LaneSteps(
      Network network,
      Backend backend,
      int batch,
      int microBatch,
      int accumulate,
      Program.Options options,
      Parameters parameters,
      Parameters gradients,
      Optimizer optimizer) {
    this.parameters = parameters;
    this.gradients = gradients;
    this.optimizer = optimizer;
    this.backend = backend;
    this.gradientScale = 1f / (batch * accumulate);
    this.executor =
        new BatchExecutor(
            network,
            backend,
            batch,
            microBatch > 0
                ? microBatch
                : network.looksAtBatches()
                    ? batch
                    : BatchExecutor.microBatch(network, backend, options.type(), batch),
            optimizer.measures() ? options.withFisher() : options);
  }

  @Override
  public void load() {
    executor.load(parameters);
  }

  @Override
  public boolean takesBytes() {
    return false;
  }

  @Override
  public int ahead() {
    return 0;
  }

  @Override
  public void submit(Tensor src, Tensor labels, Pass pass) {
    if (figures != null) {
      throw new IllegalStateException("a pass is under way; take its figures first");
    }
    images = src;
    BatchExecutor.Result result =
        executor.forwardBackward(
            src,
            labels,
            gradients,
            pass.first() ? Write.OVERWRITE : Write.ACCUMULATE,
            gradientScale,
            pass.sequence(),
            pass.first() ? optimizer.measurement(pass.number()) : null);
    float norm = 0;
    if (pass.last()) {
      norm = optimizer.step(executor, parameters, gradients, pass.learningRate(), pass.number());
    }
    figures = new Figures(result.loss(), result.correct(), norm);
  }

  @Override
  public Figures take() {
    Figures taken = figures;
    if (taken == null) {
      throw new IllegalStateException("no pass is under way");
    }
    figures = null;
    return taken;
  }

  @Override
  public @Nullable String firstNonFiniteLayer() {
    String layer = images == null ? null : executor.firstNonFiniteLayer(images);
    return layer != null ? layer : Steps.firstNonFiniteGradient(backend, gradients);
  }

  @Override
  public void forgive() {
    figures = null;
    optimizer.forgive();
  }

  @Override
  public long activationBytes() {
    return executor.activationBytes();
  }

  @Override
  public void close() {
    executor.close();
  }
}
