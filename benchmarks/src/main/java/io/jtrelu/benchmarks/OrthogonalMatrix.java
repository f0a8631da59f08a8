package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.openblas.global.openblas;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * A random orthogonal matrix. The peer is LAPACK's QR (sgeqrf, sorgqr) by OpenBLAS on all cores, of
 * a Gaussian matrix that is already there: drawing it and correcting the signs, which a Haar matrix
 * needs too, is not counted against it.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class OrthogonalMatrix {
  private static final int COLUMN_MAJOR = 102;

  /** Rows and columns. */
  @Param("256")
  public int size;

  /** Who makes it. */
  @Param({"jtrelu", "openblas"})
  public String contender;

  private Runnable make;
  private Runnable close;

  /** Makes one and checks that it is orthogonal. */
  @Setup(Level.Trial)
  public void open() {
    float[] q;
    if (contender.equals("jtrelu")) {
      Backend backend = Backends.open("cpu");
      Stream stream = backend.newStream();
      Orthogonal orthogonal = backend.orthogonal(size, size, 1);
      Tensor matrix = backend.allocate(Shape.of(size, size), DataType.F32, Layout.ROW_MAJOR);
      make =
          () -> {
            orthogonal.fill(stream, matrix, 1, 0);
            stream.synchronize();
          };
      close =
          () -> {
            matrix.close();
            orthogonal.close();
            stream.close();
            backend.close();
          };
      make.run();
      q = matrix.toFloatArray();
    } else {
      Random random = new Random(size);
      float[] gaussian = new float[size * size];
      for (int i = 0; i < gaussian.length; i++) {
        gaussian[i] = (float) random.nextGaussian();
      }
      FloatPointer source = new FloatPointer(gaussian);
      FloatPointer matrix = new FloatPointer((long) size * size);
      FloatPointer tau = new FloatPointer(size);
      make =
          () -> {
            Pointer.memcpy(matrix, source, (long) size * size * Float.BYTES);
            int status =
                openblas.LAPACKE_sgeqrf(COLUMN_MAJOR, size, size, matrix, size, tau)
                    | openblas.LAPACKE_sorgqr(COLUMN_MAJOR, size, size, size, matrix, size, tau);
            if (status != 0) {
              throw new IllegalStateException("LAPACK status " + status);
            }
          };
      close =
          () -> {
            source.close();
            matrix.close();
            tau.close();
          };
      make.run();
      q = new float[size * size];
      matrix.get(q);
    }
    requireOrthogonal(contender, size, q);
  }

  /** Sixteen rows against all others. */
  static void requireOrthogonal(String contender, int size, float[] q) {
    double worst = 0;
    for (int i = 0; i < size; i += Math.max(1, size / 16)) {
      for (int j = 0; j < size; j++) {
        double dot = i == j ? -1 : 0;
        for (int k = 0; k < size; k++) {
          dot += (double) q[i * size + k] * q[j * size + k];
        }
        worst = Math.max(worst, Math.abs(dot));
      }
    }
    if (!(worst <= 5e-6)) {
      throw new IllegalStateException(contender + ": |Q'Q - I| = " + worst);
    }
  }

  /** One matrix. */
  @Benchmark
  public void fill() {
    make.run();
  }

  /** Releases it. */
  @TearDown(Level.Trial)
  public void close() {
    close.run();
  }
}
