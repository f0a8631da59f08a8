package io.jtrelu.report;

import java.util.ArrayList;
import java.util.List;

/** Folds runs of alike blocks of layers, so that a table of 200 layers can be read. */
final class FoldedLayers {
  private static final int LONGEST_BLOCK = 12;

  private FoldedLayers() {}

  /**
   * Consecutive layers that occur a number of times in a row.
   *
   * @param block the first occurrence
   * @param times how often, 1 or more
   * @param lastName name of the very last layer that it stands for
   */
  record Fold(List<LayerRow> block, int times, String lastName) {}

  /** The layers in order, each in one fold; of several ways the one that hides most layers. */
  static List<Fold> of(List<LayerRow> layers) {
    List<Fold> folds = new ArrayList<>();
    int at = 0;
    while (at < layers.size()) {
      int length = 1;
      int times = 1;
      for (int period = 1; period <= LONGEST_BLOCK; period++) {
        int repeats = repeats(layers, at, period);
        if (period * (repeats - 1) > length * (times - 1)) {
          length = period;
          times = repeats;
        }
      }
      int end = at + length * times;
      folds.add(new Fold(layers.subList(at, at + length), times, layers.get(end - 1).name()));
      at = end;
    }
    return folds;
  }

  private static int repeats(List<LayerRow> layers, int begin, int period) {
    int same = 0;
    while (begin + period + same < layers.size()
        && layers.get(begin + same).alike(layers.get(begin + period + same))) {
      same++;
    }
    return 1 + same / period;
  }
}
