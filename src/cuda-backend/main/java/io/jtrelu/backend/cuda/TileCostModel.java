package io.jtrelu.backend.cuda;

import java.util.Comparator;
import java.util.List;
import java.util.function.ToIntFunction;

/**
 * The time of the busiest multiprocessor, in clocks, from a tile's shape and the number of blocks
 * that are resident at once.
 *
 * <pre>
 * stage     = longest + half the sum of the others of: products / rate,
 *             copies that the first-level cache does not answer / L2's rate,
 *             (copies + copies that it answers + operand reads) / the rate of shared memory
 * wave(r)   = start + stages * max(r * stage, stage + overhead) + r * epilogue      of r resident blocks
 * time      = waves * wave(resident) + wave(the rest)
 * </pre>
 *
 * <p>A larger tile spends fewer copies and reads per product; a smaller one wastes less where the
 * grid does not fill the device; several resident blocks hide each other's waits at a stage's end.
 * The rates are those of a multiprocessor from compute capability 8.0 on to the accuracy that a
 * choice needs: only their ratios matter. No figure here is measured.
 *
 * @param multiprocessors of the device
 */
record TileCostModel(int multiprocessors) implements TileChooser {
  private static final double TENSOR_RATE = 1024; // multiply-adds per clock, 16-bit operands
  private static final double FFMA_RATE = 128;
  private static final double COPY_RATE = 24; // bytes per clock from the second-level cache
  private static final double SHARED_RATE = 128; // of shared memory and the first-level cache
  private static final double MEMORY_RATE = 16; // a multiprocessor's share of memory bandwidth
  private static final double OVERHEAD =
      400; // warp-clocks in which a stage's end keeps a block idle
  private static final double START = 1000; // until the first operands are there
  private static final int ROW_BYTES = 64; // of an operand's row in a stage
  private static final int SHORTEST_SPLIT = 8; // stages
  private static final int MOST_WAVES = 4; // of a wgrad's splits
  private static final long MOST_WORKSPACE = 256L << 20;

  @Override
  public TileVariant choose(
      List<TileVariant> able, ToIntFunction<TileVariant> resident, TileProblem problem) {
    return able.stream()
        .min(Comparator.comparingDouble(v -> cost(v, resident.applyAsInt(v), problem)))
        .orElseThrow(() -> new IllegalStateException("no kernel for " + problem));
  }

  /** Clocks. */
  double cost(TileVariant v, int resident, TileProblem problem) {
    return cost(v, resident, problem, splits(v, resident, problem));
  }

  private double cost(TileVariant v, int resident, TileProblem problem, int splits) {
    int walked = problem.columnTiles(v, multiprocessors);
    double stages =
        (double) walked
            * Math.ceilDiv(Math.ceilDiv(problem.depth(), (long) splits), (long) v.blockK());
    long blocks = problem.blocks(v, walked) * splits;
    long busiest = Math.ceilDiv(blocks, (long) multiprocessors);
    double stage = stage(v, problem.missed(v), walked);
    double area = (double) walked * v.blockM() * v.blockN();
    boolean wgrad = problem.pass() == TileVariant.Pass.WGRAD;
    double epilogue = area * (wgrad ? Float.BYTES : problem.elementBytes()) / MEMORY_RATE;
    long full = busiest / resident;
    double time =
        full * wave(resident, v, stages, stage, epilogue)
            + wave((int) (busiest % resident), v, stages, stage, epilogue);
    double partials = splits == 1 ? 0 : 2.0 * splits * problem.rows() * problem.columns();
    return time + partials * Float.BYTES / (COPY_RATE * multiprocessors);
  }

  private static double wave(
      int blocks, TileVariant v, double stages, double stage, double epilogue) {
    double alone = stage + OVERHEAD * 32 / v.threads();
    return blocks == 0 ? 0 : START + stages * Math.max(blocks * stage, alone) + blocks * epilogue;
  }

  /**
   * Clocks of a block's stage where others keep the multiprocessor busy meanwhile.
   *
   * @param missed share of the gathered activation that the second-level cache is asked for
   * @param walked column tiles for which the activation is copied once
   */
  private static double stage(TileVariant v, double missed, int walked) {
    double rate =
        switch (v.type()) {
          case "f32" -> FFMA_RATE;
          case "tf32" -> TENSOR_RATE / 2;
          default -> TENSOR_RATE;
        };
    boolean wgrad = v.pass() == TileVariant.Pass.WGRAD;
    double gathered = (double) (wgrad ? v.blockN() : v.blockM()) * ROW_BYTES / walked;
    double other = (double) (wgrad ? v.blockM() : v.blockN()) * ROW_BYTES;
    double products = (double) v.blockM() * v.blockN() * v.blockK() / rate;
    double copies = (gathered * missed + other) / COPY_RATE * gather(v);
    double reads = v.threads() / 32.0 * (v.warpM() + v.warpN()) * ROW_BYTES;
    double shared = (reads + gathered * (2 - missed) + other) / SHARED_RATE;
    double longest = Math.max(products, Math.max(copies, shared));
    return longest + 0.5 * (products + copies + shared - longest);
  }

  /** How much longer a copy takes that is not made of 16 bytes. */
  private static double gather(TileVariant v) {
    boolean wgrad = v.pass() == TileVariant.Pass.WGRAD;
    int channels = wgrad ? v.srcChannels() : v.dstChannels();
    if (v.stem()) {
      return channels == 1 ? 2 : 1;
    }
    if (v.dstChannels() == 1) {
      return 8;
    }
    return wgrad && channels == 1 ? 4 : 1;
  }

  /**
   * Parts that fill the device in whole waves, as many waves as cost least, each long enough to
   * hide its start, and partial sums of bounded size.
   */
  @Override
  public int splits(TileVariant v, int resident, TileProblem problem) {
    if (problem.pass() != TileVariant.Pass.WGRAD) {
      return 1;
    }
    long results = problem.rows() * problem.columns() * Float.BYTES;
    long longEnough = Math.ceilDiv(problem.depth(), (long) SHORTEST_SPLIT * v.blockK());
    long most = Math.max(1, Math.min(MOST_WORKSPACE / results, longEnough));
    int best = 1;
    for (int waves = 1; waves <= MOST_WAVES; waves++) {
      long slots = (long) waves * multiprocessors * resident;
      int splits = (int) Math.clamp(slots / problem.tiles(v), 1, most);
      if (cost(v, resident, problem, splits) < cost(v, resident, problem, best)) {
        best = splits;
      }
    }
    return best;
  }
}
