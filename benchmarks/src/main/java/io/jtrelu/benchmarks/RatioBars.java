package io.jtrelu.benchmarks;

import io.jtrelu.benchmarks.Summary.Line;
import java.util.List;
import java.util.Locale;

/** Horizontal bars of ratios with their spread, as SVG; a line marks 1. */
final class RatioBars {
  private static final int LEFT = 330;
  private static final int WIDTH = 820;
  private static final int ROW = 24;
  private static final int TOP = 48;

  private RatioBars() {}

  static String svg(String kind, List<Line> lines) {
    double greatest = 1.2;
    for (Line line : lines) {
      greatest = Math.max(greatest, line.high());
    }
    double unit = (WIDTH - LEFT - 70) / greatest;
    int height = TOP + ROW * lines.size() + 30;
    StringBuilder out = new StringBuilder();
    out.append(
        String.format(
            Locale.ROOT,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\""
                + " font-size=\"12\">%n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>%n"
                + "<text x=\"16\" y=\"26\" font-size=\"15\" font-weight=\"600\">%s: peer / JTReLU</text>%n",
            WIDTH,
            height,
            escape(kind.replace('-', ' '))));
    int y = TOP;
    for (Line line : lines) {
      String label = line.group().replaceFirst("[^,]*, ?", "") + "  " + line.contender();
      double middle = y + ROW / 2.0 - 2;
      out.append(
          String.format(
              Locale.ROOT,
              "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>%n"
                  + "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"/>%n"
                  + "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#222\" stroke-width=\"1.3\"/>%n"
                  + "<text x=\"%.1f\" y=\"%.1f\">%.2f</text>%n",
              LEFT - 8,
              middle + 4,
              escape(label),
              LEFT,
              y + 2,
              line.ratio() * unit,
              ROW - 8,
              line.ratio() >= 1 ? "#3b7dd8" : "#d9822b",
              LEFT + line.low() * unit,
              middle,
              LEFT + line.high() * unit,
              LEFT + line.high() * unit + 6,
              middle + 4,
              line.ratio()));
      y += ROW;
    }
    out.append(
        String.format(
            Locale.ROOT,
            "<path d=\"M%.1f %dV%d\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>%n"
                + "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#666\">1</text>%n</svg>%n",
            LEFT + unit,
            TOP - 6,
            y,
            LEFT + unit,
            y + 16));
    return out.toString();
  }

  private static String escape(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;");
  }
}
