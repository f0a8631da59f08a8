package io.jtrelu.benchmarks;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What a result depends on besides the code. */
final class Environment {
  private static final Pattern JAR = Pattern.compile("([^/]+?)-(\\d[^/]*?)\\.jar");
  private static final List<String> LIBRARIES =
      List.of(
          "jtrelu",
          "dnnl",
          "jmh-core",
          "api",
          "pytorch-engine",
          "pytorch-native-cpu",
          "pytorch-jni",
          "openblas",
          "nd4j-native",
          "deeplearning4j-nn",
          "onnxruntime");

  private Environment() {}

  /** All of it, in reading order. */
  static Map<String, Object> read() {
    Map<String, Object> environment = new LinkedHashMap<>();
    environment.put("time", Instant.now().toString());
    environment.put("commit", run("git", "rev-parse", "HEAD"));
    environment.put("uncommittedChanges", !run("git", "status", "--porcelain").isEmpty());
    environment.put("cpu", cpu("model name"));
    environment.put("cpuCache", cpu("cache size"));
    environment.put("instructionSets", instructionSets());
    environment.put("cores", Runtime.getRuntime().availableProcessors());
    environment.put("memory", line("/proc/meminfo", "MemTotal"));
    environment.put(
        "system", System.getProperty("os.name") + " " + System.getProperty("os.version"));
    environment.put("jdk", System.getProperty("java.vm.name") + " " + Runtime.version());
    Map<String, String> libraries = new TreeMap<>();
    for (String entry : System.getProperty("java.class.path").split(":")) {
      Matcher jar = JAR.matcher(entry.substring(entry.lastIndexOf('/') + 1));
      if (jar.matches() && LIBRARIES.contains(jar.group(1))) {
        libraries.merge(
            jar.group(1).equals("api") ? "djl" : jar.group(1),
            jar.group(2),
            (a, b) -> a.length() < b.length() ? a : b);
      }
    }
    environment.put("libraries", libraries);
    environment.put("gpu", gpu());
    environment.put("loadAtStart", load());
    return environment;
  }

  /** The load average of the last minute. */
  static double load() {
    try {
      return Double.parseDouble(Files.readString(Path.of("/proc/loadavg")).split(" ")[0]);
    } catch (IOException | NumberFormatException unknown) {
      return Double.NaN;
    }
  }

  /** The GPU's name and driver, or why there is none. */
  static String gpu() {
    String answer = run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader");
    return answer.isEmpty() ? "none: nvidia-smi finds no GPU" : answer;
  }

  private static String instructionSets() {
    StringBuilder found = new StringBuilder();
    for (String flag : cpu("flags").split(" ")) {
      if (flag.startsWith("avx") || flag.startsWith("amx") || flag.equals("fma")) {
        found.append(found.isEmpty() ? "" : " ").append(flag);
      }
    }
    return found.toString();
  }

  private static String cpu(String key) {
    return line("/proc/cpuinfo", key);
  }

  private static String line(String file, String key) {
    try {
      for (String line : Files.readAllLines(Path.of(file))) {
        if (line.startsWith(key)) {
          return line.substring(line.indexOf(':') + 1).strip();
        }
      }
    } catch (IOException absent) {
      return "unknown";
    }
    return "unknown";
  }

  private static String run(String... command) {
    try {
      Process process =
          new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
      String output;
      try (BufferedReader reader =
          new BufferedReader(
              new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
        output = String.join("\n", reader.lines().toList()).strip();
      }
      return process.waitFor(10, TimeUnit.SECONDS) && process.exitValue() == 0 ? output : "";
    } catch (IOException absent) {
      return "";
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return "";
    }
  }
}
