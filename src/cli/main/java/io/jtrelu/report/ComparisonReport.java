package io.jtrelu.report;

import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The report of several runs of one network, side by side: a self-contained HTML page. Parts whose
 * input is empty are left out.
 *
 * @param title what was compared
 * @param summary a sentence below the title; may be empty
 * @param runs the runs, in the order of their colours
 * @param layers the network's layers, first to last (slopes are shown by run, not here)
 * @param cMaps the C map of each: see {@link LineChart#cMaps}
 * @param cThroughDepth c after each activation of each: see {@link LineChart#cThroughDepth}
 * @param environment machine and software by name in the order to be shown
 */
public record ComparisonReport(
    String title,
    String summary,
    List<Run> runs,
    List<LayerRow> layers,
    List<Series> cMaps,
    List<Series> cThroughDepth,
    Map<String, String> environment) {
  /**
   * One of the runs.
   *
   * @param name what sets it apart: the method
   * @param configuration its settings by name, in the order to be shown
   * @param metrics what was measured
   */
  public record Run(String name, Map<String, String> configuration, Metrics metrics) {}

  /** The page. */
  public String html() {
    Page page = new Page("Comparison", title, summary);
    List<Metrics> all = runs.stream().map(Run::metrics).toList();
    List<Page.Tile> tiles = new ArrayList<>();
    List<Series> losses = new ArrayList<>();
    List<Series> accuracies = new ArrayList<>();
    for (int i = 0; i < runs.size(); i++) {
      Run run = runs.get(i);
      tiles.add(
          new Page.Tile(
              Markup.percent(lastAccuracy(run.metrics())), run.name() + ", test accuracy"));
      losses.addAll(Page.loss(run.metrics(), run.name() + ", ", i, i));
      accuracies.addAll(Page.accuracy(run.metrics(), run.name() + ", ", i, i));
    }
    page.tiles(tiles);
    page.section("Learning", "Lines: training, smoothed. Dots: test data after each epoch.");
    Axis steps = Page.stepAxis(all);
    page.charts(
        List.of(
            LineChart.of("Loss", steps, Page.lossAxis(all), losses),
            LineChart.of(
                "Accuracy", steps, Axis.percent("classified correctly").range(0, 1), accuracies)));
    page.section("Results", "");
    page.table(
        List.of("Run", "Test accuracy", "Best", "Test loss", "Training loss", "Images/s", "Time"),
        6,
        runs.stream().map(ComparisonReport::row).toList());
    List<LineChart> kernel = new ArrayList<>();
    if (!cMaps.isEmpty()) {
      kernel.add(LineChart.cMaps("C map of the network", cMaps));
    }
    if (!cThroughDepth.isEmpty()) {
      kernel.add(LineChart.cThroughDepth("Similarity through depth", cThroughDepth));
    }
    if (!kernel.isEmpty()) {
      page.section(
          "Kernel",
          "How each network, at its initialisation, maps the cosine similarity c of two inputs."
              + " Where the map is flat near 1, all inputs look alike to the last layer and"
              + " learning is slow or fails.");
      page.charts(kernel);
    }
    if (!layers.isEmpty()) {
      page.section("Network", "The same in all runs.");
      page.picture(NetworkDiagram.inline(layers, 1080));
    }
    settings(page);
    return page.end("Written by JTReLU. This file needs nothing but itself.");
  }

  /** Settings that differ, a column a run; then those that all share, beside the environment. */
  private void settings(Page page) {
    Set<String> names = new LinkedHashSet<>();
    runs.forEach(run -> names.addAll(run.configuration().keySet()));
    List<List<String>> different = new ArrayList<>();
    Map<String, String> shared = new LinkedHashMap<>();
    for (String name : names) {
      List<String> values =
          runs.stream().map(run -> run.configuration().getOrDefault(name, "\u2013")).toList();
      if (values.stream().distinct().count() == 1) {
        shared.put(name, values.getFirst());
      } else {
        List<String> row = new ArrayList<>(values);
        row.addFirst(name);
        different.add(row);
      }
    }
    if (!different.isEmpty()) {
      page.section("What differs", "");
      List<String> head = new ArrayList<>(runs.stream().map(Run::name).toList());
      head.addFirst("");
      page.table(head, 0, different);
    }
    page.section("Shared settings and environment", "");
    page.facts(List.of(shared, environment));
  }

  private static double lastAccuracy(Metrics metrics) {
    return metrics.epochs().isEmpty() ? Double.NaN : metrics.epochs().getLast().testAccuracy();
  }

  private static List<String> row(Run run) {
    Metrics metrics = run.metrics();
    EpochMetric last = metrics.epochs().isEmpty() ? null : metrics.epochs().getLast();
    return List.of(
        run.name(),
        Markup.percent(lastAccuracy(metrics)),
        Markup.percent(Page.bestAccuracy(metrics)),
        Markup.fixed(last == null ? Double.NaN : last.testLoss(), 4),
        Markup.fixed(last == null ? Double.NaN : last.trainLoss(), 4),
        Markup.fixed(Page.throughput(metrics), 0),
        Markup.duration(Page.seconds(metrics)));
  }
}
