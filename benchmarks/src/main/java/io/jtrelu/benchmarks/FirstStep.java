package io.jtrelu.benchmarks;

/** Runs one training step and exits; the campaign measures the process from start to end. */
public final class FirstStep {
  private FirstStep() {}

  /**
   * Runs.
   *
   * @param args contender, network, batch
   */
  public static void main(String[] args) {
    Workload workload = Workload.of(args[1], Integer.parseInt(args[2]));
    try (Contender contender = Contenders.open(args[0], workload)) {
      if (!Float.isFinite(contender.step())) {
        throw new IllegalStateException("the loss is not finite");
      }
    }
    System.exit(0);
  }
}
