package io.jtrelu.benchmarks;

import io.jtrelu.benchmarks.Campaign.Measurement;
import io.jtrelu.benchmarks.Group.Curve;
import io.jtrelu.report.Axis;
import io.jtrelu.report.ChartGrid;
import io.jtrelu.report.LineChart;
import io.jtrelu.report.Series;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/**
 * How costs grow: a chart for each {@link Curve} with the cost of an image relative to this
 * library's at the least x, and beside it each peer's ratio to this library. All ratios are taken
 * within a round; what is drawn is their median.
 */
final class Curves {
  private static final String BASE = "jtrelu";

  /**
   * What more threads give.
   *
   * @param what group
   * @param contender without its number of threads
   * @param threads p
   * @param speedups over one thread, one per round
   */
  record Scaling(String what, String contender, int threads, List<Double> speedups) {
    /** The share of the work that p threads do not shorten. */
    static double serialFraction(double speedup, int threads) {
      return (threads / speedup - 1) / (threads - 1);
    }

    /** Of a table. */
    String row() {
      double[] s = speedups.stream().mapToDouble(v -> v).sorted().toArray();
      double low = s[0];
      double high = s[s.length - 1];
      double median = Campaign.median(s);
      return String.format(
          Locale.ROOT,
          "| %s | %s | %d | %.2f | %.2f to %.2f | %.1f %% | %.1f to %.1f %% |%n",
          what,
          contender,
          threads,
          median,
          low,
          high,
          100 * serialFraction(median, threads),
          100 * serialFraction(high, threads),
          100 * serialFraction(low, threads));
    }
  }

  /** One contender's costs by x, and there by round. */
  private record Costs(TreeMap<Double, Map<Integer, Double>> byX) {}

  private Curves() {}

  /** From each group along threads. */
  static List<Scaling> scalings(
      List<Group> groups, Map<Group, Map<String, List<Measurement>>> results) {
    List<Scaling> scalings = new ArrayList<>();
    for (Group group : groups) {
      if (group.curve() == null || !Double.isNaN(group.curve().x())) {
        continue;
      }
      costs(List.of(group), results, false)
          .forEach(
              (contender, costs) -> {
                Map<Integer, Double> one = costs.byX().getOrDefault(1.0, Map.of());
                costs
                    .byX()
                    .tailMap(1.0, false)
                    .forEach(
                        (threads, many) -> {
                          List<Double> speedups = ratios(one, many);
                          if (!speedups.isEmpty()) {
                            scalings.add(
                                new Scaling(
                                    group.title().replaceFirst("[^,]*, ?", ""),
                                    contender,
                                    threads.intValue(),
                                    speedups));
                          }
                        });
              });
    }
    return scalings;
  }

  /** File names and their SVG; a curve needs two points. */
  static Map<String, String> charts(
      List<Group> groups, Map<Group, Map<String, List<Measurement>>> results) {
    Map<String, List<Group>> byChart = new LinkedHashMap<>();
    for (Group group : groups) {
      if (group.curve() != null) {
        byChart.computeIfAbsent(group.curve().chart(), c -> new ArrayList<>()).add(group);
      }
    }
    Map<String, String> charts = new LinkedHashMap<>();
    byChart.forEach(
        (chart, members) -> {
          Map<String, Costs> costs = costs(members, results, true);
          if (costs.containsKey(BASE) && costs.get(BASE).byX().size() > 1) {
            String file = "scaling-" + chart.replaceAll("[^a-z0-9]+", "-") + ".svg";
            charts.put(file, chart(chart, members.getFirst().curve().axis(), costs));
          }
        });
    return charts;
  }

  /**
   * Costs of an image by contender; of a peer's variants the fastest at each x.
   *
   * @param merge whether all variants of a peer make one line
   */
  private static Map<String, Costs> costs(
      List<Group> groups, Map<Group, Map<String, List<Measurement>>> results, boolean merge) {
    Map<String, Costs> all = new LinkedHashMap<>();
    for (Group group : groups) {
      results
          .getOrDefault(group, Map.of())
          .forEach(
              (contender, measurements) -> {
                double x = group.curve().x();
                x = Double.isNaN(x) ? Group.threads(contender) : x;
                Map<Integer, Double> rounds = new LinkedHashMap<>();
                for (Measurement m : measurements) {
                  rounds.put(m.round(), m.value() / group.curve().images());
                }
                all.computeIfAbsent(
                        merge ? Group.peer(contender) : Group.name(contender),
                        c -> new Costs(new TreeMap<>()))
                    .byX()
                    .merge(x, rounds, (a, b) -> median(a) <= median(b) ? a : b);
              });
    }
    return all;
  }

  private static double median(Map<Integer, Double> rounds) {
    return Campaign.median(rounds.values().stream().mapToDouble(v -> v).toArray());
  }

  /** a / b of the rounds that have both. */
  private static List<Double> ratios(Map<Integer, Double> a, Map<Integer, Double> b) {
    List<Double> ratios = new ArrayList<>();
    a.forEach(
        (round, value) -> {
          if (b.containsKey(round)) {
            ratios.add(value / b.get(round));
          }
        });
    return ratios;
  }

  private static double median(List<Double> values) {
    return values.isEmpty()
        ? Double.NaN
        : Campaign.median(values.stream().mapToDouble(v -> v).toArray());
  }

  private static String chart(String title, String axis, Map<String, Costs> costs) {
    TreeMap<Double, Map<Integer, Double>> ours = costs.get(BASE).byX();
    List<Series> growth = new ArrayList<>();
    List<Series> ratios = new ArrayList<>();
    int colour = 0;
    for (Map.Entry<String, Costs> contender : costs.entrySet()) {
      List<Series.Point> cost = new ArrayList<>();
      List<Series.Point> ratio = new ArrayList<>();
      contender
          .getValue()
          .byX()
          .forEach(
              (x, rounds) -> {
                cost.add(new Series.Point(x, median(ratios(rounds, ours.firstEntry().getValue()))));
                ratio.add(
                    new Series.Point(x, median(ratios(rounds, ours.getOrDefault(x, Map.of())))));
              });
      growth.add(dots(contender.getKey(), cost, colour));
      if (!contender.getKey().equals(BASE)) {
        ratios.add(dots(contender.getKey(), ratio, colour));
      }
      colour++;
    }
    Axis across = Axis.log(axis);
    return new ChartGrid(
            "Training step by " + title,
            "the fastest variant of each peer at each point",
            List.of(
                LineChart.of(
                    "Cost of an image",
                    across,
                    Axis.log("time, relative to jtrelu at the left end"),
                    growth),
                LineChart.of(
                    "Ratio to jtrelu",
                    across,
                    Axis.linear("time of the peer over ours; above 1 ours is shorter")
                        .range(0, Double.NaN),
                    ratios)),
            2)
        .svg();
  }

  private static Series dots(String name, List<Series.Point> points, int colour) {
    return Series.of(name, points).with(Series.Style.DOTS).coloured(colour);
  }
}
