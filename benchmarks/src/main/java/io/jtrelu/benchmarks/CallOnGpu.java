package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * A hundred kernels of one element each, until the last has run: launched one by one through JCuda,
 * or recorded once and replayed with one launch. Per kernel.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class CallOnGpu {
  private static final int KERNELS = 100;

  /** How they are launched. */
  @Param({"launch", "replay"})
  public String contender;

  private Backend backend;
  private Stream stream;
  private Tensor tensor;
  private Recording recording;

  /** Opens the GPU, and only a real one. */
  @Setup(Level.Trial)
  public void open() {
    backend = Backends.open("cuda");
    stream = backend.newStream();
    tensor = backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
    recording = backend.record(stream, this::launch);
  }

  private void launch() {
    for (int i = 0; i < KERNELS; i++) {
      backend.fill(stream, tensor, i);
    }
  }

  /** All of them. */
  @Benchmark
  @OperationsPerInvocation(KERNELS)
  public void call() {
    if (contender.equals("launch")) {
      launch();
    } else {
      recording.replay(stream);
    }
    stream.synchronize();
  }

  /** Releases all. */
  @TearDown(Level.Trial)
  public void close() {
    recording.close();
    tensor.close();
    stream.close();
    backend.close();
  }
}
