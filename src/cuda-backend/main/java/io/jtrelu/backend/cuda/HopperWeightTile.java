package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.tensor.DataType;
import java.util.Arrays;
import java.util.List;

/**
 * A tile of the weight gradients for compute capability 9.0: a line of
 * cuda/kernels/conv2d_sm90_variants.def, where the fields are explained.
 *
 * @param cluster blocks that share their pixels of src: 1 or, of a pair, 2
 * @param rows channels of diff_dst
 * @param columns channels of src, for a window of each of its taps
 * @param stages of pixels, for a window of diff_dst alone
 * @param ring pixels of src that a window holds, whose blocks take all taps; 0 for tiles that copy
 *     each tap
 * @param threads of a block
 * @param sharedMemory of a block in bytes
 */
record HopperWeightTile(
    int cluster, int rows, int columns, int stages, int ring, int threads, int sharedMemory) {
  /** Taps of a filter that a window takes. */
  static final int TAPS = 9;

  /** Pixels of a stage. */
  static final int STAGE = 64;

  private static final int CHUNK = 64; // channels of a copy
  private static final int STEP = 16; // pixels of a wgmma
  private static final int GROUPS = 3; // warpgroups that multiply, of a window
  private static final int OPERAND_WIDTH = 128; // columns of a wgmma of other tiles
  private static final int WRAPPED = 16; // pixels of the ring that are copied twice
  private static final int MASKS = 2 * 4 * 128; // bytes that a warpgroup reads for 16 pixels

  /**
   * What a block takes.
   *
   * @param loads bytes that it copies into shared memory
   * @param asked bytes of them that the second-level cache is asked for: what blocks of a cluster
   *     share counts once
   * @param operands bytes that are read there
   * @param products multiply-adds
   */
  record Work(double loads, double asked, double operands, double products) {
    /** Bytes that pass through shared memory. */
    double shared() {
      return loads + operands;
    }
  }

  /** All tiles of this build. */
  static List<HopperWeightTile> all() {
    return Kernels.lines("conv2d_sm90_variants.def").stream()
        .filter(line -> line.startsWith("WGRAD_"))
        .map(HopperWeightTile::parse)
        .toList();
  }

  private static HopperWeightTile parse(String line) {
    int open = line.indexOf('(');
    int[] number =
        Arrays.stream(line.substring(open + 1, line.indexOf(')')).split(",", -1))
            .mapToInt(field -> Integer.parseInt(field.strip()))
            .toArray();
    return switch (line.substring(0, open)) {
      case "WGRAD_WINDOW" ->
          new HopperWeightTile(1, number[0], number[1], number[2], number[3], 512, number[4]);
      case "WGRAD_TILE" ->
          new HopperWeightTile(1, number[0], number[1], number[2], 0, 384, number[3]);
      case "WGRAD_PAIR" ->
          new HopperWeightTile(2, number[0], number[1], number[2], 0, 384, number[3]);
      default -> throw new IllegalStateException(line);
    };
  }

  /** Whether its blocks take all taps of a filter. */
  boolean window() {
    return ring > 0;
  }

  /** Its kernel's name. */
  String kernel(DataType type) {
    return "conv2d_wgrad_sm90" + Kernels.suffix(type) + title();
  }

  /** The end of its kernel's name. */
  String title() {
    return (window() ? "_window_" : cluster == 2 ? "_pair_" : "_") + rows + "x" + columns;
  }

  /** Tiles along the channels of diff_dst, as many for each block of a cluster. */
  int tilesM(Conv2dDescriptor d) {
    return Math.ceilDiv(d.oc(), rows * cluster) * cluster;
  }

  /** Tiles along the channels of src, and their taps. */
  int tilesN(Conv2dDescriptor d) {
    int chunks = Math.ceilDiv(d.ic(), CHUNK);
    return Math.ceilDiv(window() ? chunks : chunks * d.kh() * d.kw(), columns / CHUNK);
  }

  /**
   * Stages of src that come before the first of diff_dst.
   *
   * @param halo pixels between what the first and the last tap of a filter see
   */
  int ahead(long halo) {
    return window() ? Math.toIntExact((STAGE - 1 + halo) / STAGE) : 0;
  }

  /** Whether a window's ring holds what is being multiplied, and what is copied meanwhile. */
  boolean holds(long halo) {
    return halo < ring && (ahead(halo) + stages) * STAGE <= ring;
  }

  /**
   * Of a block.
   *
   * @param length of its contraction in stages
   * @param ahead stages of src besides
   */
  Work work(long length, int ahead) {
    double pixels = (double) length * STAGE;
    double products = pixels * rows * columns;
    if (window()) {
      double seen = (double) (length + ahead) * STAGE;
      double twice = WRAPPED * Math.ceilDiv((length + ahead) * STAGE, (long) ring);
      double loads = 2 * (pixels * rows + (seen + twice) * columns);
      double step = (GROUPS * rows + TAPS * columns) * 2.0 * STEP + GROUPS * MASKS;
      return new Work(loads, loads, pixels / STEP * step, TAPS * products);
    }
    int instructions = rows / 64 * (columns / OPERAND_WIDTH);
    double step = instructions * (64.0 + OPERAND_WIDTH) * 2 * STEP;
    return new Work(
        2 * pixels * (rows + columns),
        2 * pixels * (rows + (double) columns / cluster),
        pixels / STEP * step,
        products);
  }
}
