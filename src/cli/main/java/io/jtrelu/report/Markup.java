package io.jtrelu.report;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.util.Locale;

/** Text and numbers as they stand in SVG and HTML. */
final class Markup {
  private Markup() {}

  /** Text made safe for element content and for attributes in double quotes. */
  static String escape(String text) {
    StringBuilder safe = new StringBuilder(text.length() + 16);
    text.codePoints()
        .forEach(
            point -> {
              switch (point) {
                case '&' -> safe.append("&amp;");
                case '<' -> safe.append("&lt;");
                case '>' -> safe.append("&gt;");
                case '"' -> safe.append("&quot;");
                case '\'' -> safe.append("&#39;");
                default -> safe.appendCodePoint(allowed(point) ? point : 0xfffd);
              }
            });
    return safe.toString();
  }

  /** The characters that XML 1.0 allows; others make a file unreadable. */
  private static boolean allowed(int point) {
    return point == '\t'
        || point == '\n'
        || point == '\r'
        || (point >= 0x20 && point < 0xd800)
        || (point >= 0xe000 && point < 0xfffe)
        || point >= 0x10000;
  }

  /** A coordinate: one decimal is a tenth of a pixel. */
  static String px(double value) {
    String text = String.format(Locale.ROOT, "%.1f", value);
    return text.endsWith(".0") ? text.substring(0, text.length() - 2) : text;
  }

  /** A number with a fixed count of decimals, thousands set apart, and a true minus sign. */
  static String fixed(double value, int decimals) {
    if (!Double.isFinite(value)) {
      return Double.isNaN(value) ? "\u2013" : value > 0 ? "\u221e" : "\u2212\u221e";
    }
    String text = String.format(Locale.ROOT, "%,." + decimals + "f", value);
    boolean zero = text.chars().noneMatch(digit -> digit >= '1' && digit <= '9');
    return zero ? text.replace("-", "") : text.replace('-', '\u2212');
  }

  /** A number to four significant digits, without zeros at its end. */
  static String significant(double value) {
    if (!Double.isFinite(value)) {
      return fixed(value, 0);
    }
    BigDecimal rounded =
        new BigDecimal(value)
            .round(new MathContext(4, RoundingMode.HALF_EVEN))
            .stripTrailingZeros();
    double size = Math.abs(value);
    return size == 0 || (size >= 1e-4 && size < 1e6)
        ? fixed(rounded.doubleValue(), Math.max(0, rounded.scale()))
        : rounded.toString().replace('-', '\u2212');
  }

  /** A count, thousands set apart. */
  static String count(long value) {
    return String.format(Locale.ROOT, "%,d", value);
  }

  /** A fraction as percent with one decimal. */
  static String percent(double fraction) {
    return Double.isFinite(fraction) ? fixed(100 * fraction, 1) + "\u2009%" : "\u2013";
  }

  /** Seconds as 42 s, 3 min 05 s or 2 h 07 min. */
  static String duration(double seconds) {
    if (!Double.isFinite(seconds)) {
      return "\u2013";
    }
    long whole = Math.round(seconds);
    if (whole < 60) {
      return whole + " s";
    }
    return whole < 3600
        ? String.format(Locale.ROOT, "%d min %02d s", whole / 60, whole % 60)
        : String.format(Locale.ROOT, "%d h %02d min", whole / 3600, whole / 60 % 60);
  }

  /** About how wide a text is in a sans-serif font of a size. */
  static double textWidth(String text, double fontSize) {
    double em = 0;
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      em +=
          "iljtfrI.,:;|'!()[] ".indexOf(c) >= 0
              ? 0.33
              : "mwMW@%".indexOf(c) >= 0 ? 0.88 : Character.isUpperCase(c) ? 0.67 : 0.56;
    }
    return em * fontSize;
  }
}
