package io.jtrelu.cli;

import io.jtrelu.distributed.Launcher;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** The program, whose last rank dies in the second epoch. */
final class MortalRank {
  /** The exit code of the rank that dies. */
  static final int STATUS = 9;

  private static final String EPOCH = "\"kind\":\"epoch\"";

  private MortalRank() {}

  /** As {@link Main#main}. */
  public static void main(String[] arguments) {
    Launcher launcher = Launcher.of(System.getenv()).orElseThrow();
    if (launcher.rank() == launcher.size() - 1) {
      Path out = Path.of(arguments[Arrays.asList(arguments).indexOf("--out") + 1]);
      Thread.ofPlatform().daemon().start(() -> dieAfterAnEpoch(out.resolve("metrics.jsonl")));
    }
    Main.main(arguments);
  }

  private static void dieAfterAnEpoch(Path metrics) {
    while (true) {
      try {
        if (Files.exists(metrics) && Files.readString(metrics).contains(EPOCH)) {
          Runtime.getRuntime().halt(STATUS);
        }
        Thread.sleep(1);
      } catch (IOException | InterruptedException failure) {
        throw new IllegalStateException(failure);
      }
    }
  }
}
