package io.jtrelu.shaping;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.function.DoubleUnaryOperator;

/**
 * A random graph that knows M by brute force: every pair (u, v) of nodes is tried, and the
 * definition of a region is checked edge by edge, without dominators.
 *
 * @param inputs for each node the nodes it reads; none for node 0
 * @param weights for a sum the weights of its inputs; empty for an affine layer, null for an
 *     activation
 */
record RandomGraph(List<int[]> inputs, List<double[]> weights) {

  static RandomGraph of(Random random, int size) {
    List<int[]> inputs = new ArrayList<>();
    List<double[]> weights = new ArrayList<>();
    inputs.add(new int[0]);
    weights.add(new double[0]);
    Set<Integer> open = new HashSet<>(Set.of(0));
    for (int n = 1; n <= size; n++) {
      int kind = random.nextInt(10);
      int recent = Math.max(0, n - 1 - random.nextInt(3));
      if (kind < 5 || n == 1) {
        inputs.add(new int[] {recent});
        weights.add(null);
      } else if (kind < 6) {
        inputs.add(new int[] {recent});
        weights.add(new double[0]);
      } else {
        addSum(random, inputs, weights, pick(random, open, n));
      }
      open.removeAll(boxed(inputs.get(n)));
      open.add(n);
    }
    if (open.size() > 1) {
      addSum(random, inputs, weights, open.stream().mapToInt(i -> i).toArray());
    }
    return new RandomGraph(inputs, weights);
  }

  private static int[] pick(Random random, Set<Integer> open, int n) {
    Set<Integer> picked = new HashSet<>();
    for (int i : open) {
      if (random.nextBoolean()) {
        picked.add(i);
      }
    }
    while (picked.size() < 2 + random.nextInt(2) && picked.size() < n) {
      picked.add(random.nextInt(n));
    }
    return picked.stream().mapToInt(i -> i).toArray();
  }

  private static void addSum(
      Random random, List<int[]> inputs, List<double[]> weights, int[] sources) {
    double[] w = new double[sources.length];
    double total = 0;
    for (int i = 0; i < w.length; i++) {
      w[i] = Math.exp(4 * random.nextDouble() - 2);
      total += w[i] * w[i];
    }
    for (int i = 0; i < w.length; i++) {
      w[i] /= Math.sqrt(total);
    }
    inputs.add(sources);
    weights.add(w);
  }

  private static Set<Integer> boxed(int[] values) {
    Set<Integer> result = new HashSet<>();
    for (int v : values) {
      result.add(v);
    }
    return result;
  }

  SignalGraph build() {
    var b = SignalGraph.builder();
    b.input();
    int last = 0;
    for (int n = 1; n < inputs.size(); n++) {
      double[] w = weights.get(n);
      if (w == null) {
        last = b.activation(inputs.get(n)[0]);
      } else if (w.length == 0) {
        last = b.affine(inputs.get(n)[0]);
      } else {
        last = b.sum(w, inputs.get(n));
      }
    }
    return b.build(last);
  }

  double maximumOverAllRegions(DoubleUnaryOperator r, double x) {
    double best = Double.NEGATIVE_INFINITY;
    for (int u = 0; u < inputs.size(); u++) {
      for (int v = u + 1; v < inputs.size(); v++) {
        Set<Integer> region = region(u, v);
        if (isRegion(region, u, v)) {
          best = Math.max(best, value(v, u, r, x));
        }
      }
    }
    return best;
  }

  /** All nodes met going back from v without passing u. */
  private Set<Integer> region(int u, int v) {
    Set<Integer> found = new HashSet<>(Set.of(v));
    for (int n = v; n >= 0; n--) {
      if (found.contains(n)) {
        for (int i : inputs.get(n)) {
          if (i != u) {
            found.add(i);
          }
        }
      }
    }
    return found;
  }

  private boolean isRegion(Set<Integer> region, int u, int v) {
    for (int n = 0; n < inputs.size(); n++) {
      for (int i : inputs.get(n)) {
        boolean entersElsewhere = region.contains(n) && !region.contains(i) && i != u;
        boolean leavesElsewhere = region.contains(i) && !region.contains(n) && i != v;
        if (entersElsewhere || leavesElsewhere) {
          return false;
        }
      }
    }
    // The network's input is an entry too.
    return u == 0 || !region.contains(0);
  }

  /** By recursion on the definition; the region's nodes all lead back to u. */
  private double value(int n, int u, DoubleUnaryOperator r, double x) {
    if (n == u) {
      return x;
    }
    int[] in = inputs.get(n);
    double[] w = weights.get(n);
    if (w == null) {
      return r.applyAsDouble(value(in[0], u, r, x));
    }
    if (w.length == 0) {
      return value(in[0], u, r, x);
    }
    double sum = 0;
    for (int i = 0; i < in.length; i++) {
      sum += w[i] * w[i] * value(in[i], u, r, x);
    }
    return sum;
  }

  @Override
  public String toString() {
    StringBuilder text = new StringBuilder("RandomGraph:");
    for (int n = 0; n < inputs.size(); n++) {
      double[] w = weights.get(n);
      text.append("\n  ").append(n).append(" = ");
      text.append(w == null ? "activation" : w.length == 0 ? "affine" : "sum");
      text.append(java.util.Arrays.toString(inputs.get(n)));
    }
    return text.toString();
  }
}
