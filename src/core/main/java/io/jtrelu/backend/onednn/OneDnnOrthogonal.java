package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;

import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.random.Philox;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.stream.IntStream;

/**
 * Where there are no {@linkplain NativeOrthogonal kernels of our own}. Reflections in blocks: b of
 * them are I - V T V^T with T^-1 = diag(v_j^T v_j / 2) + the strict upper triangle of V^T V
 * (compact WY form; Puglisi 1992 for the inverse), so that nearly all work is matrix products.
 *
 * <p>All blocks are drawn first, then panels of columns pass through them from the last to the
 * first. Blocks and panels are each independent, so all cores work without a barrier, and what is
 * computed does not depend on how many there are.
 */
final class OneDnnOrthogonal extends Orthogonal {
  private static final int BLOCK = 64;

  private final Dnnl library;

  OneDnnOrthogonal(Dnnl library, int rows, int cols, float gain) {
    super(Device.CPU, rows, cols, gain);
    this.library = library;
  }

  @Override
  protected void compute(Stream stream, Tensor dst, long seed, long sequence) {
    OneDnnStream.of(stream);
    int m = Math.max(rows(), cols());
    int k = Math.min(rows(), cols());
    Elements.zero(dst.address(), dst.bytes());
    int blocks = Math.ceilDiv(k, BLOCK);
    int width =
        Math.clamp(k / 8, 64, 256); // not the number of cores: results must not depend on it
    int panels = Math.ceilDiv(k, width);
    try (Arena arena = Arena.ofShared()) {
      Reflections[] reflections = new Reflections[blocks];
      for (int i = 0; i < blocks; i++) {
        int first = i * BLOCK;
        reflections[i] = new Reflections(arena, first, Math.min(BLOCK, k - first), m - first);
      }
      IntStream.range(0, blocks)
          .parallel()
          .forEach(i -> reflections[i].draw(seed, sequence, dst.address()));
      // The last panels pass through most blocks: they are started first.
      IntStream.range(0, panels)
          .parallel()
          .forEach(i -> panel(reflections, (panels - 1 - i) * width, width, k, dst.address()));
    }
  }

  private void panel(Reflections[] reflections, int from, int width, int k, long dst) {
    int to = Math.min(from + width, k);
    try (Arena arena = Arena.ofConfined()) {
      long x = arena.allocate(floats((long) BLOCK * width), 64).address();
      long y = arena.allocate(floats((long) BLOCK * width), 64).address();
      for (int i = reflections.length - 1; i >= 0; i--) {
        int first = Math.max(from, reflections[i].first); // columns before it stay as they are
        if (first < to) {
          reflections[i].apply(first, to - first, x, y, dst);
        }
      }
    }
  }

  private static long floats(long count) {
    return count * Float.BYTES;
  }

  /** Some consecutive reflections as one. */
  private final class Reflections {
    private final int first;
    private final int size;
    private final int length;
    private final MemorySegment v; // V^T: a vector is a row, from coordinate `first` on
    private final MemorySegment t;

    Reflections(Arena arena, int first, int size, int length) {
      this.first = first;
      this.size = size;
      this.length = length;
      this.v = arena.allocate(floats((long) size * length), 64);
      this.t = arena.allocate(floats((long) size * size), 64);
    }

    /** Draws V, computes T, and puts gain * D into the diagonal of dst. */
    void draw(long seed, long sequence, long dst) {
      float[] x = new float[Math.ceilDiv(length, 4) * 4];
      double[] halfSquares = new double[size];
      int[] words = new int[4];
      for (int j = 0; j < size; j++) {
        int n = length - j;
        for (int i = 0; i < n; i += 4) {
          Philox.block(seed, sequence + first + j, i / 4, words);
          Philox.normals(words[0], words[1], x, i);
          Philox.normals(words[2], words[3], x, i + 2);
        }
        double norm = Math.sqrt(square(x, n));
        boolean positive = x[0] >= 0;
        x[0] = (float) (x[0] + (positive ? norm : -norm));
        // Of unit length, so that sums of products are of one size throughout.
        double length = Math.sqrt(square(x, n));
        float scale = length > 0 ? (float) (1 / length) : 0;
        for (int i = 0; i < n; i++) {
          x[i] *= scale;
        }
        halfSquares[j] = length > 0 ? square(x, n) / 2 : 1;
        MemorySegment.copy(x, 0, v, JAVA_FLOAT, floats((long) j * this.length + j), n);
        int at = first + j;
        Elements.put(dst + floats((long) at * cols() + at), positive ? -gain() : gain());
      }
      long gram = t.address();
      library.sgemm(
          false,
          true,
          size,
          size,
          length,
          1,
          v.address(),
          length,
          v.address(),
          length,
          0,
          gram,
          size);
      invert(halfSquares);
    }

    private static double square(float[] x, int n) {
      double even = 0;
      double odd = 0;
      for (int i = 0; i + 1 < n; i += 2) {
        even += (double) x[i] * x[i];
        odd += (double) x[i + 1] * x[i + 1];
      }
      if (n % 2 == 1) {
        even += (double) x[n - 1] * x[n - 1];
      }
      return even + odd;
    }

    /** T from its inverse, the upper triangle of V^T V with the diagonal halved. */
    private void invert(double[] diagonal) {
      float[] gram = t.toArray(JAVA_FLOAT);
      double[] inverse = new double[size * size];
      for (int row = size - 1; row >= 0; row--) {
        double pivot = 1 / diagonal[row];
        inverse[row * size + row] = pivot;
        for (int j = row + 1; j < size; j++) {
          double factor = -pivot * gram[row * size + j];
          for (int col = j; col < size; col++) {
            inverse[row * size + col] += factor * inverse[j * size + col];
          }
        }
      }
      for (int i = 0; i < inverse.length; i++) {
        t.setAtIndex(JAVA_FLOAT, i, (float) inverse[i]);
      }
    }

    /** Q = (I - V T V^T) Q on some columns of Q; x and y have room for size x columns. */
    void apply(int column, int columns, long x, long y, long dst) {
      if (rows() >= cols()) {
        long q = dst + floats((long) first * cols() + column);
        library.sgemm(
            false, false, size, columns, length, 1, v.address(), length, q, cols(), 0, x, columns);
        library.sgemm(
            false, false, size, columns, size, 1, t.address(), size, x, columns, 0, y, columns);
        library.sgemm(
            true, false, length, columns, size, -1, v.address(), length, y, columns, 1, q, cols());
      } else { // dst holds Q^T
        long q = dst + floats((long) column * cols() + first);
        library.sgemm(
            false, true, columns, size, length, 1, q, cols(), v.address(), length, 0, x, size);
        library.sgemm(false, true, columns, size, size, 1, x, size, t.address(), size, 0, y, size);
        library.sgemm(
            false, false, columns, length, size, -1, y, size, v.address(), length, 1, q, cols());
      }
    }
  }
}
