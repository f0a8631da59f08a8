package io.jtrelu.benchmarks;

import java.util.List;
import java.util.Map;

/**
 * Contenders that are measured against each other.
 *
 * @param title for people
 * @param probe how one measurement is taken
 * @param target the JMH benchmark ({@code Class.method}), the class with a main method, or the name
 *     of the work on a GPU
 * @param parameters JMH parameters, or the arguments after the contender's name
 * @param contenders the first is this library, which ratios refer to; {@code @2} after a name sets
 *     the number of threads (default: all cores); of the variants of one peer ({@code djl-...}) the
 *     fastest of the first round goes on
 * @param warmup number of warm-up iterations
 * @param iterations number of measured iterations
 * @param seconds of an iteration
 * @param multiplyAdds of one operation, 0 where that means nothing
 * @param rounds at most so many
 * @param curve where it stands in a chart of costs; null for nowhere
 */
public record Group(
    String title,
    Probe probe,
    String target,
    Map<String, String> parameters,
    List<String> contenders,
    int warmup,
    int iterations,
    double seconds,
    double multiplyAdds,
    int rounds,
    Curve curve) {
  /** How one measurement is taken. */
  public enum Probe {
    /** A JMH fork; the figure is the median over its iterations, in milliseconds. */
    JMH("ms"),
    /** A process from start to end, in milliseconds. */
    PROCESS("ms"),
    /** What a process prints after "value". */
    VALUE("bytes"),
    /** A process that writes a picture into the results' folder; the figure means nothing. */
    PICTURE("ms"),
    /** A process for the GPU that reads its work as JSON and answers in JSON: {@link GpuWork}. */
    GPU("ms or bytes");

    private final String unit;

    Probe(String unit) {
      this.unit = unit;
    }

    /** Unit of the figure; less is better. */
    public String unit() {
      return unit;
    }
  }

  /**
   * A point of a chart of costs.
   *
   * @param chart groups of one name make one chart
   * @param axis what x is
   * @param x NaN for each contender's number of threads
   * @param images in one operation: costs are per image
   */
  public record Curve(String chart, String axis, double x, int images) {}

  /** The same with at most so many rounds. */
  Group withRounds(int most) {
    return new Group(
        title,
        probe,
        target,
        parameters,
        contenders,
        warmup,
        iterations,
        seconds,
        multiplyAdds,
        Math.min(rounds, most),
        curve);
  }

  /** Whether it needs a GPU. */
  boolean needsGpu() {
    return probe == Probe.GPU || target.startsWith("CallOnGpu");
  }

  /** A contender's name without its number of threads. */
  static String name(String contender) {
    return contender.replaceFirst("@.*", "");
  }

  /** A contender's number of threads. */
  static int threads(String contender) {
    int at = contender.indexOf('@');
    return at < 0
        ? Runtime.getRuntime().availableProcessors()
        : Integer.parseInt(contender.substring(at + 1));
  }

  /** Who a contender is without its variant: djl, dl4j or pytorch; its name for all others. */
  static String peer(String contender) {
    for (String peer : List.of("djl", "nd4j", "pytorch")) {
      if (contender.startsWith(peer + "-")) {
        return peer;
      }
    }
    return name(contender);
  }

  /** Those of one family are variants, of which the fastest goes on. */
  static String family(String contender) {
    return peer(contender) + "@" + threads(contender);
  }
}
