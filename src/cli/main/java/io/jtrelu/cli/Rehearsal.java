package io.jtrelu.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/**
 * Runs what people run most, small and silent, in one process: from it the launcher and the runtime
 * image make the JDK's ahead-of-time cache (JEP 514), with which all commands start faster.
 */
final class Rehearsal {
  private Rehearsal() {}

  /**
   * Exits with a code other than 0 where a command failed.
   *
   * @param arguments none
   */
  public static void main(String[] arguments) throws IOException {
    Path folder = Files.createTempDirectory("jtrelu-rehearsal");
    int code;
    try {
      code = run(folder);
    } finally {
      try (Stream<Path> files = Files.walk(folder)) {
        for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
          Files.delete(file);
        }
      }
    }
    System.exit(code);
  }

  /**
   * Runs the commands.
   *
   * @param folder where a run is left
   * @return 0 where all succeeded
   */
  static int run(Path folder) {
    String run = folder.resolve("run").toString();
    List<String> train =
        List.of(
            "train",
            "--network=plain:12:8",
            "--eta=0.8",
            "--batch=250",
            "--epochs=1",
            "--optimizer=muon",
            "--out=" + run);
    PrintWriter nowhere = new PrintWriter(Writer.nullWriter());
    int code = 0;
    for (List<String> command :
        List.of(
            List.of("shape"), train, List.of("evaluate", "--model=" + run), List.of("devices"))) {
      code |= Main.run(Console.of(nowhere, nowhere), command.toArray(String[]::new));
    }
    return code;
  }
}
