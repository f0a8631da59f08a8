package io.jtrelu.benchmarks;

import java.io.BufferedReader;
import java.io.IOException;
import java.lang.management.CompilationMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;

/**
 * How long single forward passes take, by the clock: the middle one and the 99th of a hundred. Each
 * contender has a process of its own in each round, one after the other, and is checked before.
 *
 * <p>Arguments: network, batch, contenders; the first is the base.
 */
public final class Latency {
  private static final int ROUNDS = 5;
  private static final long WARM_UP = 4_000_000_000L; // ns at least
  private static final long LONGEST_WARM_UP = 40_000_000_000L;
  private static final long QUIET = 3_000_000_000L; // ns without a compilation worth the name
  private static final long COMPILATION = 20; // ms, which would delay one of a hundred passes
  private static final long MEASURED = 3_000_000_000L;

  private Latency() {}

  /** Runs the processes and prints a line per contender. */
  public static void main(String[] args) throws IOException, InterruptedException {
    if (args[0].equals("--child")) {
      child(Workload.of(args[1], Integer.parseInt(args[2])), args[3]);
      return;
    }
    List<String> names = List.of(args).subList(2, args.length);
    double[][][] times = new double[2][names.size()][ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
      for (int i = 0; i < names.size(); i++) {
        int turn = (i + round) % names.size();
        String[] figures = measure(args[0], args[1], names.get(turn)).split(" ");
        times[0][turn][round] = Double.parseDouble(figures[0]);
        times[1][turn][round] = Double.parseDouble(figures[1]);
      }
    }
    for (int i = 0; i < names.size(); i++) {
      System.out.printf(
          Locale.ROOT,
          "%-10s batch %-3s %-14s middle %s, 99th of 100 %s of %s%n",
          args[0],
          args[1],
          names.get(i),
          ratio(times[0][i], times[0][0]),
          ratio(times[1][i], times[1][0]),
          names.getFirst());
    }
  }

  private static String ratio(double[] times, double[] base) {
    double[] ratios = new double[times.length];
    for (int round = 0; round < times.length; round++) {
      ratios[round] = times[round] / base[round];
    }
    double middle = Campaign.median(ratios);
    Arrays.sort(ratios);
    return String.format(
        Locale.ROOT, "%.2fx (%.2f to %.2f)", middle, ratios[0], ratios[ratios.length - 1]);
  }

  private static String measure(String network, String batch, String name)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("--enable-native-access=ALL-UNNAMED");
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add(Latency.class.getName());
    command.addAll(List.of("--child", network, batch, name));
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    String last = "";
    try (BufferedReader lines = process.inputReader()) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        last = line;
      }
    }
    if (process.waitFor() != 0) {
      throw new IllegalStateException(name + " failed");
    }
    return last;
  }

  private static void child(Workload workload, String name) {
    Contenders.check(name, workload);
    List<Double> times = new ArrayList<>();
    try (Contender contender = Contenders.open(name, workload)) {
      warmUp(contender);
      long start = System.nanoTime();
      for (long begin = start; begin - start < MEASURED; ) {
        contender.forward();
        long end = System.nanoTime();
        times.add((double) (end - begin));
        begin = end;
      }
    }
    Collections.sort(times);
    System.out.println(times.get(times.size() / 2) + " " + times.get(times.size() * 99 / 100));
    System.exit(0);
  }

  /**
   * Until all is compiled: the JVM compiles what embraces a pass after some thousands of them, on a
   * core that the pass needs.
   */
  private static void warmUp(Contender contender) {
    CompilationMXBean compiler = ManagementFactory.getCompilationMXBean();
    long start = System.nanoTime();
    long compiled = compiler.getTotalCompilationTime();
    long since = start;
    long now = start;
    while (now - start < WARM_UP || (now - since < QUIET && now - start < LONGEST_WARM_UP)) {
      contender.forward();
      now = System.nanoTime();
      long time = compiler.getTotalCompilationTime();
      if (time - compiled > COMPILATION) {
        compiled = time;
        since = now;
      }
    }
  }
}
