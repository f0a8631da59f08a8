package io.jtrelu.report;

import java.util.ArrayList;
import java.util.List;

/**
 * An axis of a chart.
 *
 * @param label what it shows, with its unit
 * @param scale how values become positions and labels
 * @param min first value shown; NaN to take it from the data
 * @param max last value shown; NaN to take it from the data
 */
public record Axis(String label, Scale scale, double min, double max) {
  /** How values become positions and labels. */
  public enum Scale {
    /** Equal steps, plain numbers. */
    LINEAR,
    /** Equal steps; values are fractions shown as percent. */
    PERCENT,
    /** Equal ratios; values of 0 or less are not drawn. */
    LOG
  }

  /** A value that is marked, and its label. */
  record Tick(double value, String label) {}

  /** An axis of equal steps over the data. */
  public static Axis linear(String label) {
    return new Axis(label, Scale.LINEAR, Double.NaN, Double.NaN);
  }

  /** An axis of fractions shown as percent, over the data. */
  public static Axis percent(String label) {
    return new Axis(label, Scale.PERCENT, Double.NaN, Double.NaN);
  }

  /** A logarithmic axis over the data. */
  public static Axis log(String label) {
    return new Axis(label, Scale.LOG, Double.NaN, Double.NaN);
  }

  /** The same with fixed ends; NaN leaves an end to the data. */
  public Axis range(double newMin, double newMax) {
    return new Axis(label, scale, newMin, newMax);
  }

  /** The ends that are shown: those given, else the data's, widened to ticks. */
  Axis fitted(double dataMin, double dataMax) {
    double low = Double.isNaN(min) ? dataMin : min;
    double high = Double.isNaN(max) ? dataMax : max;
    if (!(low <= high)) { // no data
      low = scale == Scale.LOG ? 0.1 : 0;
      high = 1;
    }
    if (scale == Scale.LOG) {
      low = low > 0 ? low : high > 0 ? high / 10 : 0.1;
      high = Math.max(high, low);
      return range(
          Double.isNaN(min) ? logFloor(low, low == high) : low,
          Double.isNaN(max) ? logCeiling(high, low == high) : high);
    }
    if (low == high) {
      double room = low == 0 ? 1 : Math.abs(low) * 0.1;
      low -= Double.isNaN(min) ? room : 0;
      high += room;
    }
    double step = niceStep((high - low) / 5);
    return range(
        Double.isNaN(min) ? Math.floor(low / step + 1e-9) * step : low,
        Double.isNaN(max) ? Math.ceil(high / step - 1e-9) * step : high);
  }

  private static double logFloor(double value, boolean widen) {
    double power = Math.pow(10, Math.floor(Math.log10(value) + 1e-9));
    double digit = value / power;
    return power * (widen ? 0.5 : digit >= 5 ? 5 : digit >= 2 ? 2 : 1);
  }

  private static double logCeiling(double value, boolean widen) {
    double power = Math.pow(10, Math.floor(Math.log10(value) - 1e-9));
    double digit = value / power;
    return power * (widen ? 20 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  }

  /** The least of 1, 2, 2.5, 5 times a power of ten that is at least the given step. */
  static double niceStep(double step) {
    double power = Math.pow(10, Math.floor(Math.log10(step)));
    for (double factor : new double[] {1, 2, 2.5, 5}) {
      if (factor * power >= step * (1 - 1e-9)) {
        return factor * power;
      }
    }
    return 10 * power;
  }

  /** Where a value lies between the ends, from 0 to 1; not finite if it cannot be shown. */
  double position(double value) {
    if (scale == Scale.LOG) {
      return value > 0
          ? (Math.log(value) - Math.log(min)) / (Math.log(max) - Math.log(min))
          : Double.NaN;
    }
    return (value - min) / (max - min);
  }

  /** Ticks between the ends of a fitted axis. */
  List<Tick> ticks(int atMost) {
    List<Tick> ticks = new ArrayList<>();
    if (scale == Scale.LOG) {
      int first = (int) Math.floor(Math.log10(min) + 1e-9);
      int last = (int) Math.ceil(Math.log10(max) - 1e-9);
      int every = Math.max(1, (last - first + atMost - 1) / atMost);
      int[] digits = last - first <= 2 ? new int[] {1, 2, 5} : new int[] {1};
      for (int exponent = first; exponent <= last; exponent += every) {
        for (int digit : digits) {
          double value = digit * Math.pow(10, exponent);
          if (value >= min * (1 - 1e-9) && value <= max * (1 + 1e-9)) {
            ticks.add(new Tick(value, logLabel(digit, exponent, first >= -3 && last <= 5)));
          }
        }
      }
      return ticks;
    }
    double factor = scale == Scale.PERCENT ? 100 : 1;
    double step = niceStep((max - min) / atMost);
    int decimals = decimals(step * factor);
    for (long k = (long) Math.ceil(min / step - 1e-9); k * step <= max + step * 1e-9; k++) {
      ticks.add(
          new Tick(
              k * step,
              Markup.fixed(k * step * factor, decimals)
                  + (scale == Scale.PERCENT ? "\u2009%" : "")));
    }
    return ticks;
  }

  private static String logLabel(int digit, int exponent, boolean plain) {
    if (plain) {
      return Markup.fixed(digit * Math.pow(10, exponent), Math.max(0, -exponent));
    }
    String power = "10" + superscript(exponent);
    return digit == 1 ? power : digit + "\u00b7" + power;
  }

  private static String superscript(int exponent) {
    StringBuilder text = new StringBuilder();
    for (char c : Integer.toString(exponent).toCharArray()) {
      text.append(
          c == '-'
              ? '\u207b'
              : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079".charAt(c - '0'));
    }
    return text.toString();
  }

  /** The fewest decimals that show a step exactly. */
  private static int decimals(double step) {
    for (int decimals = 0; decimals < 12; decimals++) {
      double scaled = step * Math.pow(10, decimals);
      if (Math.abs(scaled - Math.rint(scaled)) < 1e-6 * scaled) {
        return decimals;
      }
    }
    return 12;
  }

  /** A value of this axis in words, for the label that appears when one points at a dot. */
  String describe(double value) {
    if (scale == Scale.PERCENT) {
      return Markup.percent(value);
    }
    if (value == Math.rint(value) && Math.abs(value) < 1e15) {
      return Markup.fixed(value, 0);
    }
    return Markup.significant(value);
  }
}
