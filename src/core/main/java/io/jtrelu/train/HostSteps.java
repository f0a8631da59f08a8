package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Steps in which a pass has run when it has been submitted: nothing is under way behind it. */
abstract class HostSteps implements Steps {
  final Backend backend;
  final Parameters parameters;
  final Parameters gradients;
  final Optimizer optimizer;
  final BatchExecutor executor;
  private @Nullable Figures figures;
  private @Nullable Tensor images;

  /**
   * @param executor closed with these; all else stays the caller's
   */
  HostSteps(
      Backend backend,
      Parameters parameters,
      Parameters gradients,
      Optimizer optimizer,
      BatchExecutor executor) {
    this.backend = backend;
    this.parameters = parameters;
    this.gradients = gradients;
    this.optimizer = optimizer;
    this.executor = executor;
  }

  /** Runs a pass. */
  abstract Figures run(Tensor src, Tensor labels, Pass pass, BatchExecutor.@Nullable Fisher fisher);

  static Write mode(Pass pass) {
    return pass.first() ? Write.OVERWRITE : Write.ACCUMULATE;
  }

  /** The first layer whose results for the last pass are not finite; null where all are. */
  final @Nullable String nonFiniteLayerHere() {
    return images == null ? null : executor.firstNonFiniteLayer(images);
  }

  @Override
  public final void load() {
    executor.load(parameters);
  }

  @Override
  public final boolean takesBytes() {
    return false;
  }

  @Override
  public final int ahead() {
    return 0;
  }

  @Override
  public final void submit(Tensor src, Tensor labels, Pass pass) {
    if (figures != null) {
      throw new IllegalStateException("a pass is under way; take its figures first");
    }
    images = src;
    figures = run(src, labels, pass, pass.first() ? optimizer.measurement(pass.number()) : null);
  }

  @Override
  public final Figures take() {
    Figures taken = figures;
    if (taken == null) {
      throw new IllegalStateException("no pass is under way");
    }
    figures = null;
    return taken;
  }

  @Override
  public final void forgive() {
    figures = null;
    optimizer.forgive();
  }

  @Override
  public final long activationBytes() {
    return executor.activationBytes();
  }

  @Override
  public void close() {
    executor.close();
  }
}
