package io.jtrelu.report;

import io.jtrelu.report.Series.Style;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.StepMetric;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * Invented runs for the tests of reports. {@code main FOLDER} writes the pages, to be looked at in
 * a browser.
 */
final class Samples {
  static final String HOSTILE = "<script>alert(\"1\" & '2')</script>\u0000\u001b";

  private Samples() {}

  /** Curves like those of a plain network that learns, or that does not. */
  static Metrics metrics(double reached, long seed) {
    Random random = new Random(seed);
    List<StepMetric> steps = new ArrayList<>();
    List<EpochMetric> epochs = new ArrayList<>();
    int perEpoch = 156;
    for (int step = 1; step <= 4 * perEpoch; step++) {
      double progress = 1 - Math.exp(-step / 110.0);
      double accuracy = 0.1 + (reached - 0.1) * progress;
      double loss = 2.303 - 2.1 * (accuracy - 0.1);
      steps.add(
          new StepMetric(
              step,
              (step - 1) / perEpoch + 1,
              step < 60
                  ? 0.02 * (step + 1) / 61
                  : 0.01 * (1 + Math.cos(Math.PI * (step - 60) / (4.0 * perEpoch - 60))),
              Math.max(0.05, loss + 0.13 * random.nextGaussian()),
              Math.clamp(accuracy + 0.05 * random.nextGaussian(), 0, 1),
              Math.exp(0.6 - progress + 0.4 * random.nextGaussian()),
              640 + 20 * random.nextGaussian(),
              step * 0.1));
      if (step % perEpoch == 0) {
        epochs.add(
            new EpochMetric(
                step / perEpoch,
                step,
                loss,
                accuracy,
                loss + 0.05,
                accuracy - 0.01,
                641,
                step * 0.1));
      }
    }
    return new Metrics(steps, epochs);
  }

  static List<LayerRow> layers(double slope) {
    List<LayerRow> layers = new ArrayList<>();
    layers.add(new LayerRow("stem", "conv 3x3 + TReLU", 28, 28, 32, 3 * 9 * 32 + 32, slope));
    for (int i = 1; i <= 15; i++) {
      layers.add(new LayerRow("stage1." + i, "conv 3x3 + TReLU", 28, 28, 32, 9248, slope));
    }
    for (int stage = 2; stage <= 3; stage++) {
      int side = stage == 2 ? 14 : 7;
      layers.add(
          new LayerRow(
              "stage" + stage + ".0",
              "conv 3x3 / 2 + TReLU",
              side,
              side,
              64,
              stage == 2 ? 18496 : 36928,
              slope));
      for (int i = 1; i <= 15; i++) {
        layers.add(
            new LayerRow(
                "stage" + stage + "." + i, "conv 3x3 + TReLU", side, side, 64, 36928, slope));
      }
    }
    layers.add(new LayerRow("pool", "global mean-pool", 1, 1, 64, 0, Double.NaN));
    layers.add(new LayerRow("logits", "linear", 1, 1, 10, 650, Double.NaN));
    return layers;
  }

  private static double cMap(double slope, double c) {
    double k = (1 - slope) * (1 - slope) / (Math.PI * (1 + slope * slope));
    return Math.min(1, c + k * (Math.sqrt(Math.max(0, 1 - c * c)) - c * Math.acos(Math.min(1, c))));
  }

  static List<Series> cMaps() {
    return List.of(
        Series.of("shaped (TReLU)", map(0.4259, 49)),
        Series.of("unshaped (ReLU)", map(0, 49)).with(Style.DASHED));
  }

  private static List<Series.Point> map(double slope, int depth) {
    List<Series.Point> points = new ArrayList<>();
    for (int i = 0; i <= 100; i++) {
      double c = i / 100.0;
      for (int layer = 0; layer < depth; layer++) {
        c = cMap(slope, c);
      }
      points.add(new Series.Point(i / 100.0, c));
    }
    return points;
  }

