package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

/**
 * The order of several solutions of one problem: first the one whose Q map departs least from the
 * identity. It depends on the shaped activation alone, so that affine maps of phi change nothing.
 * docs/shaping.md says why, and what training says.
 */
final class SolutionOrder {
  /** Departures that agree to rounding are those of mirror images. */
  private static final double SAME = 1e-8;

  private SolutionOrder() {}

  /** Of mirror images the concave one is first. */
  static List<TransformedActivation> of(List<TransformedActivation> found) {
    record Rated(TransformedActivation activation, double departure, double bend) {}
    List<Rated> rated = new ArrayList<>();
    for (TransformedActivation activation : found) {
      rated.add(new Rated(activation, QMap.departure(activation), bend(activation)));
    }
    rated.sort(Comparator.comparingDouble(Rated::departure));
    for (int i = 0; i + 1 < rated.size(); i++) {
      Rated one = rated.get(i);
      Rated next = rated.get(i + 1);
      if (next.departure - one.departure <= SAME * one.departure && one.bend > 0 && next.bend < 0) {
        Collections.swap(rated, i, i + 1);
      }
    }
    return rated.stream().map(Rated::activation).toList();
  }

  /** E[phi''], by parts. */
  private static double bend(TransformedActivation phi) {
    GaussianNodes nodes =
        GaussianNodes.of(phi.inputScale(), phi.inputShift(), phi.function().breakpoints());
    double bend = 0;
    for (int i = 0; i < nodes.z().length; i++) {
      bend += nodes.weight()[i] * phi.derivative(nodes.z()[i]) * nodes.z()[i];
    }
    return bend;
  }

  /** The solution of a number, and the others in their order. */
  static List<TransformedActivation> from(
      List<TransformedActivation> solutions,
      int number,
      ShapingMethod method,
      ActivationFunction activation) {
    requireNumber(number, solutions.size(), method, activation);
    List<TransformedActivation> result = new ArrayList<>(solutions);
    result.add(0, result.remove(number - 1));
    return result;
  }

  static void requireNumber(
      int number, int count, ShapingMethod method, ActivationFunction activation) {
    if (number > count) {
      throw new NoSolutionException(
          activation.activationName()
              + " has "
              + (count == 1 ? "one solution" : count + " solutions")
              + " with "
              + method.methodName()
              + " in this network; solution "
              + number
              + " is asked for");
    }
  }
}
