package io.jtrelu.benchmarks;

import io.jtrelu.benchmarks.Campaign.Measurement;
import io.jtrelu.report.Axis;
import io.jtrelu.report.BarChart;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Ratios of a campaign. A ratio is taken between two processes of one round; its spread is over the
 * rounds.
 */
final class Summary {
  private final List<Line> lines;
  private final List<Curves.Scaling> scalings;
  private final Map<String, String> curves;
  private final List<String> missing;

  /**
   * One contender of one group.
   *
   * @param group title
   * @param contender name
   * @param unit of values; less is better
   * @param values one per round
   * @param ratios to the group's first contender, one per round that has both
   * @param ratio their median; NaN for none
   * @param low their least
   * @param high their greatest
   * @param peak share of the sgemm peak of the same run; NaN where that means nothing
   * @param loads load average at the start of each process
   * @param failure reason, empty if there was none
   */
  record Line(
      String group,
      String contender,
      String unit,
      List<Double> values,
      List<Double> ratios,
      double ratio,
      double low,
      double high,
      double peak,
      List<Double> loads,
      String failure) {}

  private Summary(
      List<Line> lines,
      List<Curves.Scaling> scalings,
      Map<String, String> curves,
      List<String> missing) {
    this.lines = lines;
    this.scalings = scalings;
    this.curves = curves;
    this.missing = missing;
  }

  static Summary of(
      List<Group> groups,
      Map<Group, Map<String, List<Measurement>>> results,
      Map<Group, Map<String, String>> failures) {
    Map<Integer, Double> peaks = peaks(groups, results);
    List<Line> lines = new ArrayList<>();
    List<String> missing = new ArrayList<>();
    for (Group group : groups) {
      if (!results.containsKey(group) && !failures.containsKey(group)) {
        missing.add(group.title());
      }
      Map<String, List<Measurement>> measured = results.getOrDefault(group, Map.of());
      String first = group.contenders().getFirst();
      List<Measurement> base = measured.getOrDefault(first, List.of());
      for (String contender : group.contenders()) {
        List<Measurement> own = measured.getOrDefault(contender, List.of());
        List<Double> ratios = new ArrayList<>();
        for (Measurement m : own) {
          for (Measurement b : base) {
            if (b.round() == m.round() && !contender.equals(first)) {
              ratios.add(m.value() / b.value());
            }
          }
        }
        String failure = failures.getOrDefault(group, Map.of()).getOrDefault(contender, "");
        boolean picture = group.probe() == Group.Probe.PICTURE && failure.isEmpty();
        if (picture || (own.isEmpty() && failure.isEmpty())) {
          continue;
        }
        double[] sorted = ratios.stream().mapToDouble(r -> r).sorted().toArray();
        lines.add(
            new Line(
                group.title(),
                contender,
                group.probe().unit(),
                own.stream().map(Measurement::value).toList(),
                ratios,
                sorted.length == 0 ? Double.NaN : Campaign.median(sorted),
                sorted.length == 0 ? Double.NaN : sorted[0],
                sorted.length == 0 ? Double.NaN : sorted[sorted.length - 1],
                peak(group, contender, own, peaks),
                own.stream().map(Measurement::load).toList(),
                failure));
      }
    }
    return new Summary(
        lines, Curves.scalings(groups, results), Curves.charts(groups, results), missing);
  }

  /** Best multiply-adds per millisecond of sgemm, by threads. */
  private static Map<Integer, Double> peaks(
      List<Group> groups, Map<Group, Map<String, List<Measurement>>> results) {
    Map<Integer, Double> peaks = new LinkedHashMap<>();
    for (Group group : groups) {
      if (group.target().equals("SgemmPeak.multiply")) {
        results
            .getOrDefault(group, Map.of())
            .forEach(
                (contender, measurements) -> {
                  double best = Double.POSITIVE_INFINITY;
                  for (Measurement m : measurements) {
                    for (double value : m.iterations()) {
                      best = Math.min(best, value);
                    }
                  }
                  peaks.put(
                      Integer.parseInt(contender.substring("sgemm-".length())),
                      group.multiplyAdds() / best);
                });
      }
    }
    return peaks;
  }

  private static double peak(
      Group group, String contender, List<Measurement> own, Map<Integer, Double> peaks) {
    boolean oneCore = group.title().contains("on one core");
    Double peak = peaks.get(oneCore ? 1 : Group.threads(contender));
    boolean sgemm = group.target().startsWith("SgemmPeak");
    if (sgemm || peak == null || own.isEmpty() || !(group.multiplyAdds() > 0)) {
      return Double.NaN;
    }
    double[] values = own.stream().mapToDouble(Measurement::value).toArray();
    return group.multiplyAdds() / Campaign.median(values) / peak;
  }

  List<Line> lines() {
    return lines;
  }

