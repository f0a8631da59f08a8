package io.jtrelu.report;

import java.util.ArrayList;
import java.util.List;

/**
 * A network from input to output: a bar for each layer, as high as its images are large, darker
 * with more channels, and under each stage its extent.
 */
final class NetworkDiagram {
  private static final double MARGIN = 18;
  private static final double TALLEST = 104;

  private NetworkDiagram() {}

  private record Stage(int begin, int end, LayerRow layer) {}

  static String inline(List<LayerRow> layers, int width) {
    SvgCanvas canvas = new SvgCanvas();
    double largest = 1;
    double most = 2;
    for (LayerRow layer : layers) {
      largest = Math.max(largest, Math.max(layer.height(), layer.width()));
      most = Math.max(most, layer.channels());
    }
    double slot = (width - 2 * MARGIN) / Math.max(1, layers.size());
    double bar = Math.min(26, slot * 0.76);
    double base = TALLEST + 14;
    for (int i = 0; i < layers.size(); i++) {
      LayerRow layer = layers.get(i);
      double side = Math.max(layer.height(), layer.width());
      double height = 8 + (TALLEST - 8) * Math.sqrt((side - 1) / Math.max(1, largest - 1));
      double depth = 0.35 + 0.6 * Math.log(layer.channels()) / Math.log(most);
      canvas.raw(
          "<rect "
              + Palette.fill(layer.parameters() > 0 ? 0 : 5)
              + " fill-opacity=\""
              + Markup.fixed(Math.clamp(depth, 0.2, 0.95), 2)
              + "\" x=\""
              + Markup.px(MARGIN + i * slot + (slot - bar) / 2)
              + "\" y=\""
              + Markup.px(base - height)
              + "\" width=\""
              + Markup.px(bar)
              + "\" height=\""
              + Markup.px(height)
              + "\" rx=\"1.5\"><title>"
              + Markup.escape(
                  layer.name() + ": " + layer.operation() + ", output " + layer.output())
              + "</title></rect>");
    }
    double freeFrom = Double.NEGATIVE_INFINITY;
    for (Stage stage : stages(layers)) {
      double left = MARGIN + stage.begin() * slot;
      double right = MARGIN + stage.end() * slot;
      canvas.raw(
          "<path class=\"axis\" stroke=\""
              + Palette.AXIS
              + "\" fill=\"none\" d=\"M"
              + Markup.px(left + 1.5)
              + " "
              + Markup.px(base + 6)
              + "v4H"
              + Markup.px(right - 1.5)
              + "v-4\"/>");
      int count = stage.end() - stage.begin();
      String counted = count + (count == 1 ? " layer" : " layers");
      double half =
          Math.max(Markup.textWidth(stage.layer().output(), 11.5), Markup.textWidth(counted, 11))
              / 2;
      double middle = Math.clamp((left + right) / 2, MARGIN + half, width - MARGIN - half);
      if (middle - half > freeFrom) { // a label that would cover another is left to the table
        canvas.text(middle, base + 26, "middle", 11.5, "ink", 600, stage.layer().output());
        canvas.text(middle, base + 41, "middle", 11, "muted", 400, counted);
        freeFrom = middle + half + 10;
      }
    }
    return SvgCanvas.inline(
        width, (int) (base + 50), "The layers of the network", canvas.toString());
  }

  private static List<Stage> stages(List<LayerRow> layers) {
    List<Stage> stages = new ArrayList<>();
    int begin = 0;
    for (int i = 1; i <= layers.size(); i++) {
      if (i == layers.size() || !layers.get(i).output().equals(layers.get(begin).output())) {
        stages.add(new Stage(begin, i, layers.get(begin)));
        begin = i;
      }
    }
    return stages;
  }
}
