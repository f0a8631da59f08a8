package io.jtrelu.report;

import io.jtrelu.report.Series.Point;
import io.jtrelu.report.Series.Style;
import java.util.ArrayList;
import java.util.List;

/**
 * Lines over two axes, with ticks, a grid and a legend.
 *
 * @param title what it shows
 * @param x horizontal axis
 * @param y vertical axis
 * @param series lines, the last on top
 * @param diagonal whether the line y = x is drawn for comparison
 * @param width in pixels
 * @param height in pixels
 */
public record LineChart(
    String title, Axis x, Axis y, List<Series> series, boolean diagonal, int width, int height) {
  /** Points beyond this are thinned out: more than two per pixel cannot be seen. */
  private static final int MAX_POINTS = 1400;

  private static final double RIGHT = 18;
  private static final double BOTTOM = 46;
  private static final double FONT = 12;

  /** How far lines and dots may pass the border of the plot, so that those on it stay whole. */
  private static final double BLEED = 5;

  /** Copies the series. */
  public LineChart {
    series = List.copyOf(series);
  }

  /** A chart of the usual size. */
  public static LineChart of(String title, Axis x, Axis y, List<Series> series) {
    return new LineChart(title, x, y, series, false, 560, 340);
  }

  /**
   * C maps: the cosine similarity of two inputs against that of the outputs, both in [0, 1], with
   * the diagonal on which nothing would change.
   */
  public static LineChart cMaps(String title, List<Series> maps) {
    return new LineChart(
        title,
        Axis.linear("c of two inputs").range(0, 1),
        Axis.linear("c of the outputs").range(0, 1),
        maps,
        true,
        560,
        380);
  }

  /** Cosine similarity after each activation, a line for each method and starting value. */
  public static LineChart cThroughDepth(String title, List<Series> lines) {
    return new LineChart(
        title,
        Axis.linear("activations passed").range(0, Double.NaN),
        Axis.linear("c").range(0, 1),
        lines,
        false,
        560,
        380);
  }

  /** An activation as it was and as it is used. */
  public static LineChart activations(String title, List<Series> functions) {
    return new LineChart(
        title, Axis.linear("x"), Axis.linear("\u03c6(x)"), functions, false, 560, 380);
  }

  /** The same in another size. */
  public LineChart sized(int newWidth, int newHeight) {
    return new LineChart(title, x, y, series, diagonal, newWidth, newHeight);
  }

  /** The chart as a file of its own. */
  public String svg() {
    return SvgCanvas.document(width, height, title, body());
  }

  /** The chart as a part of a page. */
  String inline() {
    return SvgCanvas.inline(width, height, title, body());
  }

  /** What is drawn, without the svg element around it. */
  String body() {
    List<Legend.Item> items = new ArrayList<>();
    double[] bounds = {Double.MAX_VALUE, -Double.MAX_VALUE, Double.MAX_VALUE, -Double.MAX_VALUE};
    for (int i = 0; i < series.size(); i++) {
      Series line = series.get(i);
      if (!line.name().isEmpty()) {
        items.add(new Legend.Item(line.name(), colour(i), line.style()));
      }
      include(line, bounds);
    }
    Legend legend = new Legend(items, width - 2 * RIGHT);
    Axis across = x.fitted(bounds[0], bounds[1]);
    Axis up = y.fitted(bounds[2], bounds[3]);

    double top = 34 + legend.height() + 28;
    double bottom = height - BOTTOM;
    List<Axis.Tick> upTicks = up.ticks((int) Math.max(2, (bottom - top) / 38));
    double widest = 0;
    for (Axis.Tick tick : upTicks) {
      widest = Math.max(widest, Markup.textWidth(tick.label(), FONT));
    }
    double left = Math.max(40, RIGHT + widest + 8);
    double right = width - RIGHT;

    SvgCanvas canvas = new SvgCanvas();
    canvas.text(RIGHT, 24, "start", 15, "ink", 600, title);
    legend.draw(canvas, RIGHT, 34);
    canvas.text(RIGHT, top - 13, "start", 11.5, "muted", 400, y.label());
    for (Axis.Tick tick : upTicks) {
      double at = bottom - up.position(tick.value()) * (bottom - top);
      canvas.line(left, at, right, at, "grid", Palette.GRID);
      canvas.text(left - 8, at + 4, "end", FONT, "muted", 400, tick.label());
    }
    for (Axis.Tick tick : across.ticks((int) Math.max(2, (right - left) / 75))) {
      double at = left + across.position(tick.value()) * (right - left);
      canvas.line(at, bottom, at, bottom + 5, "axis", Palette.AXIS);
      canvas.text(at, bottom + 19, "middle", FONT, "muted", 400, tick.label());
    }
    canvas.line(left, bottom, right, bottom, "axis", Palette.AXIS);
    canvas.text((left + right) / 2, height - 9, "middle", 11.5, "muted", 400, x.label());

    // A nested svg clips at its border.
    double plotWidth = right - left;
    double plotHeight = bottom - top;
    canvas.open(left - BLEED, top - BLEED, plotWidth + 2 * BLEED, plotHeight + 2 * BLEED);
    if (diagonal) {
      double low = Math.max(across.min(), up.min());
      double high = Math.min(across.max(), up.max());
      canvas.raw(
          "<path class=\"axis\" stroke=\""
              + Palette.AXIS
              + "\" fill=\"none\" stroke-width=\"1.3\" stroke-dasharray=\"4 4\" d=\"M"
              + place(new Point(low, low), across, up, plotWidth, plotHeight)
              + "L"
              + place(new Point(high, high), across, up, plotWidth, plotHeight)
              + "\"/>");
    }
    for (int i = 0; i < series.size(); i++) {
      draw(canvas, series.get(i), colour(i), across, up, plotWidth, plotHeight);
    }
    canvas.close();
    if (bounds[0] > bounds[1]) {
      canvas.text((left + right) / 2, (top + bottom) / 2, "middle", 13, "muted", 400, "no data");
    }
    return canvas.toString();
  }

  private int colour(int index) {
    return series.get(index).colour() >= 0 ? series.get(index).colour() : index;
  }

  private boolean shown(Point point) {
    return Double.isFinite(point.x())
        && Double.isFinite(point.y())
        && (point.x() > 0 || x.scale() != Axis.Scale.LOG)
        && (point.y() > 0 || y.scale() != Axis.Scale.LOG);
  }

  private void include(Series line, double[] bounds) {
    for (Point point : line.points()) {
      if (shown(point)) {
        bounds[0] = Math.min(bounds[0], point.x());
        bounds[1] = Math.max(bounds[1], point.x());
        bounds[2] = Math.min(bounds[2], point.y());
        bounds[3] = Math.max(bounds[3], point.y());
      }
    }
  }

  private void draw(
      SvgCanvas canvas,
      Series line,
      int colour,
      Axis across,
      Axis up,
      double plotWidth,
      double plotHeight) {
    StringBuilder path = new StringBuilder();
    boolean pen = false;
    for (Point point : thinned(line.points())) {
      if (!shown(point)) {
        pen = false;
        continue;
      }
      path.append(pen ? 'L' : 'M').append(place(point, across, up, plotWidth, plotHeight));
      pen = true;
    }
    if (!path.isEmpty()) {
      canvas.raw(
          "<path " + Palette.stroke(colour) + Legend.pen(line.style()) + " d=\"" + path + "\"/>");
    }
    // A lone point has no line; it is shown as a dot in every style.
    if (line.style() == Style.DOTS || line.points().size() == 1) {
      for (Point point : thinned(line.points())) {
        if (shown(point)) {
          String[] at = place(point, across, up, plotWidth, plotHeight).split(" ", -1);
          canvas.raw(
              "<circle "
                  + Palette.fill(colour)
                  + " cx=\""
                  + at[0]
                  + "\" cy=\""
                  + at[1]
                  + "\" r=\"3.2\"><title>"
                  + Markup.escape(
                      (line.name().isEmpty() ? "" : line.name() + ": ")
                          + y.describe(point.y())
                          + " at "
                          + x.label()
                          + " "
                          + x.describe(point.x()))
                  + "</title></circle>");
        }
      }
    }
  }

  private static String place(
      Point point, Axis across, Axis up, double plotWidth, double plotHeight) {
    double atX = BLEED + across.position(point.x()) * plotWidth;
    double atY = BLEED + (1 - up.position(point.y())) * plotHeight;
    // Far outside is far enough: huge coordinates trouble some viewers.
    return Markup.px(Math.clamp(atX, -2000, 6000)) + " " + Markup.px(Math.clamp(atY, -2000, 6000));
  }

  /** Keeps the first, least, greatest and last point of each of equally long stretches. */
  static List<Point> thinned(List<Point> points) {
    if (points.size() <= MAX_POINTS) {
      return points;
    }
    int stretches = MAX_POINTS / 4;
    List<Point> kept = new ArrayList<>(MAX_POINTS);
    for (int stretch = 0; stretch < stretches; stretch++) {
      int begin = (int) ((long) points.size() * stretch / stretches);
      int end = (int) ((long) points.size() * (stretch + 1) / stretches);
      int least = begin;
      int greatest = begin;
      for (int i = begin; i < end; i++) {
        // Double.compare puts NaN last: a gap survives as the greatest.
        least = Double.compare(points.get(i).y(), points.get(least).y()) < 0 ? i : least;
        greatest = Double.compare(points.get(i).y(), points.get(greatest).y()) > 0 ? i : greatest;
      }
      int[] indices = {begin, Math.min(least, greatest), Math.max(least, greatest), end - 1};
      for (int i = 0; i < indices.length; i++) {
        if (i == 0 || indices[i] != indices[i - 1]) {
          kept.add(points.get(indices[i]));
        }
      }
    }
    return kept;
  }
}
