package io.jtrelu.shaping;

import java.util.Arrays;
import java.util.Map;
import java.util.function.DoubleUnaryOperator;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * A region as straight-line code: value 0 is the input; value i is r of one earlier value, or a
 * weighted average of several. The last value is the output. Equal programs compute equal results
 * of one r for all activations, whichever nodes and functions they came from.
 */
final class RegionProgram {
  private final int[][] inputs;

  /** Squared weights of a sum; null for an activation (and for the input). */
  private final double[] @Nullable [] squaredWeights;

  /** For an activation, which function it is; else empty. */
  private final String[] keys;

  private final int depth;
  private final int[] deepestPath;
  private final int hash;

  /**
   * @param inputs for each value, the earlier values it reads; none for value 0
   * @param squaredWeights for each value, the weights of its inputs, or null for an activation
   * @param keys for each value that is an activation, which function it is
   */
  RegionProgram(int[][] inputs, double[] @Nullable [] squaredWeights, String[] keys) {
    this.inputs = inputs;
    this.squaredWeights = squaredWeights;
    this.keys = keys;
    this.hash = 31 * Arrays.deepHashCode(inputs) + Arrays.deepHashCode(squaredWeights);

    int size = inputs.length;
    int[] depths = new int[size];
    int[] deepestInput = new int[size];
    for (int i = 1; i < size; i++) {
      int deepest = inputs[i][0];
      for (int j : inputs[i]) {
        if (depths[j] > depths[deepest]) {
          deepest = j;
        }
      }
      deepestInput[i] = deepest;
      depths[i] = depths[deepest] + (squaredWeights[i] == null ? 1 : 0);
    }
    this.depth = depths[size - 1];
    this.deepestPath = new int[depth + 1];
    int next = depth;
    for (int i = size - 1; i > 0; i = deepestInput[i]) {
      if (squaredWeights[i] == null) {
        deepestPath[next--] = i;
      }
    }
  }

  double evaluate(DoubleUnaryOperator r, double x) {
    return values(r, x)[inputs.length - 1];
  }

  double[] values(DoubleUnaryOperator r, double x) {
    return run(i -> r, x);
  }

  /** With another r for each function. */
  double[] values(Map<String, ? extends DoubleUnaryOperator> r, double x) {
    return run(i -> r.get(keys[i]), x);
  }

  private double[] run(IntFunction<? extends DoubleUnaryOperator> r, double x) {
    double[] values = new double[inputs.length];
    values[0] = x;
    for (int i = 1; i < values.length; i++) {
      int[] in = inputs[i];
      double[] weights = squaredWeights[i];
      if (weights == null) {
        values[i] = r.apply(i).applyAsDouble(values[in[0]]);
      } else {
        double sum = 0;
        for (int j = 0; j < in.length; j++) {
          sum += weights[j] * values[in[j]];
        }
        values[i] = sum;
      }
    }
    return values;
  }

  /** Number of activations on the longest path. */
  int depth() {
    return depth;
  }

  /** The input's index and those of the activations on the longest path. */
  int[] deepestPath() {
    return deepestPath.clone();
  }

  /** Whether there is nothing but activations, each reading the one before. */
  boolean isChain() {
    return depth == inputs.length - 1;
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof RegionProgram that
        && hash == that.hash
        && Arrays.deepEquals(inputs, that.inputs)
        && Arrays.deepEquals(squaredWeights, that.squaredWeights);
  }

  @Override
  public int hashCode() {
    return hash;
  }
}
