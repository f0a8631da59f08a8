package io.jtrelu.train;

/**
 * How ranks that share a run's {@linkplain TrainingConfig#shards shards} add up their gradients.
 * One rank by itself exchanges nothing: all are the same to it.
 */
public enum GradientExchange {
  /** In F32, in the tree over all shards: the same bits for any number of ranks. */
  TREE,

  /**
   * By the communicator's own all-reduce, in an order of its choice: what it knows of the network,
   * at half as many bytes again, and at the price of bits that depend on ranks and library.
   */
  LIBRARY,

  /**
   * In the tree, but what a rank sends is rounded to BF16: three quarters of the bytes, and a
   * relative error of up to 2^-9 in the others' terms. As a rank sends the sum over its shards,
   * bits depend on the number of ranks.
   */
  BF16
}
