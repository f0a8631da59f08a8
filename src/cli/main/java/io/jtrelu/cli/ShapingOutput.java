package io.jtrelu.cli;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.cli.ShapeCommand.Request;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.EdgeOfChaos;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.Moments;
import io.jtrelu.shaping.QMap;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Solution;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import java.util.List;
import java.util.Locale;

/** The outcome of a shaping method, for machines and for people. */
final class ShapingOutput {
  private ShapingOutput() {}

  /** JSON; what is infinite or does not apply is null. */
  static ObjectNode json(Request request, Shaping shaping) {
    ObjectNode node = JsonNodeFactory.instance.objectNode();
    node.put("network", request.options().name());
    if (request.isResidual()) {
      node.put("block", request.options().block().name().toLowerCase(Locale.ROOT));
      node.put("shortcut_weight", request.options().shortcutWeight());
    }
    node.put("method", shaping.method().methodName());
    node.put("activation", request.activation().activationName());
    node.put("activations", shaping.activations());
    number(node, "target", shaping.target());
    number(node, "achieved", shaping.achieved());
    number(node, "residual", shaping.residual());
    put(node, shaping.activation());
    Moments moments = shaping.moments();
    number(node, "q", moments.q());
    number(node, "q_slope", moments.qSlope());
    number(node, "c0", moments.c0());
    number(node, "c_slope", moments.cSlope());
    number(node, "c_curvature", moments.cCurvature());
    number(node, "fourth_moment", moments.fourth());
    number(node, "q_departure", QMap.departure(shaping.activation()));
    EdgeOfChaos edge = shaping.edgeOfChaos();
    if (edge != null) {
      number(node, "sigma_w2", edge.sigmaW2());
      number(node, "sigma_b2", edge.sigmaB2());
      number(node, "q_star", edge.qStar());
      number(node, "chi_1", edge.chi1());
      number(node, "depth_scale", edge.depthScale());
    }
    ArrayNode alternatives = node.putArray("alternatives");
    for (TransformedActivation alternative : shaping.alternatives()) {
      ObjectNode other = alternatives.addObject();
      put(other, alternative);
      number(other, "fourth_moment", Moments.of(alternative).fourth());
      number(other, "q_departure", QMap.departure(alternative));
    }
    return node;
  }

  private static void put(ObjectNode node, TransformedActivation f) {
    number(node, "input_scale", f.inputScale());
    number(node, "input_shift", f.inputShift());
    number(node, "output_shift", f.outputShift());
    number(node, "output_scale", f.outputScale());
    number(node, "negative_slope", isLeaky(f) ? f.negativeSlope() : Double.NaN);
  }

  private static boolean isLeaky(TransformedActivation f) {
    return f.function() == Activation.LEAKY_RELU;
  }

  /** JSON has neither infinity nor NaN. */
  static void number(ObjectNode node, String name, double value) {
    if (Double.isFinite(value)) {
      node.put(name, value);
    } else {
      node.putNull(name);
    }
  }

  /** Adds the subnetworks that M was maximised over. */
  static void addRegions(ObjectNode node, SignalGraph graph) {
    ArrayNode array = node.putArray("regions");
    for (SignalGraph.Region region : graph.regions()) {
      array.addObject().put("name", region.name()).put("activations", region.activations());
    }
  }

  /** The subnetworks that M was maximised over, a line each. */
  static String regions(SignalGraph graph) {
    StringBuilder text = new StringBuilder("\nSubnetworks that M was maximised over");
    for (SignalGraph.Region region : graph.regions()) {
      text.append(
          String.format(
              Locale.ROOT, "%n  %3d activations  %s", region.activations(), region.name()));
    }
    return text.toString();
  }

