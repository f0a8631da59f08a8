package io.jtrelu.benchmarks;

import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;

/** Forward, loss, backward and update of one batch. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class TrainingStep {
  /** One step; the loss is read, so that nothing can be left undone. */
  @Benchmark
  public float step(ContenderState state) {
    return state.running.step();
  }
}
