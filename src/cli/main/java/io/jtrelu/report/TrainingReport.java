package io.jtrelu.report;

import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.StepMetric;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The report of a training run: a self-contained HTML page. Parts whose input is empty are left
 * out.
 *
 * @param title what was trained on what
 * @param summary a sentence below the title; may be empty
 * @param configuration the run's settings by name in the order to be shown, the seed among them
 * @param metrics what was measured
 * @param layers the network's layers, first to last
 * @param cMaps the network's C map, shaped and unshaped: see {@link LineChart#cMaps}
 * @param cThroughDepth c after each activation: see {@link LineChart#cThroughDepth}
 * @param activations the activation before and after shaping: see {@link LineChart#activations}
 * @param environment machine and software by name in the order to be shown: {@link
 *     Environment#describe} and the versions of libraries
 */
public record TrainingReport(
    String title,
    String summary,
    Map<String, String> configuration,
    Metrics metrics,
    List<LayerRow> layers,
    List<Series> cMaps,
    List<Series> cThroughDepth,
    List<Series> activations,
    Map<String, String> environment) {
  /** The page. */
  public String html() {
    Page page = new Page("Training report", title, summary);
    page.tiles(tiles());
    if (!metrics.steps().isEmpty() || !metrics.epochs().isEmpty()) {
      page.section("Learning", "");
      Axis steps = Page.stepAxis(List.of(metrics));
      List<LineChart> charts = new ArrayList<>();
      charts.add(
          LineChart.of(
              "Loss", steps, Page.lossAxis(List.of(metrics)), Page.loss(metrics, "", 0, 1)));
      charts.add(
          LineChart.of(
              "Accuracy",
              steps,
              Axis.percent("classified correctly").range(0, 1),
              Page.accuracy(metrics, "", 0, 1)));
      if (!metrics.steps().isEmpty()) {
        charts.add(
            LineChart.of(
                    "Learning rate",
                    steps,
                    Axis.linear("rate").range(0, Double.NaN),
                    List.of(Page.steps(metrics, "", StepMetric::learningRate)))
                .sized(560, 250));
        Series norm = Page.steps(metrics, "", StepMetric::gradientNorm);
        charts.add(
            LineChart.of(
                    "Gradient norm",
                    steps,
                    Axis.log("before clipping"),
                    List.of(
                        norm.with(Series.Style.FAINT).coloured(0),
                        norm.smoothed(Page.decay(metrics)).coloured(0)))
                .sized(560, 250));
      }
      page.charts(charts);
    }
    if (!metrics.epochs().isEmpty()) {
      page.section("Epochs", "");
      page.table(
          List.of(
              "Epoch",
              "Training loss",
              "Training accuracy",
              "Test loss",
              "Test accuracy",
              "Images/s",
              "Time"),
          7,
          metrics.epochs().stream().map(TrainingReport::row).toList());
    }
    if (!layers.isEmpty()) {
      page.section(
          "Network",
          "Each bar is a layer: as high as its images are large, darker with more channels."
              + " Alike layers in a row are folded in the table.");
      page.picture(NetworkDiagram.inline(layers, 1080));
      page.layers(layers);
    }
    kernel(page);
    page.section("Settings and environment", "");
    page.facts(List.of(configuration, environment));
    return page.end("Written by JTReLU. This file needs nothing but itself.");
  }

  private void kernel(Page page) {
    List<LineChart> charts = new ArrayList<>();
    if (!cMaps.isEmpty()) {
      charts.add(LineChart.cMaps("C map of the network", cMaps));
    }
    if (!cThroughDepth.isEmpty()) {
      charts.add(LineChart.cThroughDepth("Similarity through depth", cThroughDepth));
    }
    if (!activations.isEmpty()) {
      charts.add(LineChart.activations("Activation", activations));
    }
    if (!charts.isEmpty()) {
      page.section(
          "Kernel",
          "How the network, at its initialisation, maps the cosine similarity c of two inputs."
              + " Where the map is flat near 1, all inputs look alike to the last layer and"
              + " learning is slow or fails; shaping keeps it apart.");
      page.charts(charts);
    }
  }

  private List<Page.Tile> tiles() {
    List<Page.Tile> tiles = new ArrayList<>();
    if (!metrics.epochs().isEmpty()) {
      tiles.add(
          new Page.Tile(
              Markup.percent(metrics.epochs().getLast().testAccuracy()), "test accuracy"));
      if (metrics.epochs().size() > 1) {
        tiles.add(new Page.Tile(Markup.percent(Page.bestAccuracy(metrics)), "best test accuracy"));
      }
    }
    tiles.add(new Page.Tile(Markup.duration(Page.seconds(metrics)), "training time"));
    tiles.add(new Page.Tile(Markup.fixed(Page.throughput(metrics), 0), "images per second"));
    if (!layers.isEmpty()) {
      long weighted = layers.stream().filter(layer -> layer.parameters() > 0).count();
      tiles.add(new Page.Tile(Long.toString(weighted), "layers with weights"));
      tiles.add(
          new Page.Tile(
              Markup.count(layers.stream().mapToLong(LayerRow::parameters).sum()), "parameters"));
    }
    return tiles;
  }

  private static List<String> row(EpochMetric epoch) {
    return List.of(
        Integer.toString(epoch.epoch()),
        Markup.fixed(epoch.trainLoss(), 4),
        Markup.percent(epoch.trainAccuracy()),
        Markup.fixed(epoch.testLoss(), 4),
        Markup.percent(epoch.testAccuracy()),
        Markup.fixed(epoch.imagesPerSecond(), 0),
        Markup.duration(epoch.seconds()));
  }
}
