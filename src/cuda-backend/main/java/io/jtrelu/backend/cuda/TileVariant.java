package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * A tiled convolution kernel: a line of cuda/kernels/conv2d_variants.def, where the fields are
 * explained.
 *
 * @param pass which of the three passes it does
 * @param form what kind of problem it is for
 * @param name its entry point
 * @param type compute type: bf16, f16, tf32 or f32
 * @param dstChannels the wgrad's channels of diff_dst, or the channels of {@code in}, must be a
 *     multiple of this, and aligned to 16 bytes where it is more than 1
 * @param srcChannels likewise the wgrad's channels of src; 1 for the others
 * @param blockM rows of a block's tile
 * @param blockN columns of a block's tile
 * @param blockK depth of one pipeline stage
 * @param stages of its pipeline
 * @param warpM rows of a warp's tile
 * @param warpN columns of a warp's tile
 * @param threads of a block
 * @param sharedMemory of a block in bytes
 */
record TileVariant(
    Pass pass,
    Form form,
    String name,
    String type,
    int dstChannels,
    int srcChannels,
    int blockM,
    int blockN,
    int blockK,
    int stages,
    int warpM,
    int warpN,
    int threads,
    int sharedMemory) {
  private static final int ROW_BYTES = 64; // of an operand's row in a stage
  private static final int REGISTERS = 65_536; // of a multiprocessor, since compute capability 8.0
  private static final int RESERVED = 1024; // bytes of shared memory that each block takes besides

  /** The passes of a convolution. */
  enum Pass {
    FPROP,
    DGRAD,
    WGRAD
  }

  /** Kinds of problems. */
  enum Form {
    /** All that its channels fit. */
    GENERAL,
    /** Channel counts that do not fill 16 bytes. */
    STEM,
    /** 1x1 filters over few channels, of which a block reads its pixels once. */
    PANEL
  }

  /** All variants of this build. */
  static List<TileVariant> all() {
    List<TileVariant> variants = new ArrayList<>();
    for (String line : Kernels.lines("conv2d_variants.def")) {
      int open = line.indexOf('(');
      if (open > 0 && line.endsWith(")") && !line.startsWith("//")) {
        variants.add(parse(line.substring(0, open), line.substring(open + 1, line.length() - 1)));
      }
    }
    return variants;
  }

  private static TileVariant parse(String kind, String fields) {
    String[] words = kind.split("_", 2);
    Pass pass = Pass.valueOf(words[0]);
    Form form = words.length == 1 ? Form.GENERAL : Form.valueOf(words[1]);
    String[] field = fields.split(",", -1);
    int[] number = new int[field.length];
    for (int i = 2; i < field.length; i++) {
      number[i] = Integer.parseInt(field[i].strip());
    }
    int tile = pass == Pass.WGRAD ? 4 : 3; // where blockM is
    return new TileVariant(
        pass,
        form,
        field[0].strip(),
        field[1].strip().toLowerCase(Locale.ROOT),
        number[2],
        pass == Pass.WGRAD ? number[3] : 1,
        number[tile],
        number[tile + 1],
        number[tile + 2],
        number[tile + 3],
        number[tile + 4],
        number[tile + 5],
        number[tile + 6],
        number[tile + 7]);
  }

  /** Whether it takes operands that begin at any element. */
  boolean takesAnyAlignment() {
    return dstChannels == 1 && srcChannels == 1;
  }

  /** Whether it is for channel counts that do not fill 16 bytes. */
  boolean stem() {
    return form == Form.STEM;
  }

  /** Whether it is for 1x1 filters, and its blocks walk over several column tiles. */
  boolean panel() {
    return form == Form.PANEL;
  }

  /** Bytes of an operand's row in a stage. */
  int rowBytes() {
    return ROW_BYTES;
  }

  /** The longest contraction that it takes. */
  long mostDepth() {
    return panel()
        ? (long) (sharedMemory / ROW_BYTES - stages * blockN) / blockM * blockK
        : Long.MAX_VALUE;
  }

  /**
   * Blocks that a multiprocessor holds at once, from the size of a warp's tile. It is not asked of
   * the driver, whose answer depends on compilers: what follows from it is part of a result's bits.
   *
   * @param multiprocessorSharedMemory in bytes
   */
  int resident(int multiprocessorSharedMemory) {
    int area = warpM * warpN;
    int registers = area >= 4096 ? 248 : area >= 2048 ? 168 : 96;
    return Math.max(
        1,
        Math.min(
            REGISTERS / (registers * threads),
            multiprocessorSharedMemory / (sharedMemory + RESERVED)));
  }
}
