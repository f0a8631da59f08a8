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
  KRSC,
  /**
   * Images and activations as other libraries hold them: batch, channels, height, width. Operations
   * compute on {@link #NHWC}; a reorder ({@code Backend.reorder}) leads from one to the other.
   */
  NCHW,
  /**
   * Convolution weights as other libraries hold them (also called OIHW): output channels, input
   * channels per group, kernel height, kernel width. Operations compute on {@link #KRSC}; a reorder
   * leads from one to the other.
   */
  KCRS
}