  /** For people: ratios only; times are in results.json. */
  String markdown(Map<String, Object> environment, boolean roofline) {
    StringBuilder out = new StringBuilder();
    out.append("# Results\n\n");
    out.append("Set: ").append(environment.get("set"));
    if (environment.get("only") instanceof List<?> texts && !texts.isEmpty()) {
      out.append(", only groups named like ").append(texts);
    }
    out.append(".\n\n");
    out.append(
        "Ratios are time (or bytes) of the contender over that of the first of its group, in the"
            + " same round: above 1 the first is better. Median over the rounds, least to"
            + " greatest in brackets. \"Of peak\" is the share of the sgemm peak of the same run,"
            + " counting the multiply-adds of the direct method.\n\n");
    double load = loads();
    if (load > 1.5 * Runtime.getRuntime().availableProcessors()) {
      out.append(
          String.format(
              Locale.ROOT,
              "**Preliminary:** the machine was shared while this ran (median load average %.1f on"
                  + " %d cores). Repeat it on a quiet machine before you believe it.%n%n",
              load,
              Runtime.getRuntime().availableProcessors()));
    }
    out.append("| what | contender | ratio | spread | rounds | of peak |\n");
    out.append("|---|---|---|---|---|---|\n");
    String group = "";
    for (Line line : lines) {
      out.append("| ").append(line.group().equals(group) ? "" : line.group());
      group = line.group();
      out.append(" | ").append(line.contender()).append(" | ");
      if (!line.failure().isEmpty()) {
        out.append(line.failure().replaceAll("[|\n]", " ")).append(" | | | |\n");
        continue;
      }
      out.append(
          Double.isNaN(line.ratio()) ? "1" : String.format(Locale.ROOT, "%.2f", line.ratio()));
      out.append(" | ");
      if (!Double.isNaN(line.ratio())) {
        out.append(String.format(Locale.ROOT, "%.2f to %.2f", line.low(), line.high()));
      }
      out.append(" | ").append(line.values().size()).append(" | ");
      if (!Double.isNaN(line.peak())) {
        out.append(String.format(Locale.ROOT, "%.0f %%", 100 * line.peak()));
      }
      out.append(" |\n");
    }
    if (!scalings.isEmpty()) {
      out.append(
          "\n## Threads\n\nThe serial fraction is (p / speedup - 1) / (p - 1) on p threads: Amdahl's"
              + " law solved for it (A. Karp, H. Flatt, 1990). What the threads share, as cache,"
              + " bandwidth and clock, counts as serial.\n\n"
              + "| what | contender | threads | speedup | spread | serial fraction | spread |\n"
              + "|---|---|---|---|---|---|---|\n");
      scalings.forEach(scaling -> out.append(scaling.row()));
    }
    if (!missing.isEmpty()) {
      out.append("\n## No time left for\n\n");
      missing.forEach(title -> out.append("- ").append(title).append('\n'));
    }
    out.append("\n## Pictures\n\n");
    charts().keySet().forEach(file -> out.append("![](").append(file).append(")\n\n"));
    if (roofline) {
      out.append("![roofline](roofline.svg)\n\n[Its figures](roofline.md)\n\n");
    }
    out.append("GPU benchmarks: ")
        .append(environment.get("gpuBenchmarks"))
        .append(".\n\n## Environment\n\n");
    environment.forEach(
        (key, value) -> out.append("- ").append(key).append(": ").append(value).append('\n'));
    return out.toString();
  }

  private double loads() {
    double[] loads =
        lines.stream().flatMap(line -> line.loads().stream()).mapToDouble(l -> l).toArray();
    return loads.length == 0 ? 0 : Campaign.median(loads);
  }

  /** File names and their SVG. */
  Map<String, String> charts() {
    Map<String, List<Line>> kinds = new LinkedHashMap<>();
    for (Line line : lines) {
      if (!Double.isNaN(line.ratio()) && !line.group().startsWith("sgemm")) {
        String kind = line.group().replaceFirst(",.*", "").replace(' ', '-');
        kinds.computeIfAbsent(kind, k -> new ArrayList<>()).add(line);
      }
    }
    Map<String, String> charts = new LinkedHashMap<>();
    kinds.forEach((kind, bars) -> charts.put(kind + ".svg", chart(kind, bars)));
    charts.putAll(curves);
    return charts;
  }

  private static String chart(String kind, List<Line> lines) {
    List<BarChart.Bar> bars = new ArrayList<>();
    for (Line line : lines) {
      bars.add(
          new BarChart.Bar(
              line.group().replaceFirst("[^,]*, ?", ""),
              line.contender(),
              line.ratio(),
              line.low(),
              line.high()));
    }
    return new BarChart(
            kind.replace('-', ' ') + ": contender / first of its group",
            Axis.linear("ratio; above 1 the first is better"),
            bars,
            1,
            900)
        .svg();
  }
}
