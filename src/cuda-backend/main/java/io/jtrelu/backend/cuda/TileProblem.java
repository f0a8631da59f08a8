package io.jtrelu.backend.cuda;

/**
 * One pass of a convolution as the matrix product that a tile covers.
 *
 * @param pass which pass
 * @param rows of the product: output pixels (wgrad: output channels)
 * @param columns of the product: output channels (wgrad: filter columns)
 * @param depth of the product, which a wgrad may split
 * @param elementBytes size of a stored activation's element
 * @param window how the gathered activation is read
 */
record TileProblem(
    TileVariant.Pass pass, long rows, long columns, long depth, int elementBytes, Window window) {
  /**
   * How the activation is read: of the pixels that the taps of a tile ask for, many are the same,
   * and the first-level cache answers all but the first of them.
   *
   * @param taps that reach an output pixel (a strided dgrad: on average)
   * @param area gathered pixels per output pixel of a tile: the stride squared (dgrad: 1, as the
   *     pixels of a tile are of one phase)
   * @param source gathered pixels of all output pixels together, per output pixel
   * @param halo pixels that a run of output pixels needs besides
   * @param unit channels whose taps lie together in a wgrad's columns
   */
  record Window(double taps, double area, double source, double halo, int unit) {
    /** Of a 1x1 filter. */
    static final Window ONE = new Window(1, 1, 1, 0, 1);
  }

  /** A problem whose window is one pixel. */
  TileProblem(TileVariant.Pass pass, long rows, long columns, long depth, int elementBytes) {
    this(pass, rows, columns, depth, elementBytes, Window.ONE);
  }

  /** Tiles that cover the result. */
  long tiles(TileVariant variant) {
    return Math.ceilDiv(rows, (long) variant.blockM())
        * Math.ceilDiv(columns, (long) variant.blockN());
  }

  /** The share of a tile's copies of the gathered activation that the second-level cache sees. */
  double missed(TileVariant variant) {
    if (pass == TileVariant.Pass.WGRAD) {
      return 1 / Math.clamp((double) variant.blockN() / window.unit(), 1, window.taps());
    }
    double distinct = variant.blockM() * window.area() + window.halo();
    return Math.min(1, distinct / (variant.blockM() * window.taps()));
  }

  /** Blocks of a launch without splits, each with so many column tiles. */
  long blocks(TileVariant variant, int columnTiles) {
    return Math.ceilDiv(rows, (long) variant.blockM())
        * Math.ceilDiv(columns, (long) variant.blockN() * columnTiles);
  }

  /**
   * How many column tiles a block of a {@linkplain TileVariant#panel panel} walks over: as many as
   * leave blocks for whole waves, one block on each multiprocessor; 1 for other variants.
   */
  int columnTiles(TileVariant variant, int multiprocessors) {
    int tiles = Math.toIntExact(Math.ceilDiv(columns, (long) variant.blockN()));
    int best = 1;
    double busiest = 0;
    for (int groups = 1; variant.panel() && groups <= tiles; groups++) {
      int walked = Math.ceilDiv(tiles, groups);
      long waves = Math.ceilDiv(blocks(variant, walked), (long) multiprocessors);
      double busy = (double) tiles(variant) / (waves * walked * multiprocessors);
      if (busy > 1.1 * busiest) {
        busiest = busy;
        best = walked;
      }
    }
    return best;
  }
}
