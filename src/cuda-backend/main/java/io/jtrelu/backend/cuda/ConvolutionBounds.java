package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.cuda.TiledConvolution.Tile;

/**
 * What the two families of kernels for 16-bit types could do at best on a device of compute
 * capability 9.0, in clocks: the longest of a pass's products, its bytes of memory, of the
 * second-level cache and of shared memory. Where it is no longer for {@link HopperConvolution},
 * that is taken. docs/cuda-traffic.md tells the same bounds in seconds. No figure here is measured.
 *
 * @param multiprocessors of the device
 */
record ConvolutionBounds(int multiprocessors) {
  private static final double PEAK = 2048; // multiply-adds per clock of a multiprocessor
  private static final double MMA_RATE = 0.63 * PEAK; // what mma.sync reaches
  private static final double WGMMA_RATE = 0.75 * PEAK; // what public kernels with wgmma reach
  private static final double MEMORY_RATE = 18; // bytes per clock, a multiprocessor's share
  private static final double SECOND_LEVEL_RATE = 24;
  private static final double SHARED_RATE = 128;
  private static final double START = 1500; // clocks until the first operands are there
  private static final double KEPT = 25e6; // bytes that the second-level cache surely keeps
  private static final double RESULT_BYTES = 2 + 1.0 / 8; // an element and its sign

  /** Of a tile of the kernels for all devices. */
  double of(Tile tile) {
    TileVariant v = tile.variant();
    TileProblem p = tile.problem();
    int walked = tile.columnTiles();
    double stages = Math.ceilDiv(p.depth(), (long) v.blockK());
    double pixels = (double) v.blockM() * v.rowBytes();
    double weights = (double) walked * v.blockN() * v.rowBytes();
    double missed = p.missed(v);
    double reads =
        walked * v.threads() / 32.0 * (v.warpM() + v.warpN()) * v.rowBytes(); // of operands
    double area = (double) walked * v.blockM() * v.blockN();
    return longest(
        p,
        p.blocks(v, walked),
        stages * area * v.blockK() / MMA_RATE,
        stages * (pixels * missed + weights) + area * RESULT_BYTES,
        stages * (pixels * (2 - missed) + weights + reads));
  }

  /**
   * Of a tile of the kernels for compute capability 9.0.
   *
   * @param work of one tile
   * @param tiles how many there are
   */
  double of(HopperTile tile, HopperTile.Work work, long tiles, TileProblem p) {
    return longest(
        p,
        tiles,
        work.products() / WGMMA_RATE,
        work.asked() + (double) tile.rows() * tile.columns() * RESULT_BYTES,
        work.shared());
  }

  /** Of a weight gradient by a tile of the kernels for all devices. */
  double ofWgrad(Tile tile) {
    TileVariant v = tile.variant();
    TileProblem p = tile.problem();
    double stages = Math.ceilDiv(Math.ceilDiv(p.depth(), (long) tile.splits()), (long) v.blockK());
    double gathered = (double) v.blockN() * v.rowBytes();
    double other = (double) v.blockM() * v.rowBytes();
    double missed = p.missed(v);
    double reads = v.threads() / 32.0 * (v.warpM() + v.warpN()) * v.rowBytes(); // of operands
    double area = (double) v.blockM() * v.blockN();
    return longestOfWgrad(
        p.elementBytes()
            * p.depth()
            * (p.rows() + p.window().area() * p.columns() / p.window().taps()),
        p.rows() * p.columns(),
        tile.splits(),
        p.tiles(v) * tile.splits(),
        stages * area * v.blockK() / MMA_RATE,
        stages * (gathered * missed + other) + area * Float.BYTES,
        stages * (gathered * (2 - missed) + other + reads));
  }

  /** Of a weight gradient by a tile of the kernels for compute capability 9.0. */
  double of(HopperWeightTile tile, HopperWeightGradient.Plan plan, Conv2dDescriptor d) {
    HopperWeightTile.Work work = tile.work(plan.length(), plan.ahead());
    return longestOfWgrad(
        (d.src().elements() + d.dst().elements()) * 2.0,
        d.weights().elements(),
        plan.splits(),
        plan.blocks(),
        work.products() / WGMMA_RATE,
        work.asked() + d.weights().elements() * (double) Float.BYTES / plan.tiles(),
        work.shared());
  }

