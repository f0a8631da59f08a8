package io.jtrelu.benchmarks;

import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** One contender with one workload, checked before it is timed. */
@State(Scope.Benchmark)
public class ContenderState {
  /** As {@link Workload#of} takes it. */
  @Param("plain50")
  public String network;

  /** Images. */
  @Param("64")
  public int batch;

  /** As {@link Contenders#open} takes it. */
  @Param({"jtrelu", "djl-nchw-plain"})
  public String contender;

  Contender running;

  /** Opens the contender; a peer must agree with this library in logits, loss and gradients. */
  @Setup(Level.Trial)
  public void open() {
    Workload workload = Workload.of(network, batch);
    Contenders.check(contender, workload);
    running = Contenders.open(contender, workload);
  }

  /** Closes it. */
  @TearDown(Level.Trial)
  public void close() {
    running.close();
  }
}
