package io.jtrelu.shaping;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.List;

/**
 * No shaping: the activation as it is. The network-level value reported is C_f(0), the cosine that
 * the whole network makes of orthogonal inputs, for weights scaled to keep q at 1.
 */
public record Unshaped() implements ShapingMethod {

  @Override
  public String methodName() {
    return "none";
  }

  @Override
  public Shaping solve(SignalGraph graph, ActivationFunction activation) {
    TransformedActivation unchanged = TransformedActivation.unchanged(activation);
    KernelMap map = KernelMap.of(unchanged);
    double achieved = graph.output(map::c, 0);
    return new Shaping(
        this,
        unchanged,
        graph.activations(),
        achieved,
        achieved,
        Moments.of(unchanged),
        0,
        List.of(),
        null);
  }
}
