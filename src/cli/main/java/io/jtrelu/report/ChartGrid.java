package io.jtrelu.report;

import java.util.List;

/**
 * Charts of one size side by side, as one picture.
 *
 * @param title what they show together
 * @param note a line below the title; may be empty
 * @param charts in reading order, at least one, all of the size of the first
 * @param columns charts in a row
 */
public record ChartGrid(String title, String note, List<LineChart> charts, int columns) {
  private static final int HEAD = 64;
  private static final int MARGIN = 18;

  /**
   * @throws IllegalArgumentException if there is no chart or column, or sizes differ
   */
  public ChartGrid {
    charts = List.copyOf(charts);
    if (charts.isEmpty() || columns < 1) {
      throw new IllegalArgumentException("a grid needs at least one chart and one column");
    }
    LineChart first = charts.getFirst();
    for (LineChart chart : charts) {
      if (chart.width() != first.width() || chart.height() != first.height()) {
        throw new IllegalArgumentException("the charts of a grid must have the same size");
      }
    }
  }

  /** The picture as a file of its own. */
  public String svg() {
    int width = charts.getFirst().width();
    int height = charts.getFirst().height();
    int rows = Math.ceilDiv(charts.size(), columns);
    SvgCanvas canvas = new SvgCanvas();
    canvas.text(MARGIN, 30, "start", 19, "ink", 600, title);
    canvas.text(MARGIN, 51, "start", 13, "muted", 400, note);
    for (int i = 0; i < charts.size(); i++) {
      canvas.open(i % columns * width, HEAD + i / columns * height, width, height);
      canvas.raw(charts.get(i).body());
      canvas.close();
    }
    return SvgCanvas.document(
        width * Math.min(columns, charts.size()), HEAD + rows * height, title, canvas.toString());
  }
}
