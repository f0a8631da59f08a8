package io.jtrelu.report;

import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.StepMetric;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/** Builds a self-contained HTML page in the house style; text is escaped here. */
final class Page {
  private static final String STYLE =
      """
      :root{color-scheme:light dark;--ink:#1c2430;--muted:#5b6675;--line:#e3e7ec;--ground:#f5f6f8;\
      --card:#ffffff;--accent:#0072b2}
      @media screen and (prefers-color-scheme:dark){:root{--ink:#e8edf3;--muted:#9fabb9;\
      --line:#2a323c;--ground:#0e1217;--card:#151a21;--accent:#5ab4f0}}
      *{box-sizing:border-box}
      body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 FONT}
      main{max-width:1120px;margin:0 auto;padding:44px 20px 64px}
      header{margin-bottom:26px}
      .kicker{color:var(--accent);font-weight:650;font-size:13px;letter-spacing:.08em;\
      text-transform:uppercase}
      h1{font-size:34px;line-height:1.2;letter-spacing:-.02em;font-weight:680;margin:4px 0 8px}
      h2{font-size:21px;letter-spacing:-.01em;font-weight:650;margin:44px 0 6px}
      p{margin:0 0 14px;max-width:46em;color:var(--muted)}
      header p{font-size:17px}
      .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px}
      .tile,.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
      .tile{padding:14px 16px 12px}
      .tile b{display:block;font-size:24px;line-height:1.25;font-weight:650;\
      letter-spacing:-.02em;font-variant-numeric:tabular-nums;white-space:nowrap}
      .tile span{color:var(--muted);font-size:13px}
      .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));\
      gap:14px}
      .card{overflow:hidden}
      .card svg{display:block;width:100%;height:auto}
      .card+.card{margin-top:14px}.charts .card+.card{margin-top:0}
      .scroll{overflow-x:auto}
      table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
      th{font-weight:600;color:var(--muted);font-size:12.5px;text-align:left;white-space:nowrap}
      th,td{padding:8px 16px;border-bottom:1px solid var(--line);vertical-align:top}
      tr:last-child td{border-bottom:0}
      td.n,th.n{text-align:right;white-space:nowrap}
      td.k{color:var(--muted);width:38%}
      td.v{overflow-wrap:anywhere}
      td.times{font-weight:650;color:var(--accent);white-space:nowrap}
      td.hit{font-weight:650;color:var(--accent)}
      img.sample{width:100%;max-width:128px;image-rendering:pixelated;display:block;\
      border-radius:6px;margin-bottom:8px}
      .tile .name{color:var(--ink);font-weight:600}
      tr.same td{border-bottom-color:transparent}
      footer{margin-top:48px;color:var(--muted);font-size:13px}
      @media print{body{background:#fff;font-size:12px}main{max-width:none;padding:0}\
      .card,.tile,tr{break-inside:avoid}h2,h2+p{break-after:avoid}\
      .charts{grid-template-columns:1fr 1fr}table{font-size:11.5px}th{font-size:11px}\
      th,td{padding:4px 9px}.scroll{overflow:visible;break-inside:auto}\
      .tiles{grid-template-columns:repeat(auto-fit,minmax(104px,1fr))}\
      .tile{padding:8px 10px}.tile b{font-size:16px}.tile span{font-size:11px}h2{margin-top:28px}\
      *{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
      """
          .replace("FONT", Palette.FONT);

  private final StringBuilder html = new StringBuilder(1 << 16);

  Page(String kicker, String title, String summary) {
    html.append("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>")
        .append("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>")
        .append("<title>")
        .append(Markup.escape(title))
        .append("</title>\n<style>")
        .append(STYLE)
        .append(Palette.darkStyle())
        .append("</style></head>\n<body><main><header><div class=\"kicker\">")
        .append(Markup.escape(kicker))
        .append("</div><h1>")
        .append(Markup.escape(title))
        .append("</h1>");
    if (!summary.isEmpty()) {
      html.append("<p>").append(Markup.escape(summary)).append("</p>");
    }
    html.append("</header>\n");
  }

  /** Begins a section; the explanation may be empty. */
  Page section(String title, String explanation) {
    html.append("<h2>").append(Markup.escape(title)).append("</h2>");
    if (!explanation.isEmpty()) {
      html.append("<p>").append(Markup.escape(explanation)).append("</p>");
    }
    html.append('\n');
    return this;
  }

  /** A figure and what it is. */
  record Tile(String figure, String meaning) {}

  Page tiles(List<Tile> tiles) {
    html.append("<div class=\"tiles\">");
    for (Tile tile : tiles) {
      html.append("<div class=\"tile\"><b>")
          .append(Markup.escape(tile.figure()))
          .append("</b><span>")
          .append(Markup.escape(tile.meaning()))
          .append("</span></div>");
    }
    html.append("</div>\n");
    return this;
  }

