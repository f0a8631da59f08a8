package io.jtrelu.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.report.Series.Point;
import io.jtrelu.report.Series.Style;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

class ChartTest {
  private static final Axis UNIT = Axis.linear("u").range(0, 1);

  private static List<String> labels(Axis axis, int atMost) {
    return axis.ticks(atMost).stream().map(Axis.Tick::label).toList();
  }

  @Test
  void ticksAreRoundNumbers() {
    assertEquals(List.of("0.0", "0.2", "0.4", "0.6", "0.8", "1.0"), labels(UNIT, 5));
    assertEquals(List.of("\u22125", "0", "5", "10"), labels(Axis.linear("").range(-5, 10), 4));
    assertEquals(
        List.of("0", "25,000", "50,000", "75,000", "100,000"),
        labels(Axis.linear("").range(0, 100_000), 4));
    assertEquals(
        List.of("0\u2009%", "50\u2009%", "100\u2009%"), labels(Axis.percent("").range(0, 1), 2));
    assertEquals(
        List.of("0.1", "0.2", "0.5", "1", "2", "5", "10"), labels(Axis.log("").range(0.1, 10), 4));
    assertEquals(
        List.of("10\u207b\u2076", "10\u207b\u2074", "10\u207b\u00b2", "10\u2070"),
        labels(Axis.log("").range(1e-6, 1), 4));
  }

  @Property(tries = 300)
  void aFittedAxisHoldsItsDataAndFewTicks(
      @ForAll @DoubleRange(min = -1e6, max = 1e6) double one,
      @ForAll @DoubleRange(min = -1e6, max = 1e6) double two) {
    double low = Math.min(one, two);
    double high = Math.max(one, two);
    double slack = 1e-6 * Math.max(1e-6, high - low);
    Axis axis = Axis.linear("").fitted(low, high);
    assertTrue(axis.min() <= low + slack && axis.max() >= high - slack, axis.toString());
    int count = axis.ticks(6).size();
    assertTrue(count >= 2 && count <= 8, axis + " has " + count + " ticks");

    Axis log = Axis.log("").fitted(Math.exp(low / 1e5), Math.exp(high / 1e5));
    assertTrue(log.position(Math.exp(low / 1e5)) >= -1e-9, log.toString());
    assertTrue(log.position(Math.exp(high / 1e5)) <= 1 + 1e-9, log.toString());
    assertFalse(log.ticks(6).isEmpty(), log.toString());
  }

  @Test
  void positionsFollowTheScale() {
    assertEquals(0.25, Axis.linear("").range(2, 10).position(4), 1e-12);
    assertEquals(0.5, Axis.log("").range(1, 100).position(10), 1e-12);
    assertTrue(Double.isNaN(Axis.log("").range(1, 100).position(0)));
  }

  /** The paths of a class, without the legend's samples, which are drawn with a relative move. */
  private static List<Element> paths(String svg, String cssClass) throws Exception {
    return elements(svg, cssClass).stream()
        .filter(path -> !path.getAttribute("d").contains("h"))
        .toList();
  }

  private static List<Element> elements(String svg, String cssClass) throws Exception {
    NodeList all = Xml.parse(svg).getElementsByTagName("path");
    List<Element> found = new ArrayList<>();
    for (int i = 0; i < all.getLength(); i++) {
      Element path = (Element) all.item(i);
      if (path.getAttribute("class").equals(cssClass)) {
        found.add(path);
      }
    }
    return found;
  }

  /** The corners of the data are the corners of the plot. */
  @Test
  void linesAreDrawnWhereTheyBelong() throws Exception {
    Series line = Series.of("line", new double[] {0, 0.5, 1}, new double[] {0, 1, 0.5});
    String svg = LineChart.of("title", UNIT, UNIT, List.of(line)).svg();
    Element plot = (Element) Xml.parse(svg).getElementsByTagName("svg").item(1);
    double width = Double.parseDouble(plot.getAttribute("width")) - 10;
    double height = Double.parseDouble(plot.getAttribute("height")) - 10;
    String[] points = paths(svg, "s0").getFirst().getAttribute("d").substring(1).split("L", -1);
    double[][] expected = {{5, 5 + height}, {5 + width / 2, 5}, {5 + width, 5 + height / 2}};
    assertEquals(3, points.length);
    for (int i = 0; i < 3; i++) {
      String[] at = points[i].split(" ", -1);
      assertEquals(expected[i][0], Double.parseDouble(at[0]), 0.11);
      assertEquals(expected[i][1], Double.parseDouble(at[1]), 0.11);
    }
  }

  @Test
  void valuesThatAreNotFiniteInterruptTheLine() throws Exception {
    Series line = Series.of("line", new double[] {0, 1, 2, 3}, new double[] {1, Double.NaN, 1, 2});
    String svg = LineChart.of("t", Axis.linear("x"), Axis.linear("y"), List.of(line)).svg();
    String d = paths(svg, "s0").getFirst().getAttribute("d");
    assertEquals(2, d.chars().filter(c -> c == 'M').count(), d);
    assertFalse(svg.contains("NaN") || svg.contains("Infinity"), svg);
  }

