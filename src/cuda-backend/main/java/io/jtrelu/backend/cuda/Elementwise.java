package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.DataType;

/** Sizes shared by the kernels made from elementwise.cuh. */
final class Elementwise {
  private static final long TILE_BYTES = 256 * 4 * 16; // threads, packs, bytes of a pack

  private Elementwise() {}

  /** Blocks for so many elements of a type. */
  static long blocks(long elements, DataType type) {
    return Math.ceilDiv(elements, TILE_BYTES / type.bytes());
  }
}
