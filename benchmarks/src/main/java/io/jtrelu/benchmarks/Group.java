package io.jtrelu.benchmarks;

import java.util.List;
import java.util.Map;

/**
 * Contenders that are measured against each other.
 *
 * @param title for people
 * @param probe how one measurement is taken
 * @param target the JMH benchmark ({@code Class.method}) or the class with a main method
 * @param parameters JMH parameters, or the arguments after the contender's name
 * @param contenders the first is this library, which ratios refer to; of the variants of one peer
 *     ({@code djl-...}) the fastest of the first round goes on
 * @param jvmArguments of every contender's process
 * @param warmup number of warm-up iterations
 * @param iterations number of measured iterations
 * @param seconds of an iteration
 * @param multiplyAdds of one operation, 0 where that means nothing
 * @param rounds at most so many
 */
public record Group(
    String title,
    Probe probe,
    String target,
    Map<String, String> parameters,
    List<String> contenders,
    List<String> jvmArguments,
    int warmup,
    int iterations,
    double seconds,
    double multiplyAdds,
    int rounds) {
  /** How one measurement is taken. */
  public enum Probe {
    /** A JMH fork; the figure is the median over its iterations, in milliseconds. */
    JMH("ms"),
    /** A process from start to end, in milliseconds. */
    PROCESS("ms"),
    /** What a process prints after "value". */
    VALUE("bytes");

    private final String unit;

    Probe(String unit) {
      this.unit = unit;
    }

    /** Unit of the figure; less is better. */
    public String unit() {
      return unit;
    }
  }

  /** The same with at most so many rounds. */
  Group withRounds(int most) {
    return new Group(
        title,
        probe,
        target,
        parameters,
        contenders,
        jvmArguments,
        warmup,
        iterations,
        seconds,
        multiplyAdds,
        Math.min(rounds, most));
  }

  /** A peer's name without its variant. */
  static String family(String contender) {
    return contender.startsWith("djl-") ? "djl" : contender;
  }
}
