package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.DataType;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * A tile of the kernels for compute capability 9.0: a line of
 * cuda/kernels/conv2d_sm90_variants.def, where the fields are explained.
 *
 * @param cluster blocks that share their weights: 1 or, of a pair, 2
 * @param rows pixels
 * @param columns output channels
 * @param groups warpgroups that multiply
 * @param blocks of 64 pixels that each of them takes
 * @param pixels that a window tile holds of what it gathers; 0 for tiles that copy each tap
 * @param parts in which its columns are multiplied one after another: 1, but for panels, which keep
 *     their pixels meanwhile
 * @param threads of a block
 * @param sharedMemory of a block in bytes
 */
record HopperTile(
    int cluster,
    int rows,
    int columns,
    int groups,
    int blocks,
    int pixels,
    int parts,
    int threads,
    int sharedMemory) {
  /** Channels that are copied and multiplied at once. */
  static final int CHUNK = 64;

  /** Pixels of a copy into a window tile. */
  static final int BOX = 32;

  private static final int PANEL_CHUNKS = 4; // that a panel keeps
  private static final int PANEL_PARTS = 4;
  private static final int ROW_BYTES = 128; // of 64 channels
  private static final int OPERAND_WIDTH = 128; // columns that a wgmma takes at most

  /**
   * What a tile takes.
   *
   * @param loads bytes that are copied into shared memory
   * @param asked bytes of them that the second-level cache is asked for: what blocks of a cluster
   *     share counts once
   * @param operands bytes that are read there
   * @param products multiply-adds
   */
  record Work(double loads, double asked, double operands, double products) {
    /** With another's. */
    Work plus(Work other) {
      return new Work(
          loads + other.loads,
          asked + other.asked,
          operands + other.operands,
          products + other.products);
    }

    /** Where what is copied lies outside of all tensors. */
    Work withoutAsking() {
      return new Work(loads, 0, operands, products);
    }

    /** One of so many parts. */
    Work over(int parts) {
      return new Work(loads / parts, asked / parts, operands / parts, products / parts);
    }

    /** Bytes that pass through shared memory. */
    double shared() {
      return loads + operands;
    }
  }

  /** All tiles of this build. */
  static List<HopperTile> all() {
    return Kernels.lines("conv2d_sm90_variants.def").stream()
        .filter(line -> line.matches("((WINDOW_|PANEL_)?PAIR|WINDOW|PANEL|TILE)\\(.*"))
        .map(HopperTile::parse)
        .toList();
  }

  private static HopperTile parse(String line) {
    int open = line.indexOf('(');
    int[] number =
        Arrays.stream(line.substring(open + 1, line.indexOf(')')).split(",", -1))
            .mapToInt(field -> Integer.parseInt(field.strip()))
            .toArray();
    int cluster = line.substring(0, open).endsWith("PAIR") ? 2 : 1;
    if (line.startsWith("WINDOW")) {
      return new HopperTile(cluster, number[0], number[1], 2, 2, number[3], 1, 384, number[4]);
    }
    if (line.startsWith("PANEL")) {
      return new HopperTile(cluster, number[0], number[1], 2, 2, 0, PANEL_PARTS, 384, number[3]);
    }
    return new HopperTile(
        cluster, number[0], number[1], number[2], number[3], 0, 1, number[6], number[7]);
  }

  /** Whether it copies what all taps of a filter see at once. */
  boolean window() {
    return pixels > 0;
  }

  /** Whether it keeps its pixels while it multiplies its columns in parts. */
  boolean panel() {
    return parts > 1;
  }

  /** Columns that are multiplied at once. */
  int columnsOfPart() {
    return columns / parts;
  }

  /** Whether a panel keeps so many channels. */
  boolean keeps(int chunks) {
    return chunks <= PANEL_CHUNKS;
  }

  /** Its kernel's name, for a pass of a convolution of stride 1, or any forward pass. */
  String kernel(TileVariant.Pass pass, DataType type) {
    return kernel(pass.name().toLowerCase(Locale.ROOT), type);
  }

  /** Its kernel's name for a data gradient of a strided convolution. */
  String stridedKernel(DataType type) {
    return kernel("dgrad_strided", type);
  }

  private String kernel(String pass, DataType type) {
    return "conv2d_" + pass + "_sm90" + Kernels.suffix(type) + title();
  }

  /** The end of its kernel's name. */
  String title() {
    return (window() ? "_window" : panel() ? "_panel" : "")
        + (cluster == 2 ? "_pair_" : "_")
        + rows
        + "x"
        + columns;
  }

  int tilesN(long outChannels) {
    return Math.toIntExact(Math.ceilDiv(outChannels, (long) columns));
  }

  /** Tiles that cover a result; as many for each block of a cluster. */
  int tiles(long outPixels, long outChannels) {
    long clusters = Math.ceilDiv(outPixels, (long) rows * cluster);
    return Math.toIntExact(clusters * cluster * tilesN(outChannels));
  }

  /** Blocks that take so many tiles in turn. */
  int grid(int tiles, int multiprocessors) {
    int most = Math.max(cluster, multiprocessors / cluster * cluster);
    return Math.min(tiles, most);
  }

  /** Copies of a window tile for each 64 channels, where its taps see so many pixels besides. */
  int boxes(long halo) {
    return window() ? Math.toIntExact(Math.ceilDiv(rows + halo, (long) BOX)) : 0;
  }

  /** Whether a window tile holds what its taps see. */
  boolean holds(long halo) {
    return rows + halo <= pixels && boxes(halo) * BOX <= pixels;
  }

  /**
   * Of one tile.
   *
   * @param taps of the filter
   * @param chunks of 64 channels
   * @param halo pixels besides the tile's own that the taps of a window tile see
   */
  Work work(int taps, int chunks, long halo) {
    double steps = (double) taps * chunks;
    double products = steps * rows * columns * CHUNK;
    double weights = steps * columns * ROW_BYTES;
    double all = rows / 64.0;
    double shared = weights / cluster;
    if (window()) { // A is read once, and comes from registers
      double gathered = (double) chunks * boxes(halo) * BOX * ROW_BYTES;
      return new Work(
          gathered + weights,
          gathered + shared,
          steps * all * (CHUNK + columns) * ROW_BYTES,
          products);
    }
    int width = Math.min(columns, OPERAND_WIDTH);
    int parts = columns / width;
    double gathered = steps * rows * ROW_BYTES;
    return new Work(
        gathered + weights,
        gathered + shared,
        steps * all * parts * (CHUNK + width) * ROW_BYTES,
        products);
  }
}
