package io.jtrelu.benchmarks;

import io.jtrelu.data.Augmentation;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.PerLocationNormalization;
import java.util.concurrent.TimeUnit;
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

/** One batch of 64 from the loader, drained as fast as its one thread fills. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class DataLoading {
  /** {@code none}, or {@code crop-flip}. */
  @Param("none")
  public String augmentation;

  /** There is one. */
  @Param("jtrelu")
  public String contender;

  private BatchLoader loader;

  /** Opens the embedded data. */
  @Setup(Level.Trial)
  public void open() {
    Datasets data = Datasets.open(Datasets.EMBEDDED);
    BatchLoader.Builder builder =
        BatchLoader.over(data.train(), PerLocationNormalization.of(data.train()))
            .batch(64)
            .shuffle(1)
            .dropLast();
    if (augmentation.equals("crop-flip")) {
      builder = builder.augment(new Augmentation(2, true), 1);
    }
    loader = builder.open();
  }

  /** One batch. */
  @Benchmark
  public int next() {
    try (Batch batch = loader.next()) {
      return batch.valid();
    }
  }

  /** Stops the loader. */
  @TearDown(Level.Trial)
  public void close() {
    loader.close();
  }
}
