package io.jtrelu.benchmarks;

import io.jtrelu.activation.Activation;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;
import java.util.Locale;
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

/** Shaping a network, graph given. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class SlopeSolve {
  /** Method and activation, as {@code tat:leaky_relu}. */
  @Param("tat:leaky_relu")
  public String method;

  /** {@code chain:L} or {@code resnet50:w}. */
  @Param("chain:50")
  public String network;

  /** There is one. */
  @Param("jtrelu")
  public String contender;

  private ShapingMethod shaping;
  private Activation activation;
  private SignalGraph graph;

  /** Builds the graph. */
  @Setup(Level.Trial)
  public void open() {
    String[] parts = method.split(":");
    activation = Activation.valueOf(parts[1].toUpperCase(Locale.ROOT));
    shaping = parts[0].equals("tat") ? new Tat() : new Dks();
    String[] net = network.split(":");
    graph =
        net[0].equals("chain")
            ? SignalGraph.chain(Integer.parseInt(net[1]))
            : Networks.build(
                    new Networks.Options(net[0], Networks.Block.V2, Double.parseDouble(net[1]), 0),
                    new Extent(224, 224, 4),
                    1000)
                .signalGraph();
    if (parts[1].equals("leaky_relu") && parts[0].equals("tat") && network.equals("chain:49")) {
      double slope = solve().activation().negativeSlope();
      if (!(Math.abs(slope - 0.4259071946) <= 1e-9)) {
        throw new IllegalStateException("slope " + slope + " of 49 layers, not 0.4259071946");
      }
    }
  }

  /** One solution. */
  @Benchmark
  public Shaping solve() {
    return shaping.solve(graph, activation);
  }
}
