package io.jtrelu.tensor;

import java.util.Arrays;

/**
 * The extents of a tensor, outermost first. Immutable. An extent of zero (an empty batch) is
 * allowed; a scalar has rank 0 and one element.
 */
public final class Shape {
  private final int[] dims;
  private final long elements;

  private Shape(int[] dims) {
    boolean empty = false;
    for (int dim : dims) {
      if (dim < 0) {
        throw new IllegalArgumentException(
            "a shape needs extents of 0 or more, got " + Arrays.toString(dims));
      }
      empty |= dim == 0;
    }
    long product = empty ? 0 : 1;
    for (int dim : dims) {
      try {
        product = Math.multiplyExact(product, (long) dim);
      } catch (ArithmeticException overflow) {
        throw new IllegalArgumentException(
            "shape " + Arrays.toString(dims) + " has more than 2^63 - 1 elements", overflow);
      }
    }
    this.dims = dims;
    this.elements = product;
  }

  /**
   * A shape of the given extents.
   *
   * @throws IllegalArgumentException if an extent is negative or the element count overflows
   */
  public static Shape of(int... dims) {
    return new Shape(dims.clone());
  }

  /** Number of axes. */
  public int rank() {
    return dims.length;
  }

  /** Extent of one axis, outermost first. */
  public int dim(int axis) {
    return dims[axis];
  }

  /** All extents, outermost first (a copy). */
  public int[] dims() {
    return dims.clone();
  }

  /** Product of all extents. */
  public long elements() {
    return elements;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Shape shape && Arrays.equals(dims, shape.dims);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(dims);
  }

  @Override
  public String toString() {
    return Arrays.toString(dims);
  }
}