  @Test
  void emptyAndDegenerateDataMakeAPicture() throws Exception {
    for (Axis y : List.of(Axis.linear("y"), Axis.percent("y"), Axis.log("y"))) {
      String empty = LineChart.of("t", Axis.linear("x"), y, List.of()).svg();
      assertTrue(empty.contains("no data"));
      Xml.parse(empty);
      for (double value : new double[] {0, -3, 5, 1e300, 1e-300, Double.NaN}) {
        Series point = Series.of("p", new double[] {7}, new double[] {value});
        String svg = LineChart.of("t", Axis.linear("x"), y, List.of(point)).svg();
        Xml.parse(svg);
        assertFalse(svg.contains("NaN") || svg.contains("Infinity"), value + ": " + svg);
      }
    }
  }

  @Test
  void thinningKeepsEndsAndExtremes() {
    List<Point> points = new ArrayList<>();
    for (int i = 0; i < 100_000; i++) {
      points.add(new Point(i, i == 77_777 ? 100 : i == 33_333 ? -100 : Math.sin(i * 0.01)));
    }
    List<Point> thinned = LineChart.thinned(points);
    assertTrue(thinned.size() <= 1400, "kept " + thinned.size());
    assertEquals(points.getFirst(), thinned.getFirst());
    assertEquals(points.getLast(), thinned.getLast());
    assertTrue(thinned.contains(new Point(77_777, 100)));
    assertTrue(thinned.contains(new Point(33_333, -100)));
    for (int i = 1; i < thinned.size(); i++) {
      assertTrue(thinned.get(i).x() > thinned.get(i - 1).x());
    }
  }

  /** By hand: weights 1/2, 1 over 3/2, and so on. */
  @Test
  void smoothingIsTheCorrectedMovingAverage() {
    Series smooth =
        Series.of("s", new double[] {0, 1, 2, 3}, new double[] {4, 1, Double.NaN, 2}).smoothed(0.5);
    assertEquals(4, smooth.points().get(0).y(), 1e-12);
    assertEquals(2, smooth.points().get(1).y(), 1e-12); // (4/2 + 1) / (3/2)
    assertTrue(Double.isNaN(smooth.points().get(2).y()));
    assertEquals(2, smooth.points().get(3).y(), 1e-12); // (3/2 + 2) / (7/4)
  }

  @Test
  void aSeriesNeedsAsManyXAsY() {
    assertThrows(
        IllegalArgumentException.class, () -> Series.of("s", new double[1], new double[2]));
  }

  @Test
  void barsAndWhiskersHaveTheirLengths() throws Exception {
    BarChart chart =
        new BarChart(
            "t",
            Axis.linear("v").range(0, 4),
            List.of(
                new BarChart.Bar("a", "x", 2, 1, 3),
                new BarChart.Bar("b", "x", 4, Double.NaN, Double.NaN),
                new BarChart.Bar("c", "x", Double.NaN, Double.NaN, Double.NaN)),
            1,
            600);
    Document document = Xml.parse(chart.svg());
    List<Double> lengths = new ArrayList<>();
    NodeList rects = document.getElementsByTagName("rect");
    for (int i = 0; i < rects.getLength(); i++) {
      Element rect = (Element) rects.item(i);
      if (rect.getAttribute("class").equals("f0")) {
        lengths.add(Double.parseDouble(rect.getAttribute("width")));
      }
    }
    assertEquals(2, lengths.size());
    assertEquals(2 * lengths.get(0), lengths.get(1), 0.11);
    List<Element> whiskers = elements(chart.svg(), "ink-line");
    assertEquals(1, whiskers.size());
    Matcher ends =
        Pattern.compile("M([0-9.]+) .*H([0-9.]+)").matcher(whiskers.getFirst().getAttribute("d"));
    assertTrue(ends.find());
    double whisker = Double.parseDouble(ends.group(2)) - Double.parseDouble(ends.group(1));
    assertEquals(lengths.get(0), whisker, 0.11); // from 1 to 3: as long as the bar of 2
  }

  @Test
  void textFromOutsideIsEscaped() throws Exception {
    String hostile = Samples.HOSTILE;
    Series line = Series.of(hostile, new double[] {1}, new double[] {1}).with(Style.DOTS);
    for (String svg :
        List.of(
            LineChart.of(hostile, Axis.linear(hostile), Axis.log(hostile), List.of(line)).svg(),
            new BarChart(
                    hostile,
                    Axis.linear(hostile),
                    List.of(new BarChart.Bar(hostile, hostile, 1, 0.5, 2)),
                    1,
                    600)
                .svg())) {
      assertEquals(0, Xml.parse(svg).getElementsByTagName("script").getLength());
      assertTrue(svg.contains("&lt;script&gt;"));
    }
  }

  @Test
  void numbersAreWrittenForPeople() {
    assertEquals("\u22121,234.50", Markup.fixed(-1234.5, 2));
    assertEquals("0.0", Markup.fixed(-0.01, 1));
    assertEquals("\u2013", Markup.fixed(Double.NaN, 1));
    assertEquals("2.1", Markup.significant(2.1));
    assertEquals("0.001235", Markup.significant(0.0012346));
    assertEquals("1,235", Markup.significant(1234.6));
    assertEquals("0", Markup.significant(0));
    assertEquals("1.5E\u22127", Markup.significant(1.5e-7));
    assertEquals("42 s", Markup.duration(42.2));
    assertEquals("3 min 05 s", Markup.duration(185));
    assertEquals("2 h 07 min", Markup.duration(2 * 3600 + 7 * 60 + 59));
  }
}
