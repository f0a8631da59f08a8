package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

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
   * @throws IllegalArgumentException if a size is out of range, the window does not fit, or the
   *     elements are too many to be counted
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
        || (long) Math.min(h, w) + padBegin + padEnd < kernel
        || (long) Math.max(h, w) + padBegin + padEnd > Integer.MAX_VALUE) {
      throw new IllegalArgumentException(
          String.format(
              "max-pool of %d images %dx%dx%d with kernel %d, stride %d, padding %d and %d: sizes"
                  + " must be positive, kernel at most 15 and no larger than the padded image,"
                  + " padding smaller than the kernel, the padded image smaller than 2^31 either way",
              n, h, w, c, kernel, stride, padBegin, padEnd));
    }
    try {
      Tensor.byteSize(Shape.of(n, h, w, c), DataType.F32);
      int padding = padBegin + padEnd;
      Shape dst =
          Shape.of(n, (h + padding - kernel) / stride + 1, (w + padding - kernel) / stride + 1, c);
      Tensor.byteSize(dst, DataType.F32);
    } catch (IllegalArgumentException overflow) {
      throw new IllegalArgumentException(
          String.format(
              "max-pool of %d images %dx%dx%d: more elements than can be counted in 63 bits",
              n, h, w, c),
          overflow);
    }
  }

  /** SAME padding as TensorFlow defines it for a square image. */
  public static MaxPool2dDescriptor same(int n, int h, int w, int c, int kernel, int stride) {
    long total = Math.max((Math.ceilDiv(h, (long) stride) - 1) * stride + kernel - h, 0);
    int begin = (int) (total / 2); // less than the kernel, or the constructor refuses it
    return new MaxPool2dDescriptor(n, h, w, c, kernel, stride, begin, (int) (total - begin));
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