  /** Charts side by side where there is room. */
  Page charts(List<LineChart> charts) {
    html.append("<div class=\"charts\">");
    for (LineChart chart : charts) {
      html.append("<div class=\"card\">").append(chart.inline()).append("</div>");
    }
    html.append("</div>\n");
    return this;
  }

  /** A picture of the page's whole width. */
  Page picture(String svg) {
    html.append("<div class=\"card\">").append(svg).append("</div>\n");
    return this;
  }

  /**
   * A table.
   *
   * @param head titles of the columns
   * @param numeric how many columns at the right hold numbers
   */
  Page table(List<String> head, int numeric, List<List<String>> rows) {
    html.append("<div class=\"card scroll\"><table><thead><tr>");
    for (int i = 0; i < head.size(); i++) {
      html.append(i >= head.size() - numeric ? "<th class=\"n\">" : "<th>")
          .append(Markup.escape(head.get(i)))
          .append("</th>");
    }
    html.append("</tr></thead><tbody>");
    for (List<String> row : rows) {
      html.append("<tr>");
      for (int i = 0; i < row.size(); i++) {
        html.append(i >= row.size() - numeric ? "<td class=\"n\">" : "<td>")
            .append(Markup.escape(row.get(i)))
            .append("</td>");
      }
      html.append("</tr>");
    }
    html.append("</tbody></table></div>\n");
    return this;
  }

  /**
   * A picture and what there is to say of it.
   *
   * @param png the picture as a PNG file
   */
  @SuppressWarnings("ArrayRecordComponent") // written out, never compared
  record Picture(byte[] png, String title, String text) {}

  /** Pictures side by side, small ones enlarged without smoothing. */
  Page pictures(List<Picture> pictures) {
    html.append("<div class=\"tiles\">");
    for (Picture picture : pictures) {
      html.append("<div class=\"tile\"><img class=\"sample\" alt=\"\" src=\"data:image/png;base64,")
          .append(Base64.getEncoder().encodeToString(picture.png()))
          .append("\"/><span class=\"name\">")
          .append(Markup.escape(picture.title()))
          .append("</span><br/><span>")
          .append(Markup.escape(picture.text()))
          .append("</span></div>");
    }
    html.append("</div>\n");
    return this;
  }

  /** A square table of counts: rows and columns have the same names, the diagonal stands out. */
  Page matrix(String corner, List<String> names, List<List<Integer>> counts) {
    html.append("<div class=\"card scroll\"><table><thead><tr><th>")
        .append(Markup.escape(corner))
        .append("</th>");
    for (String name : names) {
      html.append("<th class=\"n\">").append(Markup.escape(name)).append("</th>");
    }
    html.append("</tr></thead><tbody>");
    for (int i = 0; i < names.size(); i++) {
      html.append("<tr><th>").append(Markup.escape(names.get(i))).append("</th>");
      for (int j = 0; j < names.size(); j++) {
        int count = counts.get(i).get(j);
        html.append(i == j ? "<td class=\"n hit\">" : "<td class=\"n\">")
            .append(count == 0 ? "\u2013" : Markup.count(count))
            .append("</td>");
      }
      html.append("</tr>");
    }
    html.append("</tbody></table></div>\n");
    return this;
  }

  /** Facts by name, in as many tables side by side as are given. */
  Page facts(List<Map<String, String>> tables) {
    html.append("<div class=\"charts\">");
    for (Map<String, String> facts : tables) {
      html.append("<div class=\"card\"><table><tbody>");
      facts.forEach(
          (name, value) ->
              html.append("<tr><td class=\"k\">")
                  .append(Markup.escape(name))
                  .append("</td><td class=\"v\">")
                  .append(Markup.escape(value))
                  .append("</td></tr>"));
      html.append("</tbody></table></div>");
    }
    html.append("</div>\n");
    return this;
  }

  /** The layers of a network, runs of alike blocks folded into one. */
  Page layers(List<LayerRow> layers) {
    html.append("<div class=\"card scroll\"><table><thead><tr><th>Layer</th><th></th>")
        .append("<th>Operation</th><th class=\"n\">Output</th><th class=\"n\">Parameters</th>")
        .append("<th class=\"n\">Negative slope</th></tr></thead><tbody>");
    for (FoldedLayers.Fold fold : FoldedLayers.of(layers)) {
      for (int i = 0; i < fold.block().size(); i++) {
        LayerRow layer = fold.block().get(i);
        boolean last = i == fold.block().size() - 1;
        boolean chain = fold.block().size() == 1 && fold.times() > 1;
        html.append(last ? "<tr>" : "<tr class=\"same\">")
            .append("<td>")
            .append(Markup.escape(layer.name()))
            .append(chain ? " \u2026 " + Markup.escape(fold.lastName()) : "")
            .append("</td><td class=\"times\">")
            .append(i == 0 && fold.times() > 1 ? "\u00d7\u2009" + fold.times() : "")
            .append("</td><td>")
            .append(Markup.escape(layer.operation()))
            .append("</td><td class=\"n\">")
            .append(Markup.escape(layer.output()))
            .append("</td><td class=\"n\">")
            .append(layer.parameters() == 0 ? "\u2013" : Markup.count(layer.parameters()))
            .append("</td><td class=\"n\">")
            .append(Markup.fixed(layer.negativeSlope(), 4))
            .append("</td></tr>");
      }
    }
    html.append("</tbody></table></div>\n");
    return this;
  }