  /** A heading and a line for each figure. */
  static String text(Request request, Shaping shaping) {
    StringBuilder text = new StringBuilder();
    text.append(request.options().name());
    if (request.isResidual()) {
      text.append(
          String.format(
              Locale.ROOT,
              " (%s blocks, shortcut weight %s)",
              request.options().block(),
              request.options().shortcutWeight()));
    }
    text.append(
        String.format(
            Locale.ROOT,
            ", %d activation%s, %s with %s%n",
            shaping.activations(),
            shaping.activations() == 1 ? "" : "s",
            shaping.method().methodName(),
            request.activation().activationName()));
    TransformedActivation f = shaping.activation();
    text.append("  ").append(formula(f)).append('\n');
    if (isLeaky(f)) {
      line(text, "negative slope", f.negativeSlope(), "");
    }
    line(text, "input scale", f.inputScale(), "");
    line(text, "input shift", f.inputShift(), "");
    line(text, "output shift", f.outputShift(), "");
    line(text, "output scale", f.outputScale(), "");
    EdgeOfChaos edge = shaping.edgeOfChaos();
    if (edge != null) {
      text.append('\n');
      line(text, "sigma_w^2", edge.sigmaW2(), "variance of weights times fan-in");
      line(text, "sigma_b^2", edge.sigmaB2(), "variance of biases");
      line(
          text,
          "q*",
          edge.qStar(),
          String.format(
              Locale.ROOT, "fixed point of q, where its map has slope %.4g", edge.qSlope()));
      line(text, "chi_1", edge.chi1(), "slope of the C map at 1");
      line(text, "depth scale", edge.depthScale(), "layers");
    }
    text.append('\n');
    line(text, level(shaping), shaping.achieved(), "whole network" + target(shaping));
    Moments m = shaping.moments();
    line(text, "Q(1)", m.q(), "mean square, each layer");
    line(text, "Q'(1)", m.qSlope(), "");
    line(text, "C(0)", m.c0(), "cosine made of orthogonal inputs");
    line(text, "C'(1)", m.cSlope(), "");
    line(text, "C''(1)", m.cCurvature(), "");
    line(text, "fourth moment", m.fourth(), "sets how q varies at finite width");
    line(
        text,
        "departure of q",
        QMap.departure(shaping.activation()),
        "|log(Q(q) / q)|, q of 1/2 to 2");
    text.append(String.format(Locale.ROOT, "  %-15s %.2g", "residual", shaping.residual()));
    List<TransformedActivation> others = shaping.alternatives();
    if (!others.isEmpty()) {
      text.append(
          String.format(
              Locale.ROOT,
              "%n%nOf %d solutions this one is number %d. --solution takes the others, whose q departs"
                  + " by:",
              others.size() + 1,
              request.solution()));
      for (int i = 0; i < others.size(); i++) {
        text.append(
            String.format(
                Locale.ROOT,
                "%n  %d  %-9.2g %s",
                i + (i + 1 < request.solution() ? 1 : 2),
                QMap.departure(others.get(i)),
                formula(others.get(i))));
      }
    }
    return text.toString();
  }

  /** The activation as a formula of six digits. */
  static String formula(TransformedActivation f) {
    String phi = f.function().activationName();
    boolean plainInput = f.inputScale() == 1 && f.inputShift() == 0;
    String inner =
        plainInput
            ? "x"
            : String.format(Locale.ROOT, "%.6g x%s", f.inputScale(), signed(f.inputShift()));
    String value = phi + "(" + inner + ")";
    if (f.outputShift() != 0) {
      value = "(" + value + signed(f.outputShift()) + ")";
    }
    String scaled =
        f.outputScale() == 1
            ? "y = " + value
            : String.format(Locale.ROOT, "y = %.6g %s", f.outputScale(), value);
    return isLeaky(f)
        ? scaled + String.format(Locale.ROOT, ", negative slope %.6g", f.negativeSlope())
        : scaled;
  }

  private static String signed(double value) {
    return value == 0
        ? ""
        : String.format(Locale.ROOT, " %s %.6g", value < 0 ? "-" : "+", Math.abs(value));
  }

  private static String level(Shaping shaping) {
    return level(shaping.method(), shaping.activation());
  }

  private static String level(ShapingMethod method, TransformedActivation activation) {
    return switch (method) {
      case Tat tat -> isLeaky(activation) ? "M(0)" : "curvature";
      case Dks dks -> "slope";
      case Eoc eoc -> "slope";
      case Unshaped none -> "C(0) of all";
      case Solution one -> level(one.method(), activation);
    };
  }

  private static String target(Shaping shaping) {
    return shaping.method() instanceof Unshaped ? "" : ", target " + shaping.target();
  }

  private static void line(StringBuilder text, String name, double value, String note) {
    text.append(
        String.format(
                Locale.ROOT,
                "  %-15s %-15s %s",
                name,
                Double.isFinite(value) ? String.format(Locale.ROOT, "%.10g", value) : "infinite",
                note)
            .stripTrailing());
    text.append('\n');
  }
}
