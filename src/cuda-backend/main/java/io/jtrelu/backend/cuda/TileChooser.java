package io.jtrelu.backend.cuda;

import java.util.List;
import java.util.function.ToIntFunction;

/**
 * Picks the tile for a problem: {@link TileCostModel}, or an autotuner that measures. A choice is a
 * function of the problem and the device alone, so that a run can be repeated on it.
 */
interface TileChooser {
  /**
   * The variant to take.
   *
   * @param able variants that can do it, at least one
   * @param resident how many blocks of a variant a multiprocessor holds at once, at least 1
   */
  TileVariant choose(
      List<TileVariant> able, ToIntFunction<TileVariant> resident, TileProblem problem);

  /** Into how many parts the depth of a wgrad is split; 1 for the other passes. */
  int splits(TileVariant variant, int resident, TileProblem problem);
}
