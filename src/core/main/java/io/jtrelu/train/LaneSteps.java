package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Steps on a CPU, the micro-batches of a pass spread over lanes. */
final class LaneSteps extends HostSteps {
  private final float gradientScale;

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
    super(
        backend,
        parameters,
        gradients,
        optimizer,
        new BatchExecutor(
            network,
            backend,
            batch,
            microBatch > 0
                ? microBatch
                : network.looksAtBatches()
                    ? batch
                    : BatchExecutor.microBatch(network, backend, options.type(), batch),
            optimizer.measuring(options)));
    this.gradientScale = 1f / (batch * accumulate);
  }

  @Override
  Figures run(Tensor src, Tensor labels, Pass pass, BatchExecutor.@Nullable Fisher fisher) {
    BatchExecutor.Result result =
        executor.forwardBackward(
            src, labels, gradients, mode(pass), gradientScale, pass.sequence(), fisher);
    float norm = 0;
    if (pass.last()) {
      norm = optimizer.step(executor, parameters, gradients, pass.learningRate(), pass.number());
    }
    return new Figures(result.loss(), result.correct(), norm);
  }

  @Override
  public @Nullable String firstNonFiniteLayer() {
    String layer = nonFiniteLayerHere();
    return layer != null ? layer : Steps.firstNonFiniteGradient(backend, gradients);
  }
}
