package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * A tiled convolution kernel: a line of cuda/kernels/conv2d_variants.def, where the fields are
 * explained.
 *
 * @param pass which of the three passes it does
 * @param stem whether it is for channel counts that do not fill 16 bytes
 * @param name its entry point
 * @param type compute type: bf16, f16, tf32 or f32
 * @param dstChannels the wgrad's channels of diff_dst, or the channels of {@code in}, must be a
 *     multiple of this, and aligned to 16 bytes where it is more than 1
 * @param srcChannels likewise the wgrad's channels of src; 1 for the others
 * @param blockM rows of a block's tile
 * @param blockN columns of a block's tile
 * @param blockK depth of one pipeline stage
 * @param warpM rows of a warp's tile
 * @param warpN columns of a warp's tile
 * @param threads of a block
 * @param sharedMemory of a block in bytes
 */
record TileVariant(
    Pass pass,
    boolean stem,
    String name,
    String type,
    int dstChannels,
    int srcChannels,
    int blockM,
    int blockN,
    int blockK,
    int warpM,
    int warpN,
    int threads,
    int sharedMemory) {
  private static final String STEM = "_STEM";

  /** The passes of a convolution. */
  enum Pass {
    FPROP,
    DGRAD,
    WGRAD
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
    boolean stem = kind.endsWith(STEM);
    Pass pass = Pass.valueOf(stem ? kind.substring(0, kind.length() - STEM.length()) : kind);
    String[] field = fields.split(",", -1);
    int[] number = new int[field.length];
    for (int i = 2; i < field.length; i++) {
      number[i] = Integer.parseInt(field[i].strip());
    }
    int tile = pass == Pass.WGRAD ? 4 : 3; // where blockM is; stages follow blockK
    return new TileVariant(
        pass,
        stem,
        field[0].strip(),
        field[1].strip().toLowerCase(Locale.ROOT),
        number[2],
        pass == Pass.WGRAD ? number[3] : 1,
        number[tile],
        number[tile + 1],
        number[tile + 2],
        number[tile + 4],
        number[tile + 5],
        number[tile + 6],
        number[tile + 7]);
  }

  /** Whether it takes operands that begin at any element. */
  boolean takesAnyAlignment() {
    return dstChannels == 1 && srcChannels == 1;
  }
}
