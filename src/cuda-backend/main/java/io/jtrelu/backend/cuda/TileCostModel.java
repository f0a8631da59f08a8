package io.jtrelu.backend.cuda;

import java.util.Comparator;
import java.util.List;
import java.util.function.ToIntFunction;

/**
 * The time of the busiest multiprocessor, in clocks, from a tile's shape and the number of blocks
 * that are resident at once.
 *
 * <pre>
 * stage     = longest + half the sum of the others of: products / rate, copies / 64 B, operand reads / 128 B
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
  private static final double COPY_RATE = 64; // bytes per clock from the second-level cache
  private static final double SHARED_RATE = 128;
  private static final double MEMORY_RATE = 16; // a multiprocessor's share of memory bandwidth
  private static final double OVERHEAD =
      400; // warp-clocks in which a stage's end keeps a block idle
  private static final double START = 1000; // until the first operands are there
  private static final int ROW_BYTES = 64; // of an operand's row in a stage
  private static final int SHORTEST_SPLIT = 8; // stages
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
    int splits = splits(v, resident, problem);
    double stages = Math.ceilDiv(Math.ceilDiv(problem.depth(), (long) splits), (long) v.blockK());
    long blocks = problem.tiles(v) * splits;
    long busiest = Math.ceilDiv(blocks, (long) multiprocessors);
    double stage = stage(v);
    double area = (double) v.blockM() * v.blockN();
    boolean wgrad = problem.pass() == TileVariant.Pass.WGRAD;
    double epilogue = area * (wgrad ? Float.BYTES : problem.elementBytes()) / MEMORY_RATE;
    long full = busiest / resident;
    double time =
        full * wave(resident, v, stages, stage, epilogue)
            + wave((int) (busiest % resident), v, stages, stage, epilogue);
    double partials = splits == 1 ? 0 : 2.0 * splits * problem.rows() * problem.columns();
    return time + partials * Float.BYTES / (MEMORY_RATE * multiprocessors);
  }

  private static double wave(
      int blocks, TileVariant v, double stages, double stage, double epilogue) {
    double alone = stage + OVERHEAD * 32 / v.threads();
    return blocks == 0 ? 0 : START + stages * Math.max(blocks * stage, alone) + blocks * epilogue;
  }

  /** Clocks of a block's stage where others keep the multiprocessor busy meanwhile. */
  private static double stage(TileVariant v) {
    double rate =
        switch (v.type()) {
          case "f32" -> FFMA_RATE;
          case "tf32" -> TENSOR_RATE / 2;
          default -> TENSOR_RATE;
        };
    double products = (double) v.blockM() * v.blockN() * v.blockK() / rate;
    double copies = (v.blockM() + v.blockN()) * ROW_BYTES / COPY_RATE * gather(v);
    double reads = v.threads() / 32.0 * (v.warpM() + v.warpN()) * ROW_BYTES / SHARED_RATE;
    double longest = Math.max(products, Math.max(copies, reads));
    return longest + 0.5 * (products + copies + reads - longest);
  }

  /** How much longer a copy takes that is not made of 16 bytes. */
  private static double gather(TileVariant v) {
    if (v.stem()) {
      return 2;
    }
    if (v.dstChannels() == 1) {
      return 8;
    }
    return v.pass() == TileVariant.Pass.WGRAD && v.srcChannels() == 1 ? 4 : 1;
  }

  /**
   * Parts that fill the device twice over, each long enough to hide its start, and partial sums of
   * bounded size.
   */
  @Override
  public int splits(TileVariant v, int resident, TileProblem problem) {
    if (problem.pass() != TileVariant.Pass.WGRAD) {
      return 1;
    }
    long wanted = Math.ceilDiv(2L * multiprocessors * resident, problem.tiles(v));
    long results = problem.rows() * problem.columns() * Float.BYTES;
    long room = MOST_WORKSPACE / results;
    long longEnough = Math.ceilDiv(problem.depth(), (long) SHORTEST_SPLIT * v.blockK());
    return (int) Math.max(1, Math.min(wanted, Math.min(room, longEnough)));
  }
}
