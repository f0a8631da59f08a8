package io.jtrelu.report;

import java.util.ArrayList;
import java.util.List;

/**
 * A line of a chart.
 *
 * @param name what the legend says; the lines of an empty name are not in the legend
 * @param points in drawing order; a point that is not finite interrupts the line
 * @param style how it is drawn
 * @param colour index of its colour, so that lines can share one; -1 for the next by position
 */
public record Series(String name, List<Point> points, Style style, int colour) {
  /** A point in the units of the axes. */
  public record Point(double x, double y) {}

  /** How a line is drawn. */
  public enum Style {
    /** A solid line. */
    LINE,
    /** A dashed line. */
    DASHED,
    /** A thin pale line: the noise behind a smoothed one. */
    FAINT,
    /** A line with a dot at each point, whose value can be read by pointing at it. */
    DOTS
  }

  /** Copies the points. */
  public Series {
    points = List.copyOf(points);
  }

  /**
   * A solid line in the next colour.
   *
   * @param x as many as y
   * @param y as many as x
   */
  public static Series of(String name, double[] x, double[] y) {
    if (x.length != y.length) {
      throw new IllegalArgumentException(name + ": " + x.length + " x but " + y.length + " y");
    }
    List<Point> points = new ArrayList<>(x.length);
    for (int i = 0; i < x.length; i++) {
      points.add(new Point(x[i], y[i]));
    }
    return new Series(name, points, Style.LINE, -1);
  }

  /** A solid line in the next colour. */
  public static Series of(String name, List<Point> points) {
    return new Series(name, points, Style.LINE, -1);
  }

  /** The same in another style. */
  public Series with(Style newStyle) {
    return new Series(name, points, newStyle, colour);
  }

  /** The same in a colour of the palette. */
  public Series coloured(int index) {
    return new Series(name, points, style, index);
  }

  /** The same under another name. */
  public Series named(String newName) {
    return new Series(newName, points, style, colour);
  }

  /**
   * The exponential moving average of y, corrected for its start (as in Adam): the k-th value is
   * the mean of the first k with weights decay^(k-1), ..., decay, 1. Values that are not finite
   * stay what they are and are left out of the mean.
   *
   * @param decay in [0, 1)
   */
  public Series smoothed(double decay) {
    List<Point> smooth = new ArrayList<>(points.size());
    double sum = 0;
    double weight = 0;
    for (Point point : points) {
      if (Double.isFinite(point.y())) {
        sum = decay * sum + point.y();
        weight = decay * weight + 1;
        smooth.add(new Point(point.x(), sum / weight));
      } else {
        smooth.add(point);
      }
    }
    return new Series(name, smooth, style, colour);
  }
}
