package io.jtrelu.backend.reference;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;

/** Elements of tensors as Java arrays: operands are read whole, results are stored whole. */
final class Elements {
  private Elements() {}

  /** All elements, widened exactly. */
  static float[] read(Tensor tensor) {
    return tensor.toFloatArray();
  }

  /** All elements of an I32 tensor. */
  static int[] readInts(Tensor tensor) {
    return tensor.segment().toArray(JAVA_INT_UNALIGNED);
  }

  /** An accumulator as large as a tensor. */
  static double[] zeros(Tensor tensor) {
    return new double[Math.toIntExact(tensor.shape().elements())];
  }

  /** dst = values, rounded to dst's type. */
  static void store(double[] values, Tensor dst) {
    float[] rounded = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      rounded[i] = (float) values[i];
    }
    dst.set(rounded);
  }

  /** dst = [dst +] values, rounded once. */
  static void store(double[] values, Tensor dst, Write write) {
    if (write == Write.ACCUMULATE) {
      float[] old = read(dst);
      for (int i = 0; i < values.length; i++) {
        values[i] += old[i];
      }
    }
    store(values, dst);
  }

  /** diff_src = ([diff_src +] gradient) * psi'(src), rounded once. */
  static void storeGradient(
      double[] gradient, Rectifier psi, Tensor src, Tensor diffSrc, Write write) {
    if (write == Write.ACCUMULATE) {
      float[] old = read(diffSrc);
      for (int i = 0; i < gradient.length; i++) {
        gradient[i] += old[i];
      }
    }
    if (!psi.isIdentity()) {
      float[] output = read(src);
      for (int i = 0; i < gradient.length; i++) {
        gradient[i] *= derivative(psi, output[i]);
      }
    }
    store(gradient, diffSrc);
  }

  /** Stores the elements of an I32 tensor. */
  static void storeInts(int[] values, Tensor dst) {
    MemorySegment.copy(values, 0, dst.segment(), JAVA_INT_UNALIGNED, 0, values.length);
  }

  /** phi(x) = scale * (max(x, 0) + slope * min(x, 0)). */
  static double apply(Rectifier phi, double x) {
    return phi.scale() * (Math.max(x, 0) + phi.slope() * Math.min(x, 0));
  }

  /** phi'(x) from the output y = phi(x). */
  static double derivative(Rectifier phi, double y) {
    return phi.scale() * (y > 0 ? 1.0 : phi.slope());
  }
}
