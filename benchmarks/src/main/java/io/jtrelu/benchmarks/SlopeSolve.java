package io.jtrelu.benchmarks;

import io.jtrelu.activation.Activation;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
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
  /** Method and activation: all that have solutions, EOC without biases. */
  @Param({
    "tat:leaky_relu",
    "tat:tanh",
    "tat:softplus",
    "tat:elu",
    "tat:swish",
    "tat:sigmoid",
    "tat:erf",
    "tat:bentid",
    "tat:atan",
    "tat:asinh",
    "tat:softsign",
    "tat:gelu",
    "tat:gelu_exact",
    "dks:leaky_relu",
    "dks:relu",
    "dks:selu",
    "dks:tanh",
    "dks:softplus",
    "dks:elu",
    "dks:swish",
    "dks:sigmoid",
    "dks:erf",
    "dks:bentid",
    "dks:atan",
    "dks:asinh",
    "dks:softsign",
    "dks:gelu",
    "dks:gelu_exact",
    "eoc:leaky_relu",
    "eoc:relu",
    "eoc:selu",
    "eoc:tanh",
    "eoc:elu",
    "eoc:swish",
    "eoc:sigmoid",
    "eoc:erf",
    "eoc:bentid",
    "eoc:atan",
    "eoc:asinh",
    "eoc:softsign",
    "eoc:gelu",
    "eoc:gelu_exact"
  })
  public String method;

  /** {@code chain:L} or {@code resnet50:w}. */
  @Param({"chain:50", "chain:200"})
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
    activation = Activation.named(parts[1]);
    shaping = ShapingMethod.named(parts[0]);
    String[] net = network.split(":");
    graph =
        net[0].equals("chain")
            ? SignalGraph.chain(Integer.parseInt(net[1]))
            : Networks.build(
                    new Networks.Options(net[0], Networks.Block.V2, Double.parseDouble(net[1]), 0),
                    new Extent(224, 224, 4),
                    1000)
                .signalGraph();
    double residual = solve().residual();
    if (!(residual <= 1e-10)) {
      throw new IllegalStateException(method + " on " + network + ": residual " + residual);
    }
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
