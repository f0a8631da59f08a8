package io.jtrelu.benchmarks;

/** An implementation that runs one {@link Workload}. Used by one thread. */
public interface Contender extends AutoCloseable {
  /** Forward, loss, backward and update of all parameters. Returns the mean loss of the batch. */
  float step();

  /** The logits of the batch, [batch, classes], without anything kept for a backward pass. */
  float[] forward();

  /** Loss and gradients of the batch at the present parameters, which stay as they are. */
  Gradients gradients();

  /** Bytes held from the forward pass of the batch to its backward pass. */
  long activationBytes();

  /**
   * The result of a backward pass.
   *
   * @param loss mean over the batch
   * @param values mean gradient in the order of the library's arena
   */
  record Gradients(float loss, float[] values) {}

  @Override
  void close();
}
