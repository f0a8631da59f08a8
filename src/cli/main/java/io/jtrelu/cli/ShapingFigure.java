package io.jtrelu.cli;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.cli.ShapeCommand.Request;
import io.jtrelu.report.Axis;
import io.jtrelu.report.ChartGrid;
import io.jtrelu.report.LineChart;
import io.jtrelu.report.Series;
import io.jtrelu.report.Series.Style;
import io.jtrelu.shaping.KernelMap;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Unshaped;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.DoubleUnaryOperator;

/** Draws a shaping: C maps, c through depth, the activation, and the map of q. */
final class ShapingFigure {
  private static final int POINTS = 201;
  private static final double[] STARTS = {0, 0.25, 0.5, 0.75, 0.95};
  private static final int WIDTH = 560;
  private static final int HEIGHT = 400;

  private ShapingFigure() {}

  /** A picture as a file of its own. */
  static String svg(Request request, Shaping shaping) {
    SignalGraph graph = request.graph();
    DoubleUnaryOperator c = cMap(shaping);
    DoubleUnaryOperator before =
        cMap(new Unshaped().solve(SignalGraph.chain(1), request.activation()));
    boolean changed = !(shaping.method() instanceof Unshaped);
    List<LineChart> charts =
        List.of(
            LineChart.cMaps("C maps", cMaps(graph, c, before, changed)),
            LineChart.cThroughDepth("c through depth", throughDepth(graph, c, before, changed)),
            LineChart.activations("Activation", activations(shaping)),
            new LineChart(
                "Q map of a layer",
                Axis.linear("q of the inputs").range(0, Double.NaN),
                Axis.linear("q of the outputs").range(0, Double.NaN),
                qMaps(shaping),
                true,
                WIDTH,
                HEIGHT));
    return new ChartGrid(
            title(request, shaping),
            note(shaping),
            charts.stream().map(chart -> chart.sized(WIDTH, HEIGHT)).toList(),
            2)
        .svg();
  }

  private static String title(Request request, Shaping shaping) {
    String residual =
        request.isResidual()
            ? String.format(
                Locale.ROOT,
                " (%s, shortcut weight %s)",
                request.options().block(),
                request.options().shortcutWeight())
            : "";
    return request.options().name()
        + residual
        + ": "
        + shaping.method().methodName()
        + " with "
        + request.activation().activationName();
  }

  private static String note(Shaping shaping) {
    return ShapingOutput.formula(shaping.activation())
        + ", "
        + shaping.activations()
        + (shaping.activations() == 1 ? " activation" : " activations");
  }

  /** At q* = 0 the activation is linear, and c stays. */
  private static DoubleUnaryOperator cMap(Shaping shaping) {
    return vanishing(shaping) ? c -> c : KernelMap.of(shaping)::c;
  }

  private static boolean vanishing(Shaping shaping) {
    return shaping.edgeOfChaos() != null && !(shaping.edgeOfChaos().qStar() > 0);
  }

  private static List<Series> cMaps(
      SignalGraph graph, DoubleUnaryOperator c, DoubleUnaryOperator before, boolean changed) {
    List<Series> maps = new ArrayList<>();
    maps.add(curve("one layer", 0, 1, c));
    maps.add(curve("whole network", 0, 1, x -> graph.output(c, x)));
    if (changed) {
      maps.add(
          curve("whole network, unshaped", 0, 1, x -> graph.output(before, x)).with(Style.DASHED));
    }
    return maps;
  }

  private static List<Series> throughDepth(
      SignalGraph graph, DoubleUnaryOperator c, DoubleUnaryOperator before, boolean changed) {
    List<Series> lines = new ArrayList<>();
    for (int i = 0; i < STARTS.length && changed; i++) {
      String name = i == 0 ? "unshaped" : "";
      lines.add(course(name, graph.throughDepth(before, STARTS[i])).coloured(5).with(Style.DASHED));
    }
    for (int i = 0; i < STARTS.length; i++) {
      String name = String.format(Locale.ROOT, "from %.2f", STARTS[i]);
      lines.add(course(name, graph.throughDepth(c, STARTS[i])).coloured(i));
    }
    return lines;
  }

  private static Series course(String name, double[] values) {
    double[] passed = new double[values.length];
    for (int i = 0; i < passed.length; i++) {
      passed[i] = i;
    }
    return Series.of(name, passed, values);
  }

  private static List<Series> activations(Shaping shaping) {
    TransformedActivation after = shaping.activation();
    TransformedActivation unchanged = TransformedActivation.unchanged(after.function());
    List<Series> functions = new ArrayList<>();
    functions.add(curve("before", -4, 4, unchanged::value).with(Style.DASHED).coloured(5));
    functions.add(curve("after", -4, 4, after::value).coloured(1));
    return functions;
  }

  private static List<Series> qMaps(Shaping shaping) {
    KernelMap map = vanishing(shaping) ? KernelMap.of(shaping.activation()) : KernelMap.of(shaping);
    return List.of(curve("one layer", 0, 2 * map.q(), map::q).coloured(1));
  }

  private static Series curve(String name, double from, double to, DoubleUnaryOperator function) {
    double[] x = new double[POINTS];
    double[] y = new double[POINTS];
    for (int i = 0; i < POINTS; i++) {
      x[i] = from + (to - from) * i / (POINTS - 1);
      y[i] = function.applyAsDouble(x[i]);
    }
    return Series.of(name, x, y);
  }
}
