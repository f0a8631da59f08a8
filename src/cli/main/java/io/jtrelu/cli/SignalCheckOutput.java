package io.jtrelu.cli;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.nn.SignalCheck;
import io.jtrelu.nn.SignalCheck.LayerCheck;
import io.jtrelu.nn.SignalCheck.Quantity;
import java.util.List;
import java.util.Locale;

/** The outcome of a check of q and c, for machines and for people. */
final class SignalCheckOutput {
  private SignalCheckOutput() {}

  static ObjectNode json(SignalCheck.Result result) {
    ObjectNode node = JsonNodeFactory.instance.objectNode();
    node.put("passed", result.passed());
    node.put("networks", result.networks());
    node.put("tolerance", SignalCheck.TOLERANCE);
    ShapingOutput.number(node, "worst_z", result.worst());
    ArrayNode layers = node.putArray("layers");
    for (LayerCheck layer : result.layers()) {
      ObjectNode each = layers.addObject();
      each.put("name", layer.name());
      each.put("channels", layer.channels());
      each.put("passed", layer.passed());
      put(each.putObject("q"), layer.q());
      ArrayNode cosines = each.putArray("c");
      for (int k = 0; k < layer.c().size(); k++) {
        ObjectNode cosine = cosines.addObject();
        ShapingOutput.number(cosine, "from", result.cosines().get(k));
        put(cosine, layer.c().get(k));
      }
    }
    return node;
  }

  private static void put(ObjectNode node, Quantity quantity) {
    ShapingOutput.number(node, "predicted", quantity.predicted());
    ShapingOutput.number(node, "wide", quantity.wide());
    ShapingOutput.number(node, "expected", quantity.expected());
    ShapingOutput.number(node, "spread", quantity.spread());
    ShapingOutput.number(node, "measured", quantity.measured());
    ShapingOutput.number(node, "z", quantity.z());
    node.put("limit", quantity.limit());
    node.put("passed", quantity.passed());
  }

  /** A line for each activation: q, and c of the inputs that begin with the least cosine. */
  static String text(SignalCheck.Result result) {
    StringBuilder text = new StringBuilder();
    text.append(
        String.format(
            Locale.ROOT,
            "%nMeasured in %d random networks, inputs of cosine %.4g. Expected: at this width;"
                + " \u00b1: between networks; z: standard errors%n%n",
            result.networks(),
            result.cosines().getFirst()));
    int width =
        Math.max(5, result.layers().stream().mapToInt(l -> l.name().length()).max().orElse(0));
    String cells = "  %-9s %-9s %-17s %5s  ";
    text.append(
        String.format(Locale.ROOT, "%-" + width + "s  %-36s%n", "", "q" + " ".repeat(48) + "c"));
    text.append(String.format(Locale.ROOT, "%-" + width + "s", "layer"));
    for (int i = 0; i < 2; i++) {
      text.append(String.format(Locale.ROOT, cells, "predicted", "measured", "expected", "z"));
    }
    text.append('\n');
    for (LayerCheck layer : result.layers()) {
      text.append(String.format(Locale.ROOT, "%-" + width + "s", layer.name()));
      for (Quantity quantity : List.of(layer.q(), layer.c().getFirst())) {
        text.append(
            String.format(
                Locale.ROOT,
                cells,
                figure(quantity.predicted()),
                figure(quantity.measured()),
                figure(quantity.expected()) + " \u00b1 " + figure(quantity.spread()),
                String.format(Locale.ROOT, "%.1f", quantity.z())));
      }
      text.append(layer.passed() ? "ok" : verdict(layer)).append('\n');
    }
    text.append(
        String.format(
            Locale.ROOT,
            "%n%s: the largest of all deviations is %.1f standard errors (%.0f are allowed); cosines"
                + " checked: %s",
            result.passed() ? "Passed" : "FAILED",
            result.worst(),
            SignalCheck.TOLERANCE,
            String.join(
                ", ",
                result.cosines().stream()
                    .map(c -> String.format(Locale.ROOT, "%.4g", c))
                    .toList())));
    if (result.layers().stream().anyMatch(layer -> !limits(layer))) {
      text.append(
          "\nWhere it says THEORY, the network is not what the theory takes it for, however wide it"
              + " is: see V1 blocks in docs/shaping.md.");
    }
    return text.toString();
  }

  private static boolean limits(LayerCheck layer) {
    return layer.q().limit() && layer.c().stream().allMatch(Quantity::limit);
  }

  private static String verdict(LayerCheck layer) {
    return limits(layer) ? "DEVIATES" : "THEORY";
  }

  private static String figure(double value) {
    return String.format(Locale.ROOT, "%.4f", value);
  }
}
