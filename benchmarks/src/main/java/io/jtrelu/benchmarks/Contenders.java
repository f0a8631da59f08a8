package io.jtrelu.benchmarks;

import io.jtrelu.benchmarks.peers.DjlContender;
import io.jtrelu.tensor.DataType;
import java.util.Locale;

/** Opens contenders by name. */
public final class Contenders {
  private Contenders() {}

  /**
   * Opens one.
   *
   * @param name {@code jtrelu}, {@code jtrelu-bf16}, {@code djl-nchw-plain}, {@code
   *     djl-nhwc-folded} and so on
   */
  public static Contender open(String name, Workload workload) {
    String[] parts = name.toUpperCase(Locale.ROOT).split("-");
    return switch (parts[0]) {
      case "JTRELU" ->
          new JtreluContender(
              workload, parts.length > 1 ? DataType.valueOf(parts[1]) : DataType.F32);
      case "DJL" ->
          new DjlContender(
              workload,
              DjlContender.Format.valueOf(parts[1]),
              DjlContender.Scale.valueOf(parts[2]));
      default -> throw new IllegalArgumentException("unknown contender " + name);
    };
  }

  /** Whether it computes in F32 and must agree to rounding with this library's F32 step. */
  public static boolean isExact(String name) {
    return !name.endsWith("bf16");
  }
}
