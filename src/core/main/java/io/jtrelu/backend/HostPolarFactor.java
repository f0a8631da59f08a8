package io.jtrelu.backend;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;

import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;

/** By products of the backend's, for those that compute in the host's memory. */
final class HostPolarFactor extends PolarFactor {
  HostPolarFactor(Backend backend, int rows, int columns, int count, float scale) {
    super(backend, rows, columns, count, scale);
  }

  @Override
  protected void normalize(Stream stream, Tensor matrices, Tensor normalized) {
    int elements = rows() * columns();
    long bytes = (long) elements * Float.BYTES;
    MemorySegment all = matrices.segment();
    MemorySegment results = normalized.segment();
    for (int i = 0; i < count(); i++) {
      MemorySegment from = all.asSlice(i * bytes, bytes);
      MemorySegment to = results.asSlice(i * bytes, bytes);
      double norm = Math.sqrt(squares(from, elements));
      double factor = norm == 0 ? 0 : 1 / norm;
      for (int e = 0; e < elements; e++) {
        to.setAtIndex(JAVA_FLOAT, e, (float) (from.getAtIndex(JAVA_FLOAT, e) * factor));
      }
    }
  }

  /** Of elements by their index modulo 4, so that one sum need not wait for the other. */
  private static double squares(MemorySegment values, int count) {
    double first = 0;
    double second = 0;
    double third = 0;
    double fourth = 0;
    int e = 0;
    for (; e + 3 < count; e += 4) {
      first += square(values, e);
      second += square(values, e + 1);
      third += square(values, e + 2);
      fourth += square(values, e + 3);
    }
    for (; e < count; e++) {
      first += square(values, e);
    }
    return first + second + third + fourth;
  }

  private static double square(MemorySegment values, int at) {
    double value = values.getAtIndex(JAVA_FLOAT, at);
    return value * value;
  }
}
