package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;

/**
 * One of several solutions of a method.
 *
 * @param method which finds them
 * @param number from 1, the one that the method takes by itself; see {@link Shaping#alternatives}
 */
public record Solution(ShapingMethod method, int number) implements ShapingMethod {
  /**
   * @throws IllegalArgumentException if the number is not positive, or the method is one solution
   *     already
   */
  public Solution {
    if (number < 1) {
      throw new IllegalArgumentException(
          "solutions are counted from 1, but " + number + " is asked for");
    }
    if (method instanceof Solution) {
      throw new IllegalArgumentException(method + " is one solution already");
    }
  }

  @Override
  public String methodName() {
    return method.methodName();
  }

  /**
   * @throws NoSolutionException if there are fewer
   */
  @Override
  public Shaping solve(SignalGraph graph, ActivationFunction activation) {
    if (method instanceof Tat tat) {
      return tat.solve(graph, activation, number);
    }
    if (method instanceof Dks dks) {
      return dks.solve(graph, activation, number);
    }
    SolutionOrder.requireNumber(number, 1, method, activation);
    return method.solve(graph, activation);
  }
}
