package io.jtrelu.interop;

import io.jtrelu.tensor.Shape;

/**
 * The order of a convolution's weights: KRSC here, KCRS (also called OIHW) in the files of others.
 * For values on their way to or from a file; for tensors there is {@code Backend.reorder}.
 */
public final class KernelOrder {
  private KernelOrder() {}

  /**
   * KRSC to KCRS.
   *
   * @param krsc values in our order
   * @param shape [k, r, s, c]
   * @return new values [k, c, r, s]
   */
  public static float[] toKcrs(float[] krsc, Shape shape) {
    return transposed(krsc, shape.dim(0), shape.dim(1) * shape.dim(2), shape.dim(3));
  }

  /**
   * KCRS to KRSC.
   *
   * @param kcrs values [k, c, r, s]
   * @param shape that of the result, [k, r, s, c]
   * @return new values in our order
   */
  public static float[] toKrsc(float[] kcrs, Shape shape) {
    return transposed(kcrs, shape.dim(0), shape.dim(3), shape.dim(1) * shape.dim(2));
  }

  /** [count, rows, columns] to [count, columns, rows]. */
  private static float[] transposed(float[] values, int count, int rows, int columns) {
    float[] result = new float[values.length];
    int at = 0;
    for (int k = 0; k < count; k++) {
      for (int c = 0; c < columns; c++) {
        for (int r = 0; r < rows; r++) {
          result[at++] = values[(k * rows + r) * columns + c];
        }
      }
    }
    return result;
  }
}
