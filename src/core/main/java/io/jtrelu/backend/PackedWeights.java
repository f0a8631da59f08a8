package io.jtrelu.backend;

/**
 * Convolution weights in the form a backend computes with (blocked, rounded to the compute type, or
 * just an alias). Made by {@link Conv2d#newPackedWeights}, filled by {@link Conv2d#pack}, shared by
 * any number of streams while nobody packs. The values are those of the last {@code pack}: after
 * weights change, pack again.
 */
public interface PackedWeights extends AutoCloseable {
  /**
   * Releases the packed copy. Idempotent.
   *
   * @throws IllegalStateException if an operation or a recording uses it; it stays open
   */
  @Override
  void close();
}
