package io.jtrelu.benchmarks;

import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.bytedeco.dnnl.global.dnnl;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Loader;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;

/** oneDNN's matrix product of size {@value #SIZE}: this machine's practical ceiling in F32. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class SgemmPeak {
  /** Rows and columns: large enough for the peak, small enough for a short run. */
  public static final int SIZE = 1536;

  /** Threads, as {@code sgemm-1}. */
  @Param({"sgemm-1", "sgemm-2"})
  public String contender;

  private FloatPointer a;
  private FloatPointer b;
  private FloatPointer c;

  /** Fills the matrices and checks one element of the product. */
  @Setup(Level.Trial)
  public void open() {
    Loader.load(dnnl.class);
    OpenMp.threads(Integer.parseInt(contender.substring("sgemm-".length())));
    float[] x = random(1);
    float[] y = random(2);
    a = new FloatPointer(x);
    b = new FloatPointer(y);
    c = new FloatPointer((long) SIZE * SIZE);
    multiply();
    double expected = 0;
    double sum = 0;
    int row = SIZE - 1;
    int column = 3;
    for (int k = 0; k < SIZE; k++) {
      double term = (double) x[row * SIZE + k] * y[k * SIZE + column];
      expected += term;
      sum += Math.abs(term);
    }
    double got = c.get((long) row * SIZE + column);
    if (!(Math.abs(got - expected) <= 1e-5 * sum)) {
      throw new IllegalStateException("sgemm gives " + got + ", not " + expected);
    }
  }

  private static float[] random(long seed) {
    Random random = new Random(seed);
    float[] values = new float[SIZE * SIZE];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextFloat() - 0.5f;
    }
    return values;
  }

  /** One product. */
  @Benchmark
  public int multiply() {
    return dnnl.dnnl_sgemm(
        (byte) 'N', (byte) 'N', SIZE, SIZE, SIZE, 1, a, SIZE, b, SIZE, 0, c, SIZE);
  }
}
