package io.jtrelu.tensor;

/**
 * What the axes of a dense, row-major tensor mean (the last axis is contiguous). Device-specific
 * blocked formats never appear here: a backend keeps them inside its packed weights.
 */
public enum Layout {
  /** Any rank; the axes mean what the operation says. */
  ROW_MAJOR,
  /** Images and activations: batch, height, width, channels. */
  NHWC,
  /**
   * Convolution weights: output channels, kernel height, kernel width, input channels per group.
   */
  KRSC
}
