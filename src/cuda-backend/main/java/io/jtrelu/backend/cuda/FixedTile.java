package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.ToIntFunction;

/**
 * One variant, and one number of splits, in place of those that a model chooses: what an autotuner
 * tries.
 *
 * @param model chooses what is not fixed
 * @param variant to take where it can do the problem
 * @param splits of a wgrad by that variant
 */
record FixedTile(TileChooser model, TileVariant variant, int splits) implements TileChooser {
  @Override
  public TileVariant choose(
      List<TileVariant> able, ToIntFunction<TileVariant> resident, TileProblem problem) {
    return able.contains(variant) ? variant : model.choose(able, resident, problem);
  }

  @Override
  public int splits(TileVariant taken, int resident, TileProblem problem) {
    return taken.equals(variant) ? splits : model.splits(taken, resident, problem);
  }

  /** The same in every process. */
  String title() {
    return variant.name() + (splits == 1 ? "" : "/" + splits);
  }

  /** All that can be tried for aligned operands of a pass: learnt by looking on at a choice. */
  static final class Listing implements TileChooser {
    private final TileChooser model;
    private final TileVariant.Pass pass;
    private final List<FixedTile> tiles = new ArrayList<>();

    Listing(TileChooser model, TileVariant.Pass pass) {
      this.model = model;
      this.pass = pass;
    }

    @Override
    public TileVariant choose(
        List<TileVariant> able, ToIntFunction<TileVariant> resident, TileProblem problem) {
      if (problem.pass() == pass && tiles.isEmpty()) { // first for aligned operands, then for any
        for (TileVariant variant : able) {
          for (int splits : tried(variant, resident.applyAsInt(variant), problem)) {
            tiles.add(new FixedTile(model, variant, splits));
          }
        }
      }
      return model.choose(able, resident, problem);
    }

    /** The model's number, half of it and twice as many. */
    private Set<Integer> tried(TileVariant variant, int resident, TileProblem problem) {
      int wanted = model.splits(variant, resident, problem);
      Set<Integer> tried = new LinkedHashSet<>(List.of(wanted));
      if (pass == TileVariant.Pass.WGRAD) {
        tried.add(Math.max(1, wanted / 2));
        tried.add(wanted * 2);
      }
      return tried;
    }

    @Override
    public int splits(TileVariant variant, int resident, TileProblem problem) {
      return model.splits(variant, resident, problem);
    }

    List<FixedTile> tiles() {
      return tiles;
    }
  }
}