  String end(String closing) {
    return html.append("<footer>")
        .append(Markup.escape(closing))
        .append("</footer></main></body></html>\n")
        .toString();
  }

  /** The loss at each step and smoothed, and on the test data, in one colour each. */
  static List<Series> loss(Metrics metrics, String prefix, int colour, int testColour) {
    Series steps =
        Series.of(
            "",
            metrics.steps().stream()
                .map(step -> new Series.Point(step.step(), step.loss()))
                .toList());
    return List.of(
        steps.with(Series.Style.FAINT).coloured(colour),
        steps.smoothed(decay(metrics)).named(prefix + "training").coloured(colour),
        epochs(metrics, prefix + "test", EpochMetric::testLoss).coloured(testColour));
  }

  /** Accuracy smoothed over steps, and on the test data, in one colour each. */
  static List<Series> accuracy(Metrics metrics, String prefix, int colour, int testColour) {
    Series steps =
        Series.of(
            prefix + "training",
            metrics.steps().stream()
                .map(step -> new Series.Point(step.step(), step.accuracy()))
                .toList());
    return List.of(
        steps.smoothed(decay(metrics)).coloured(colour),
        epochs(metrics, prefix + "test", EpochMetric::testAccuracy).coloured(testColour));
  }

  /** One of the values of each step. */
  static Series steps(
      Metrics metrics, String name, java.util.function.ToDoubleFunction<StepMetric> value) {
    return Series.of(
        name,
        metrics.steps().stream()
            .map(step -> new Series.Point(step.step(), value.applyAsDouble(step)))
            .toList());
  }

  private static Series epochs(
      Metrics metrics, String name, java.util.function.ToDoubleFunction<EpochMetric> value) {
    return Series.of(
            name,
            metrics.epochs().stream()
                .map(epoch -> new Series.Point(epoch.step(), value.applyAsDouble(epoch)))
                .toList())
        .with(Series.Style.DOTS);
  }

  /** Averages over about a fiftieth of the run. */
  static double decay(Metrics metrics) {
    return 1 - 1 / Math.max(1.0, metrics.steps().size() / 50.0);
  }

  /** Steps, from 0 to the last that any of the runs took. */
  static Axis stepAxis(List<Metrics> runs) {
    long last = 0;
    for (Metrics metrics : runs) {
      last = Math.max(last, metrics.steps().isEmpty() ? 0 : metrics.steps().getLast().step());
      last = Math.max(last, metrics.epochs().isEmpty() ? 0 : metrics.epochs().getLast().step());
    }
    return Axis.linear("step").range(0, last == 0 ? 1 : (double) last);
  }

  /** A logarithmic axis where the losses span more than a factor of 30. */
  static Axis lossAxis(List<Metrics> runs) {
    List<Double> losses = new ArrayList<>();
    for (Metrics metrics : runs) {
      metrics.steps().forEach(step -> losses.add(step.loss()));
    }
    losses.removeIf(loss -> !(loss > 0 && loss < Double.POSITIVE_INFINITY));
    double least = losses.stream().mapToDouble(Double::doubleValue).min().orElse(1);
    double greatest = losses.stream().mapToDouble(Double::doubleValue).max().orElse(1);
    return greatest > 30 * least
        ? Axis.log("cross-entropy")
        : Axis.linear("cross-entropy").range(0, Double.NaN);
  }

  static double bestAccuracy(Metrics metrics) {
    return metrics.epochs().stream()
        .mapToDouble(EpochMetric::testAccuracy)
        .filter(accuracy -> !Double.isNaN(accuracy))
        .max()
        .orElse(Double.NaN);
  }

  /** Images per second over the run: the median of the epochs, else of the steps. */
  static double throughput(Metrics metrics) {
    double[] rates =
        metrics.epochs().isEmpty()
            ? metrics.steps().stream().mapToDouble(StepMetric::imagesPerSecond).sorted().toArray()
            : metrics.epochs().stream()
                .mapToDouble(EpochMetric::imagesPerSecond)
                .sorted()
                .toArray();
    return rates.length == 0 ? Double.NaN : rates[rates.length / 2];
  }

  static double seconds(Metrics metrics) {
    double seconds = Double.NaN;
    if (!metrics.steps().isEmpty()) {
      seconds = metrics.steps().getLast().seconds();
    }
    return metrics.epochs().isEmpty()
        ? seconds
        : Math.max(Double.isNaN(seconds) ? 0 : seconds, metrics.epochs().getLast().seconds());
  }
}
