package io.jtrelu.benchmarks;

public final class Try {
  public static void main(String[] args) {
    Workload w = Workload.of(args[0], Integer.parseInt(args[1]));
    for (int i = 2; i < args.length; i++) {
      try (Contender c = Contenders.open(args[i], w)) {
        System.out.println(
            args[i] + " " + (args[i].startsWith("jtrelu") ? "" : Agreement.require(args[i], w, c)));
        for (int k = 0; k < 2; k++) c.step();
        double best = 1e9;
        for (int k = 0; k < 3; k++) {
          long t = System.nanoTime();
          c.step();
          best = Math.min(best, (System.nanoTime() - t) * 1e-6);
        }
        System.out.println(args[i] + " best step " + best);
      }
    }
  }
}