  static List<Series> cThroughDepth() {
    List<Series> lines = new ArrayList<>();
    for (double slope : new double[] {0.4259, 0}) {
      for (double start : new double[] {0, 0.5, 0.9}) {
        List<Series.Point> points = new ArrayList<>();
        double c = start;
        for (int layer = 0; layer <= 49; layer++) {
          points.add(new Series.Point(layer, c));
          c = cMap(slope, c);
        }
        String name = start > 0 ? "" : slope > 0 ? "shaped (TReLU)" : "unshaped (ReLU)";
        Series line = Series.of(name, points).coloured(slope > 0 ? 0 : 1);
        lines.add(slope > 0 ? line : line.with(Style.DASHED));
      }
    }
    return lines;
  }

  static List<Series> activations() {
    double scale = Math.sqrt(2 / (1 + 0.4259 * 0.4259));
    double[] x = {-3, 0, 3};
    return List.of(
        Series.of("TReLU, slope 0.4259", x, new double[] {-3 * 0.4259 * scale, 0, 3 * scale}),
        Series.of("ReLU", x, new double[] {0, 0, 3}).with(Style.DASHED));
  }

  static Map<String, String> configuration(String method) {
    Map<String, String> configuration = new LinkedHashMap<>();
    configuration.put("Network", "plain50");
    configuration.put("Data", "fashion-mnist-10k");
    configuration.put("Method", method);
    configuration.put("\u03b7", method.equals("tat") ? "0.9" : "\u2013");
    configuration.put("Optimiser", "SGD, Nesterov momentum 0.9, clipping at norm 1");
    configuration.put("Learning rate", "0.02, warm-up 60 steps, cosine to 0");
    configuration.put("Batch", "64");
    configuration.put("Seed", "1");
    return configuration;
  }

  static Map<String, String> environment() {
    Map<String, String> environment = Environment.describe();
    environment.put("oneDNN", "3.11");
    return environment;
  }

  static TrainingReport training() {
    return new TrainingReport(
        "plain50 on Fashion-MNIST",
        "50 layers, no shortcuts, no normalisation: tailored rectifiers and orthogonal weights.",
        configuration("tat"),
        metrics(0.85, 3),
        layers(0.4259071946),
        cMaps(),
        cThroughDepth(),
        activations(),
        environment());
  }

  static ComparisonReport comparison() {
    return new ComparisonReport(
        "plain50: shaped against unshaped",
        "The same 50 layers, data, order and optimiser; only the rectifier's slope and scale differ.",
        List.of(
            new ComparisonReport.Run("tat", configuration("tat"), metrics(0.85, 3)),
            new ComparisonReport.Run("he", configuration("he"), metrics(0.1, 4))),
        layers(0.4259071946),
        cMaps(),
        cThroughDepth(),
        environment());
  }

  static BarChart bars() {
    List<BarChart.Bar> bars = new ArrayList<>();
    String[] peers = {"JTReLU", "DJL / PyTorch", "ND4J"};
    double[][] values = {{2.1, 1.0, 0.26}, {1.6, 1.0, 0.22}, {1.34, 1.0, 0.2}};
    String[] networks = {"plain50, 32 channels", "plain50, 64", "plain50, 128"};
    for (int i = 0; i < networks.length; i++) {
      for (int j = 0; j < peers.length; j++) {
        double value = values[i][j];
        bars.add(new BarChart.Bar(networks[i], peers[j], value, value * 0.95, value * 1.06));
      }
    }
    return new BarChart(
        "Training step, throughput relative to DJL", Axis.linear("ratio"), bars, 2, 720);
  }

  public static void main(String[] arguments) throws IOException {
    Path folder = Files.createDirectories(Path.of(arguments[0]));
    Files.writeString(folder.resolve("training.html"), training().html());
    Files.writeString(folder.resolve("comparison.html"), comparison().html());
    Files.writeString(folder.resolve("bars.svg"), bars().svg());
    Files.writeString(
        folder.resolve("cmaps.svg"), LineChart.cMaps("C map of plain50", cMaps()).svg());
    Files.writeString(
        folder.resolve("log.svg"),
        LineChart.of(
                "A logarithmic axis",
                Axis.log("width"),
                Axis.log("seconds"),
                List.of(
                    Series.of(
                        "n\u00b3", new double[] {64, 512, 4096}, new double[] {1e-5, 5e-3, 3}),
                    Series.of(
                            "n\u00b2",
                            new double[] {64, 512, 4096},
                            new double[] {2e-5, 1e-3, 0.08})
                        .with(Style.DOTS)))
            .svg());
  }
}
