package io.jtrelu.report;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/** The machine and the software that a figure was measured with. */
public final class Environment {
  private Environment() {}

  /**
   * Operating system, CPU, cores, memory and JDK of this process, in words, by name. Callers add
   * the versions of the libraries that they use. Whatever cannot be found out is left out.
   */
  public static Map<String, String> describe() {
    Map<String, String> facts = new LinkedHashMap<>();
    String cpu = cpuModel();
    if (!cpu.isEmpty()) {
      facts.put("CPU", cpu);
    }
    facts.put("Cores", Integer.toString(Runtime.getRuntime().availableProcessors()));
    facts.put("Java heap", Runtime.getRuntime().maxMemory() / (1 << 20) + " MiB");
    facts.put(
        "Operating system",
        System.getProperty("os.name")
            + " "
            + System.getProperty("os.version")
            + ", "
            + System.getProperty("os.arch"));
    facts.put(
        "JDK",
        System.getProperty("java.vendor", "") + " " + System.getProperty("java.runtime.version"));
    return facts;
  }

  private static String cpuModel() {
    Path description = Path.of("/proc/cpuinfo");
    if (!Files.isReadable(description)) {
      return "";
    }
    try {
      for (String line : Files.readAllLines(description)) {
        if (line.startsWith("model name")) {
          return line.substring(line.indexOf(':') + 1).strip();
        }
      }
    } catch (IOException unreadable) {
      return ""; // a report is not worth failing for
    }
    return "";
  }
}
