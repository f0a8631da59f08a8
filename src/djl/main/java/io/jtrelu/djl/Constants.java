package io.jtrelu.djl;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;

/**
 * Arithmetic of an array and a number that may be differentiated.
 *
 * <p>DJL's {@code array.mul(number)} may not, in 0.36 on PyTorch: it makes an array over a buffer
 * of Java's and closes it, but PyTorch keeps it for the gradient. Once Java has collected the
 * buffer the gradient is multiplied by whatever lies there, silently. Here the number lies in
 * memory of the engine's.
 */
final class Constants {
  private Constants() {}

  /** x * number. */
  static NDArray mul(NDArray x, double number) {
    try (NDArray constant = of(x, number)) {
      return x.mul(constant);
    }
  }

  /** x + number. */
  static NDArray add(NDArray x, double number) {
    try (NDArray constant = of(x, number)) {
      return x.add(constant);
    }
  }

  private static NDArray of(NDArray like, double number) {
    NDManager manager = like.getManager();
    return manager.full(new Shape(), (float) number, like.getDataType());
  }
}
