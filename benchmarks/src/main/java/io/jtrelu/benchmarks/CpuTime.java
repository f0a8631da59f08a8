package io.jtrelu.benchmarks;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Training steps of several contenders in turn, one thread each but for this library, whose lanes
 * share nothing, by the CPU time of the process: a first answer on a machine that is shared, where
 * waiting must not count. Cache and clock are still shared; the campaign on a quiet machine
 * decides.
 *
 * <p>Arguments: network, batch, contenders; the first is the base. Start it with one thread per
 * library, as {@code benchmarks/run shared} does.
 */
public final class CpuTime {
  private static final int ROUNDS = 7;
  private static final OperatingSystemMXBean SYSTEM =
      ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);

  private CpuTime() {}

  /** Runs and prints a line per contender. */
  public static void main(String[] args) {
    Workload workload = Workload.of(args[0], Integer.parseInt(args[1]));
    List<String> names = List.of(args).subList(2, args.length);
    List<Contender> contenders = new ArrayList<>();
    for (String name : names) {
      Contenders.check(name, workload);
      Contender contender = Contenders.open(name, workload);
      contender.step();
      contender.step();
      contenders.add(contender);
    }
    double[][] times = new double[names.size()][ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
      for (int i = 0; i < times.length; i++) {
        long begin = SYSTEM.getProcessCpuTime();
        contenders.get(i).step();
        times[i][round] = (SYSTEM.getProcessCpuTime() - begin) * 1e-6;
      }
    }
    double[] ratios = new double[ROUNDS];
    for (int i = 0; i < times.length; i++) {
      double low = Double.POSITIVE_INFINITY;
      double high = 0;
      for (int round = 0; round < ROUNDS; round++) {
        ratios[round] = times[i][round] / times[0][round];
        low = Math.min(low, ratios[round]);
        high = Math.max(high, ratios[round]);
      }
      System.out.printf(
          Locale.ROOT,
          "%-12s batch %-4d %-20s CPU time %.2fx of %s (%.2f to %.2f)%n",
          args[0],
          workload.batch(),
          names.get(i),
          Campaign.median(ratios),
          names.getFirst(),
          low,
          high);
    }
    contenders.forEach(Contender::close);
    System.exit(0);
  }
}
