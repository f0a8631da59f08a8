package io.jtrelu.benchmarks;

import io.jtrelu.benchmarks.peers.DjlContender;
import io.jtrelu.benchmarks.peers.Dl4jContender;
import io.jtrelu.benchmarks.peers.OneDnnContender;
import io.jtrelu.benchmarks.peers.OnnxRuntimeContender;
import io.jtrelu.benchmarks.peers.SameDiffContender;
import io.jtrelu.tensor.DataType;
import java.util.Locale;

/** Opens contenders by name. */
public final class Contenders {
  private Contenders() {}

  /**
   * Opens one.
   *
   * @param name {@code jtrelu}, {@code jtrelu-bf16}, {@code jtrelu-exact-bf16}, {@code
   *     jtrelu-micro-16}, {@code djl-nchw-plain}, {@code djl-nhwc-folded} and so on, {@code
   *     onednn}, {@code onnxruntime}, {@code nd4j-layers}, {@code nd4j-samediff}
   */
  public static Contender open(String name, Workload workload) {
    String[] parts = name.toUpperCase(Locale.ROOT).split("-");
    return switch (parts[0]) {
      case "JTRELU" -> {
        if (name.equals("jtrelu-exact-bf16")) {
          System.setProperty("jtrelu.cpu.bf16-winograd", "false"); // read when a backend opens
        }
        yield new JtreluContender(
            workload,
            name.endsWith("bf16") ? DataType.BF16 : DataType.F32,
            name.startsWith("jtrelu-micro-") ? Integer.parseInt(parts[2]) : 0);
      }
      case "DJL" ->
          new DjlContender(
              workload,
              DjlContender.Format.valueOf(parts[1]),
              DjlContender.Scale.valueOf(parts[2]));
      case "ND4J" ->
          parts[1].equals("SAMEDIFF")
              ? new SameDiffContender(workload)
              : new Dl4jContender(workload);
      case "ONNXRUNTIME" -> new OnnxRuntimeContender(workload);
      case "ONEDNN" -> new OneDnnContender(workload);
      default -> throw new IllegalArgumentException("unknown contender " + name);
    };
  }

  /**
   * Holds a contender's results against this library's, for the given network and batch with
   * parameters that keep values {@linkplain KinkFree away from the kink}.
   *
   * @throws IllegalStateException if they disagree
   */
  public static void check(String name, Workload workload) {
    if (name.equals("jtrelu")) {
      return; // itself; its kernels are held against an oracle by the contract tests
    }
    Workload smooth = KinkFree.of(workload);
    try (Contender contender = open(name, smooth)) {
      boolean sixteenBits = name.endsWith("bf16");
      if (name.equals("onnxruntime")) {
        Agreement.requireLogits(name, smooth, contender, sixteenBits);
      } else {
        Agreement.require(name, smooth, contender, sixteenBits);
      }
    }
  }
}
