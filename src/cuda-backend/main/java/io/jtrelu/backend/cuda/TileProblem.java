package io.jtrelu.backend.cuda;

/**
 * One pass of a convolution as the matrix product that a tile covers.
 *
 * @param pass which pass
 * @param rows of the product: output pixels (wgrad: output channels)
 * @param columns of the product: output channels (wgrad: filter columns)
 * @param depth of the product, which a wgrad may split
 * @param elementBytes size of a stored activation's element
 */
record TileProblem(TileVariant.Pass pass, long rows, long columns, long depth, int elementBytes) {
  /** Tiles that cover the result. */
  long tiles(TileVariant variant) {
    return Math.ceilDiv(rows, (long) variant.blockM())
        * Math.ceilDiv(columns, (long) variant.blockN());
  }
}
