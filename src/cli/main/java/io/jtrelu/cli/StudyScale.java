package io.jtrelu.cli;

import io.jtrelu.train.Optimizer;
import java.util.List;

/**
 * How much a study trains.
 *
 * @param epochs of each run
 * @param seeds of each contender, at the rate that was best for the first
 * @param grid how many learning rates are tried for each contender, from the middle of the grid
 * @param solutions whether several solutions of shaping are compared for all activations
 */
record StudyScale(int epochs, int seeds, int grid, boolean solutions) {
  /** Ends in 20 minutes on two cores. */
  static final StudyScale QUICK = new StudyScale(1, 1, 2, false);

  /** What the claims need. */
  static final StudyScale FULL = new StudyScale(8, 3, 4, true);

  /** Rates that are tried, the likeliest first. */
  private static List<Double> all(Optimizer.Kind optimizer) {
    return switch (optimizer) {
      case SGD -> List.of(0.02, 0.05, 0.01, 0.1, 0.005);
      case ADAM -> List.of(1e-3, 3e-3, 3e-4, 1e-2, 1e-4);
      case KFAC -> List.of(3e-3, 6e-3, 1.5e-3, 1e-2, 1e-3);
      case MUON -> List.of(1e-3, 2e-3, 5e-4, 3e-3, 2.5e-4);
    };
  }

  List<Double> rates(Optimizer.Kind optimizer) {
    return all(optimizer).subList(0, Math.min(grid, all(optimizer).size()));
  }
}
