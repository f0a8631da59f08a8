package io.jtrelu.benchmarks;

import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.ShapingException;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Every activation with every method, refusals included, in turn, by the CPU time of the thread:
 * for a machine that is shared, where waiting must not count. ({@link SlopeSolve} has the same
 * solutions for JMH.)
 *
 * <p>Arguments: lengths of chains. Prints a table in Markdown: milliseconds of CPU time of the
 * median round after warm-up, and the spread over all.
 */
public final class SolveTimes {
  private static final int WARM_UP = 20;
  private static final int ROUNDS = 21;
  private static final int SOLVES = 3;
  private static final List<ShapingMethod> METHODS =
      List.of(ShapingMethod.named("tat"), ShapingMethod.named("dks"), new Eoc(0.05), new Eoc(0));

  private record Pair(Activation activation, ShapingMethod method) {}

  private SolveTimes() {}

  /** Runs and prints. */
  public static void main(String[] args) {
    List<Pair> pairs = new ArrayList<>();
    for (Activation activation : Activation.values()) {
      METHODS.forEach(method -> pairs.add(new Pair(activation, method)));
    }
    System.out.println("| activations | activation | method | CPU ms | least | most |");
    System.out.println("|---|---|---|---|---|---|");
    for (String length : args) {
      SignalGraph graph = SignalGraph.chain(Integer.parseInt(length));
      double[][] times = new double[pairs.size()][ROUNDS];
      for (int round = -WARM_UP; round < ROUNDS; round++) {
        for (int i = 0; i < times.length; i++) {
          double time = time(pairs.get(i), graph);
          if (round >= 0) {
            times[i][round] = time;
          }
        }
      }
      for (int i = 0; i < times.length; i++) {
        print(length, pairs.get(i), graph, times[i]);
      }
    }
  }

  private static double time(Pair pair, SignalGraph graph) {
    ThreadMXBean threads = ManagementFactory.getThreadMXBean();
    long begin = threads.getCurrentThreadCpuTime();
    for (int i = 0; i < SOLVES; i++) {
      residual(pair, graph);
    }
    return (threads.getCurrentThreadCpuTime() - begin) * 1e-6 / SOLVES;
  }

  /** NaN where there is no solution. */
  private static double residual(Pair pair, SignalGraph graph) {
    try {
      return pair.method.solve(graph, pair.activation).residual();
    } catch (ShapingException none) {
      return Double.NaN;
    }
  }

  private static void print(String length, Pair pair, SignalGraph graph, double[] times) {
    double residual = residual(pair, graph);
    if (residual > 1e-10) {
      throw new IllegalStateException(pair + ": residual " + residual);
    }
    double least = Double.POSITIVE_INFINITY;
    double most = 0;
    for (double time : times) {
      least = Math.min(least, time);
      most = Math.max(most, time);
    }
    String method = pair.method.methodName();
    if (pair.method instanceof Eoc eoc) {
      method += " " + eoc.sigmaB2();
    }
    System.out.printf(
        Locale.ROOT,
        "| %s | %s | %s%s | %.3f | %.3f | %.3f |%n",
        length,
        pair.activation.activationName(),
        method,
        Double.isNaN(residual) ? " (refused)" : "",
        Campaign.median(times),
        least,
        most);
  }
}
