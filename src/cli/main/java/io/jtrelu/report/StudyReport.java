package io.jtrelu.report;

import io.jtrelu.train.EpochMetric;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The report of a study: experiments in which networks or methods are compared over several seeds,
 * as one self-contained HTML page.
 *
 * @param experiments in the order to be shown
 * @param settings what all runs share, by name in the order to be shown
 * @param environment machine and software, likewise
 */
public record StudyReport(
    List<Experiment> experiments, Map<String, String> settings, Map<String, String> environment) {
  /**
   * One comparison.
   *
   * @param claim what it puts to the test
   */
  public record Experiment(String name, String claim, List<Entry> entries) {}

  /**
   * One of those compared.
   *
   * @param tried training loss at the end for each learning rate; infinite where it diverged
   * @param rate the one that was chosen
   * @param seeds its runs at that rate
   */
  public record Entry(String name, Map<Double, Double> tried, double rate, List<Seed> seeds) {}

  /** One run. */
  public record Seed(List<EpochMetric> epochs, boolean diverged) {
    double accuracy() {
      return diverged || epochs.isEmpty() ? Double.NaN : epochs.getLast().testAccuracy();
    }
  }

  /** Mean and standard error of fractions in percent, as in {@code 83.08 ± 0.35 %}. */
  public static String spread(List<Double> fractions) {
    if (fractions.isEmpty()) {
      return "\u2013";
    }
    double mean = mean(fractions);
    if (Double.isNaN(mean)) {
      return "diverged";
    }
    if (fractions.size() == 1) {
      return String.format(Locale.ROOT, "%.2f %%", 100 * mean);
    }
    return String.format(
        Locale.ROOT, "%.2f \u00b1 %.2f %%", 100 * mean, 100 * standardError(fractions));
  }

  private static double mean(List<Double> values) {
    return values.stream().mapToDouble(x -> x).average().orElse(Double.NaN);
  }

  /** Of the mean, from the values' own spread. */
  static double standardError(List<Double> values) {
    double mean = mean(values);
    double squares = values.stream().mapToDouble(x -> (x - mean) * (x - mean)).sum();
    return Math.sqrt(squares / (values.size() - 1) / values.size());
  }

  /** The page. */
  public String html() {
    Page page =
        new Page(
            "Study",
            "Plain networks put to the test",
            "Everyone's learning rate is the one of the same grid whose training loss was least; test"
                + " data chose nothing. \u00b1 is the standard error over seeds.");
    for (Experiment experiment : experiments) {
      page.section(title(experiment.name()), experiment.claim());
      page.table(
          List.of("", "Test accuracy", "Rate", "Training loss by rate", "Seconds"),
          4,
          experiment.entries().stream().map(StudyReport::row).toList());
      List<Series> byEpoch = new ArrayList<>();
      List<Series> bySecond = new ArrayList<>();
      for (int i = 0; i < experiment.entries().size(); i++) {
        curves(experiment.entries().get(i), i, byEpoch, bySecond);
      }
      if (!byEpoch.isEmpty()) {
        Axis accuracy = Axis.percent("test data classified correctly");
        List<LineChart> charts = new ArrayList<>();
        if (byEpoch.stream().anyMatch(line -> line.points().size() > 1)) {
          Axis epochs = Axis.linear("epochs").range(0, Double.NaN);
          charts.add(LineChart.of("By epoch", epochs, accuracy, byEpoch));
        }
        Axis seconds = Axis.linear("seconds of training").range(0, Double.NaN);
        charts.add(LineChart.of("By time", seconds, accuracy, bySecond));
        page.charts(charts);
      }
    }
    page.section("Settings and environment", "");
    page.facts(List.of(new LinkedHashMap<>(settings), environment));
    return page.end("Written by JTReLU. This file needs nothing but itself.");
  }

  private static String title(String name) {
    return name.substring(0, 1).toUpperCase(Locale.ROOT) + name.substring(1);
  }

  private static List<String> row(Entry entry) {
    List<String> tried = new ArrayList<>();
    entry
        .tried()
        .forEach(
            (rate, loss) ->
                tried.add(
                    rate
                        + ": "
                        + (Double.isFinite(loss)
                            ? String.format(Locale.ROOT, "%.3f", loss)
                            : "diverged")));
    List<Double> seconds =
        entry.seeds().stream()
            .filter(seed -> !seed.epochs().isEmpty())
            .map(seed -> seed.epochs().getLast().seconds())
            .toList();
    return List.of(
        entry.name(),
        spread(entry.seeds().stream().map(Seed::accuracy).toList()),
        Double.toString(entry.rate()),
        String.join("; ", tried),
        seconds.isEmpty() ? "\u2013" : String.format(Locale.ROOT, "%.0f", mean(seconds)));
  }

  /** The mean over seeds with a dot for each epoch, and behind it each seed's own line. */
  private static void curves(Entry entry, int colour, List<Series> byEpoch, List<Series> bySecond) {
    List<Seed> whole = entry.seeds().stream().filter(seed -> !seed.diverged()).toList();
    int epochs = whole.stream().mapToInt(seed -> seed.epochs().size()).min().orElse(0);
    if (epochs == 0) {
      return;
    }
    if (whole.size() > 1) {
      for (Seed seed : whole) {
        List<Series.Point> points = new ArrayList<>();
        List<Series.Point> timed = new ArrayList<>();
        for (EpochMetric epoch : seed.epochs()) {
          points.add(new Series.Point(epoch.epoch(), epoch.testAccuracy()));
          timed.add(new Series.Point(epoch.seconds(), epoch.testAccuracy()));
        }
        byEpoch.add(Series.of("", points).with(Series.Style.FAINT).coloured(colour));
        bySecond.add(Series.of("", timed).with(Series.Style.FAINT).coloured(colour));
      }
    }
    List<Series.Point> points = new ArrayList<>();
    List<Series.Point> timed = new ArrayList<>();
    for (int i = 0; i < epochs; i++) {
      int at = i;
      double accuracy =
          mean(whole.stream().map(seed -> seed.epochs().get(at).testAccuracy()).toList());
      double seconds = mean(whole.stream().map(seed -> seed.epochs().get(at).seconds()).toList());
      points.add(new Series.Point(whole.getFirst().epochs().get(at).epoch(), accuracy));
      timed.add(new Series.Point(seconds, accuracy));
    }
    byEpoch.add(Series.of(entry.name(), points).with(Series.Style.DOTS).coloured(colour));
    bySecond.add(Series.of(entry.name(), timed).with(Series.Style.DOTS).coloured(colour));
  }
}
