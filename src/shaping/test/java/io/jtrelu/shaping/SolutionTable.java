package io.jtrelu.shaping;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import java.io.PrintStream;
import java.util.List;
import java.util.Locale;

/**
 * Prints the table of docs/shaping.md, activations by methods on a plain chain, of 100 activations
 * unless another number is given. The page says how to run it.
 */
final class SolutionTable {
  private SolutionTable() {}

  public static void main(String[] args) {
    int depth = args.length > 0 ? Integer.parseInt(args[0]) : 100;
    PrintStream out = System.out;
    out.println(
        "| activation | method | outcome | residual | departure of q | fourth moment | others |");
    out.println("|---|---|---|---|---|---|---|");
    SignalGraph graph = SignalGraph.chain(depth);
    for (Activation activation : Activation.values()) {
      for (ShapingMethod method : List.of(new Tat(), new Dks(), new Eoc(0.05), new Eoc(0))) {
        String name = method.methodName();
        if (method instanceof Eoc eoc) {
          name += String.format(Locale.ROOT, " (sigma_b^2 = %s)", eoc.sigmaB2());
        }
        String row;
        try {
          row = row(method.solve(graph, activation));
        } catch (ShapingException e) {
          row = "none: " + e.getMessage() + " | | | | |";
        }
        out.println("| " + activation.activationName() + " | " + name + " | " + row);
      }
    }
  }

  private static String row(Shaping s) {
    TransformedActivation phi = s.activation();
    EdgeOfChaos edge = s.edgeOfChaos();
    if (edge != null) {
      return String.format(
          Locale.ROOT,
          "sigma_w^2 = %.8g, q* = %.8g, slope of q map %.4g | %.0e | | | |",
          edge.sigmaW2(),
          edge.qStar(),
          edge.qSlope(),
          s.residual());
    }
    String slope =
        phi.function() == Activation.LEAKY_RELU
            ? String.format(Locale.ROOT, ", slope = %.8g", phi.negativeSlope())
            : "";
    return String.format(
        Locale.ROOT,
        "a = %.8g, b = %.8g, g = %.8g, d = %.8g%s | %.0e | %.1e | %.6f | %d |",
        phi.inputScale(),
        phi.inputShift(),
        phi.outputScale(),
        phi.outputShift(),
        slope,
        s.residual(),
        QMap.departure(phi),
        s.moments().fourth(),
        s.alternatives().size());
  }
}
