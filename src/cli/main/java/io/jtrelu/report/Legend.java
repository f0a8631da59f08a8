package io.jtrelu.report;

import java.util.ArrayList;
import java.util.List;

/** Names and line samples in rows above a chart. */
final class Legend {
  private static final double ROW = 20;
  private static final double FONT = 12;
  private static final double SAMPLE = 22;

  /** A name and how its line looks. */
  record Item(String name, int colour, Series.Style style) {}

  private record Placed(Item item, double x, int row) {}

  private final List<Placed> placed = new ArrayList<>();
  private int rows;

  Legend(List<Item> items, double width) {
    double at = 0;
    for (Item item : items) {
      double needed = SAMPLE + 6 + Markup.textWidth(item.name(), FONT) + 18;
      if (rows == 0 || at + needed > width) {
        rows++;
        at = 0;
      }
      placed.add(new Placed(item, at, rows - 1));
      at += needed;
    }
  }

  double height() {
    return rows * ROW;
  }

  void draw(SvgCanvas canvas, double x, double y) {
    for (Placed each : placed) {
      double left = x + each.x();
      double middle = y + each.row() * ROW + ROW / 2;
      int colour = each.item().colour();
      canvas.raw(
          "<path "
              + Palette.stroke(colour)
              + pen(each.item().style())
              + " d=\"M"
              + Markup.px(left)
              + " "
              + Markup.px(middle)
              + "h"
              + Markup.px(SAMPLE)
              + "\"/>");
      if (each.item().style() == Series.Style.DOTS) {
        canvas.raw(
            "<circle "
                + Palette.fill(colour)
                + " cx=\""
                + Markup.px(left + SAMPLE / 2)
                + "\" cy=\""
                + Markup.px(middle)
                + "\" r=\"3.2\"/>");
      }
      canvas.text(left + SAMPLE + 6, middle + 4, "start", FONT, "ink", 400, each.item().name());
    }
  }

  /** Attributes of a line in a style. */
  static String pen(Series.Style style) {
    return switch (style) {
      case LINE -> " fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\"";
      case DASHED ->
          " fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\" stroke-dasharray=\"6 4\"";
      case FAINT ->
          " fill=\"none\" stroke-width=\"1\" stroke-linejoin=\"round\" stroke-opacity=\"0.3\"";
      case DOTS -> " fill=\"none\" stroke-width=\"1.5\" stroke-linejoin=\"round\"";
    };
  }
}
