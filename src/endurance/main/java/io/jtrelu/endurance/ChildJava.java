package io.jtrelu.endurance;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** A Java process with the class path of this one. */
final class ChildJava {
  private ChildJava() {}

  /**
   * Makes ready to start a main class.
   *
   * @param options of the JVM, beside those of the program jtrelu
   */
  static ProcessBuilder of(String main, List<String> options, List<String> arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    // As the launcher does; what a killed JVM leaves in the folder for temporary files is not ours.
    command.addAll(List.of("-Djava.awt.headless=true", "-XX:+UseSerialGC", "-XX:-UsePerfData"));
    command.add("--enable-native-access=ALL-UNNAMED");
    command.addAll(options);
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), main));
    command.addAll(arguments);
    return new ProcessBuilder(command);
  }

  /** Runs it with the terminal of this process to its end; returns its exit code. */
  static int run(ProcessBuilder builder) throws IOException {
    Process process = builder.inheritIO().start();
    try {
      return process.waitFor();
    } catch (InterruptedException stopped) {
      process.destroy();
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while " + first(builder) + " was running", stopped);
    }
  }

  private static String first(ProcessBuilder builder) {
    return Arrays.toString(builder.command().toArray());
  }
}
