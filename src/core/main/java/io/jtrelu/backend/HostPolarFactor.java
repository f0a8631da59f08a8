package io.jtrelu.backend;

import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** By products of the backend's, for those that compute in the host's memory. */
final class HostPolarFactor extends PolarFactor {
  private static final int SUMS = 8; // side by side, so that one need not wait for the other

  HostPolarFactor(Backend backend, int rows, int columns, int count, float scale) {
    super(backend, rows, columns, count, scale);
  }

  @Override
  protected void normalize(Stream stream, Tensor matrices, Tensor normalized) {
    float[] values = new float[rows() * columns()];
    long bytes = (long) values.length * Float.BYTES;
    for (int i = 0; i < count(); i++) {
      MemorySegment from = matrices.segment().asSlice(i * bytes, bytes);
      MemorySegment to = normalized.segment().asSlice(i * bytes, bytes);
      MemorySegment.copy(from, ValueLayout.JAVA_FLOAT, 0, values, 0, values.length);
      double norm = Math.sqrt(squares(values));
      double factor = norm == 0 ? 0 : 1 / norm;
      for (int e = 0; e < values.length; e++) {
        values[e] = (float) (values[e] * factor);
      }
      MemorySegment.copy(values, 0, to, ValueLayout.JAVA_FLOAT, 0, values.length);
    }
  }

  private static double squares(float[] values) {
    double[] sums = new double[SUMS];
    for (int e = 0; e < values.length; e++) {
      sums[e % SUMS] += (double) values[e] * values[e];
    }
    double sum = 0;
    for (double part : sums) {
      sum += part;
    }
    return sum;
  }
}
