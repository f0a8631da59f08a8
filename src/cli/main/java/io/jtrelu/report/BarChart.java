package io.jtrelu.report;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;

/**
 * Horizontal bars from 0, in groups by label, with whiskers for their error.
 *
 * @param title what it shows
 * @param value axis of the values
 * @param bars in reading order; those of one label stand together
 * @param reference a value marked by a vertical line (a target); NaN for none
 * @param width in pixels; the height follows from the bars
 */
public record BarChart(String title, Axis value, List<Bar> bars, double reference, int width) {
  private static final double LEFT = 18;
  private static final double BAR = 18;
  private static final double GAP = 12;

  /**
   * A bar.
   *
   * @param label the group it belongs to
   * @param series what sets it apart within the group: the legend's entry
   * @param value its length
   * @param low lower end of the whisker; NaN for no whisker
   * @param high upper end of the whisker; NaN for no whisker
   */
  public record Bar(String label, String series, double value, double low, double high) {}

  /** Copies the bars. */
  public BarChart {
    bars = List.copyOf(bars);
  }

  /** A chart of the usual width without a reference. */
  public static BarChart of(String title, Axis value, List<Bar> bars) {
    return new BarChart(title, value, bars, Double.NaN, 720);
  }

  /** The chart as a file of its own. */
  public String svg() {
    Picture picture = picture();
    return SvgCanvas.document(width, picture.height(), title, picture.body());
  }

  /** The chart as a part of a page. */
  String inline() {
    Picture picture = picture();
    return SvgCanvas.inline(width, picture.height(), title, picture.body());
  }

  private record Picture(int height, String body) {}

  private Picture picture() {
    List<String> labels =
        new ArrayList<>(new LinkedHashSet<>(bars.stream().map(Bar::label).toList()));
    List<String> names =
        new ArrayList<>(new LinkedHashSet<>(bars.stream().map(Bar::series).toList()));
    double greatest = Double.isNaN(reference) ? 0 : reference;
    double labelWidth = 40;
    for (Bar bar : bars) {
      for (double end : new double[] {bar.value(), bar.high()}) {
        greatest = Double.isFinite(end) ? Math.max(greatest, end) : greatest;
      }
      labelWidth = Math.max(labelWidth, Markup.textWidth(bar.label(), 12.5));
    }
    Axis across = value.range(0, value.max()).fitted(0, greatest);
    List<Legend.Item> items = new ArrayList<>();
    for (int i = 0; names.size() > 1 && i < names.size(); i++) {
      items.add(new Legend.Item(names.get(i), i, Series.Style.LINE));
    }
    Legend legend = new Legend(items, width - 2 * LEFT);
    double top = 40 + legend.height();
    double left = LEFT + Math.min(labelWidth * 1.06, width * 0.4) + 12;
    double right = width - 70;
    double bottom = top + labels.size() * GAP + bars.size() * BAR;

    SvgCanvas canvas = new SvgCanvas();
    canvas.text(LEFT, 24, "start", 15, "ink", 600, title);
    legend.draw(canvas, LEFT, 34);
    for (Axis.Tick tick : across.ticks((int) Math.max(2, (right - left) / 80))) {
      double at = left + across.position(tick.value()) * (right - left);
      canvas.line(at, top, at, bottom, "grid", Palette.GRID);
      canvas.text(at, bottom + 18, "middle", 12, "muted", 400, tick.label());
    }
    canvas.text((left + right) / 2, bottom + 38, "middle", 11.5, "muted", 400, value.label());
    double at = top + GAP / 2;
    for (String label : labels) {
      List<Bar> group = bars.stream().filter(bar -> bar.label().equals(label)).toList();
      canvas.text(left - 10, at + group.size() * BAR / 2 + 4, "end", 12.5, "ink", 400, label);
      for (Bar bar : group) {
        draw(canvas, bar, names.indexOf(bar.series()), across, left, right, at);
        at += BAR;
      }
      at += GAP;
    }
    if (!Double.isNaN(reference)) {
      double mark = left + across.position(reference) * (right - left);
      canvas.raw(
          "<path class=\"axis\" stroke=\""
              + Palette.AXIS
              + "\" stroke-width=\"1.5\" stroke-dasharray=\"4 3\" d=\"M"
              + Markup.px(mark)
              + " "
              + Markup.px(top - 4)
              + "V"
              + Markup.px(bottom)
              + "\"/>");
    }
    canvas.line(left, top, left, bottom, "axis", Palette.AXIS);
    return new Picture((int) Math.ceil(bottom + 48), canvas.toString());
  }

  private void draw(
      SvgCanvas canvas, Bar bar, int colour, Axis across, double left, double right, double top) {
    double length = across.position(bar.value()) * (right - left);
    double labelAt = left;
    if (Double.isFinite(length)) {
      labelAt = left + Math.max(0, length);
      canvas.raw(
          "<rect "
              + Palette.fill(colour)
              + " fill-opacity=\"0.85\" x=\""
              + Markup.px(left)
              + "\" y=\""
              + Markup.px(top + 2)
              + "\" width=\""
              + Markup.px(Math.max(0, length))
              + "\" height=\""
              + Markup.px(BAR - 4)
              + "\" rx=\"2\"/>");
    }
    if (Double.isFinite(bar.low()) && Double.isFinite(bar.high())) {
      double from = left + Math.max(0, across.position(bar.low())) * (right - left);
      double to = left + Math.max(0, across.position(bar.high())) * (right - left);
      double middle = top + BAR / 2;
      labelAt = Math.max(labelAt, to);
      canvas.raw(
          "<path class=\"ink-line\" stroke=\""
              + Palette.INK
              + "\" stroke-width=\"1.3\" fill=\"none\" d=\"M"
              + Markup.px(from)
              + " "
              + Markup.px(middle - 4)
              + "v8m0 -4H"
              + Markup.px(to)
              + "m0 -4v8\"/>");
    }
    canvas.text(
        labelAt + 7, top + BAR / 2 + 4, "start", 11.5, "muted", 400, across.describe(bar.value()));
  }
}
