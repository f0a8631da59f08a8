package io.jtrelu.backend;

import io.jtrelu.tensor.Shape;

/**
 * The sizes of a two-dimensional max-pooling. Padding never wins: it counts as minus infinity.
 *
 * @param n batch size
 * @param h source height
 * @param w source width
 * @param c channels
 * @param kernel window extent, at most 15 (a position within the window is stored in 8 bits)
 * @param stride distance between windows
 * @param padBegin rows above and columns on the left, less than kernel
 * @param padEnd rows below and columns on the right, less than kernel
 */
public record MaxPool2dDescriptor(
    int n, int h, int w, int c, int kernel, int stride, int padBegin, int padEnd) {
  /**
   * @throws IllegalArgumentException if a size is out of range or the window does not fit
   */
  public MaxPool2dDescriptor {
    if (n < 0
        || h < 1
        || w < 1
        || c < 1
        || kernel < 1
        || kernel > 15
        || stride < 1
        || padBegin < 0
        || padEnd < 0
        || padBegin >= kernel
        || padEnd >= kernel
        || Math.min(h, w) + padBegin + padEnd < kernel) {
      throw new IllegalArgumentException(
          String.format(
              "max-pool of %d images %dx%dx%d with kernel %d, stride %d, padding %d and %d: sizes"
                  + " must be positive, kernel at most 15 and no larger than the padded image,"
                  + " padding smaller than the kernel",
              n, h, w, c, kernel, stride, padBegin, padEnd));
    }
  }

  /** SAME padding as TensorFlow defines it for a square image. */
  public static MaxPool2dDescriptor same(int n, int h, int w, int c, int kernel, int stride) {
    int total = Math.max((Math.ceilDiv(h, stride) - 1) * stride + kernel - h, 0);
    return new MaxPool2dDescriptor(n, h, w, c, kernel, stride, total / 2, total - total / 2);
  }

  /** Output height. */
  public int oh() {
    return (h + padBegin + padEnd - kernel) / stride + 1;
  }

  /** Output width. */
  public int ow() {
    return (w + padBegin + padEnd - kernel) / stride + 1;
  }

  /** Shape of src, NHWC. */
  public Shape src() {
    return Shape.of(n, h, w, c);
  }

  /** Shape of dst and argmax, NHWC. */
  public Shape dst() {
    return Shape.of(n, oh(), ow(), c);
  }
}