  /** Its bound, and the time before a block's first product and after its last one. */
  double cost(HopperWeightTile tile, HopperWeightGradient.Plan plan, Conv2dDescriptor d) {
    double results = d.weights().elements() * (double) Float.BYTES / plan.tiles();
    double before = START + tile.work(0, plan.ahead()).asked() / SECOND_LEVEL_RATE;
    long waves = Math.ceilDiv(plan.blocks(), (long) multiprocessors);
    return of(tile, plan, d)
        + waves * (before + results / SECOND_LEVEL_RATE)
        + readBack(plan.splits(), d.weights().elements()) / (SECOND_LEVEL_RATE * multiprocessors);
  }

  /** Bytes that are read and written where the splits' sums are added. */
  private static double readBack(int splits, long results) {
    return splits == 1 ? 0 : (splits + 1.0) * results * Float.BYTES;
  }

  private double longestOfWgrad(
      double operands,
      long results,
      int splits,
      long blocks,
      double products,
      double secondLevel,
      double shared) {
    double partials = (double) splits * results * Float.BYTES;
    double memory = operands + (partials > KEPT ? 2 * partials : (double) results * Float.BYTES);
    long busiest = Math.ceilDiv(blocks, (long) multiprocessors);
    double second = busiest * secondLevel + readBack(splits, results) / multiprocessors;
    return Math.max(
        Math.max(memory / (MEMORY_RATE * multiprocessors), second / SECOND_LEVEL_RATE),
        busiest * Math.max(products, shared / SHARED_RATE));
  }

  /** Of both passes of {@link HopperChain}. */
  double ofChain(long pixels) {
    long tiles = Math.ceilDiv(pixels, (long) HopperChain.ROWS);
    double busiest = Math.ceilDiv(tiles, (long) multiprocessors);
    double tensors = pixels * HopperChain.NARROW * 2.0 / (MEMORY_RATE * multiprocessors);
    // Gradients of the weights, from each block: written and read.
    double gradients = 2.0 * HopperChain.WIDE * HopperChain.NARROW * Float.BYTES;
    double sums = 2 * gradients * Math.min(tiles, multiprocessors);
    return Math.max(busiest * clocks(HopperChain.FORWARD), 2 * tensors)
        + Math.max(busiest * clocks(HopperChain.BACKWARD), 3 * tensors)
        + sums / (MEMORY_RATE * multiprocessors);
  }

  private static double clocks(HopperChain.Work work) {
    return Math.max(work.products() / WGMMA_RATE, work.shared() / SHARED_RATE);
  }

  /** Of the six passes of its convolutions, which all move its wide tensor and a narrow one. */
  double ofChainApart(long pixels) {
    double bytes = pixels * (HopperChain.WIDE + HopperChain.NARROW) * 2.0;
    return 6 * bytes / (MEMORY_RATE * multiprocessors);
  }

  /** Of both passes of {@link HopperPool}. */
  double ofPool(Conv2dDescriptor d, MaxPool2dDescriptor pooling) {
    HopperPool.Plan forward = HopperPool.forward(d.n(), pooling, multiprocessors);
    HopperPool.Plan backward = HopperPool.backward(d.n(), pooling, multiprocessors);
    double row = HopperPool.PRODUCTS / WGMMA_RATE;
    double pooled = (double) pooling.oh() * (HopperPool.POOLED_ROW + HopperPool.PLACES_ROW);
    double bytes = d.n() * ((double) d.h() * HopperPool.IMAGE_ROW + pooled);
    double tensors = bytes / (MEMORY_RATE * multiprocessors);
    double sums = 2.0 * backward.grid() * HopperPool.SUMS * Float.BYTES; // written and read
    return Math.max(forward.busiest() * row, tensors)
        + Math.max(backward.busiest() * row, tensors)
        + sums / (MEMORY_RATE * multiprocessors);
  }

  /**
   * Of the convolution, its weights' gradient and both passes of the pooling: what memory alone
   * takes of them, which all move the tensor between.
   */
  double ofPoolApart(Conv2dDescriptor d, MaxPool2dDescriptor pooling) {
    double images = d.src().elements() * 2.0;
    double between = d.dst().elements() * 2.0;
    double pooled = pooling.dst().elements() * 3.0; // and a place of each
    return (2 * images + 4 * between + 2 * pooled) / (MEMORY_RATE * multiprocessors);
  }

  private double longest(
      TileProblem p, long blocks, double products, double secondLevel, double shared) {
    TileProblem.Window window = p.window();
    double memory =
        p.elementBytes()
            * p.rows()
            * (window.source() * p.depth() / window.taps() + p.columns())
            / (MEMORY_RATE * multiprocessors);
    long busiest = Math.ceilDiv(blocks, (long) multiprocessors);
    double own =
        busiest
            * Math.max(products, Math.max(secondLevel / SECOND_LEVEL_RATE, shared / SHARED_RATE));
    return Math.max(memory, own);
  }
}
