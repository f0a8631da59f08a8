package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.cuda.TileVariant.Pass;
import java.util.List;
import java.util.function.ToIntFunction;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Choices that the cost model must make, on a device like an H200: 132 multiprocessors. */
class TileCostModelTest {
  private static final TileCostModel MODEL = new TileCostModel(132);
  private static final int SHARED = 228 << 10;

  @BeforeEach
  void kernels() {
    Assumptions.assumeTrue(Kernels.missing() == null, "no kernels in this build");
  }

  private static int resident(TileVariant v) {
    return v.resident(SHARED);
  }

  private static TileVariant best(TileProblem problem, ToIntFunction<TileVariant> resident) {
    List<TileVariant> able =
        TileVariant.all().stream()
            .filter(v -> v.pass() == problem.pass() && v.type().equals("bf16"))
            .filter(v -> !v.takesAnyAlignment() && !v.stem())
            .filter(v -> v.pass() != Pass.WGRAD || v.srcChannels() == 8)
            .filter(v -> problem.depth() <= v.mostDepth())
            .toList();
    return MODEL.choose(able, resident, problem);
  }

  private static String tile(Pass pass, long rows, long columns, long depth) {
    TileVariant best =
        best(new TileProblem(pass, rows, columns, depth, 2), TileCostModelTest::resident);
    return best.blockM() + "x" + best.blockN();
  }

  /** ResNet-50's layers at a batch of 256: as wide as the output, large where the grid is. */
  @Test
  void largeBatches() {
    for (Pass pass : List.of(Pass.FPROP, Pass.DGRAD)) {
      assertTrue(tile(pass, 256 * 56 * 56, 64, 576).endsWith("x64"));
      assertEquals("128x32", tile(pass, 256 * 56 * 56, 32, 288));
      assertTrue(tile(pass, 256 * 28 * 28, 128, 1152).endsWith("x128"));
      assertTrue(tile(pass, 256 * 14 * 14, 256, 2304).endsWith("x128"));
      assertTrue(tile(pass, 256 * 7 * 7, 512, 4608).endsWith("x128"));
    }
  }

  /** The largest tile only where there is work for many waves of it. */
  @Test
  void theLargestTile() {
    assertEquals("256x128", tile(Pass.FPROP, 1 << 20, 1024, 4608));
    assertTrue(!tile(Pass.FPROP, 132 * 128, 128, 4608).equals("256x128"));
  }

  /**
   * Where a block can keep its pixels it does, and walks over as many columns as fill the device.
   */
  @Test
  void panels() {
    TileProblem expand = new TileProblem(Pass.FPROP, 256 * 14 * 14, 1024, 256, 2);
    TileVariant panel = best(expand, TileCostModelTest::resident);
    assertTrue(panel.panel(), panel.name());
    // 196 row tiles and 8 column tiles: 2.97 waves of blocks with half of the columns each.
    assertEquals(4, expand.columnTiles(panel, 132));
    assertEquals(392, expand.blocks(panel, 4));
    TileProblem few = new TileProblem(Pass.FPROP, 256, 1024, 256, 2);
    assertEquals(1, few.columnTiles(panel, 132)); // a block for each tile of a small result
    TileProblem deep = new TileProblem(Pass.FPROP, 256 * 14 * 14, 1024, 512, 2);
    assertTrue(!best(deep, TileCostModelTest::resident).panel());
  }

  /** Of the taps that a tile asks for, those that are not the first to touch a pixel cost no L2. */
  @Test
  void tapsThatMeet() {
    TileVariant v =
        TileVariant.all().stream()
            .filter(w -> w.name().equals("conv2d_fprop_bf16_256x128x32"))
            .findFirst()
            .orElseThrow();
    TileProblem.Window window = new TileProblem.Window(9, 1, 1, 2 * 28 + 2, 1);
    TileProblem square = new TileProblem(Pass.FPROP, 1 << 20, 128, 1152, 2, window);
    assertEquals((256 + 58) / (9 * 256.0), square.missed(v), 1e-12);
    TileProblem point = new TileProblem(Pass.FPROP, 1 << 20, 128, 128, 2);
    assertEquals(1, point.missed(v));
  }

  /** A grid that would leave multiprocessors idle takes smaller tiles. */
  @Test
  void smallGrids() {
    assertEquals("64x64", tile(Pass.FPROP, 32 * 64, 256, 1152));
    assertEquals("64x64", tile(Pass.DGRAD, 4 * 7 * 7, 512, 4608));
  }

  /** What a multiprocessor can hold decides between tiles of equal grids. */
  @Test
  void residency() {
    TileProblem problem = new TileProblem(Pass.FPROP, 1 << 20, 128, 1152, 2);
    TileVariant large = best(problem, v -> 2);
    assertEquals(128, large.blockN());
    TileVariant other = best(problem, v -> v.equals(large) ? 1 : 2);
    double alone = MODEL.cost(large, 1, problem);
    assertTrue(alone > MODEL.cost(large, 2, problem));
    assertTrue(MODEL.cost(other, 2, problem) <= alone);
  }

  /** Never above the time of one block after the other, never below the products' at full rate. */
  @Test
  void bounds() {
    for (TileVariant v : TileVariant.all()) {
      TileProblem problem = new TileProblem(v.pass(), 1000, 200, 3000, 2);
      double products = (double) problem.tiles(v) * v.blockM() * v.blockN() * 3000;
      double least = products / 132 / 1024;
      double cost = MODEL.cost(v, resident(v), problem);
      assertTrue(cost >= least, v.name());
      assertTrue(cost <= MODEL.cost(v, 1, problem) * 1.5, v.name());
    }
  }

  @Test
  void splits() {
    TileVariant v =
        TileVariant.all().stream()
            .filter(w -> w.name().equals("conv2d_wgrad_bf16_64x64x32"))
            .findFirst()
            .orElseThrow();
    TileProblem large = new TileProblem(Pass.WGRAD, 64, 576, 256 * 56 * 56, 2);
    assertEquals(132 * 5 / 9, MODEL.splits(v, 5, large)); // a wave of 9 tiles: more adds sums
    TileProblem shallow = new TileProblem(Pass.WGRAD, 64, 576, 1000, 2);
    assertEquals(4, MODEL.splits(v, 5, shallow)); // 8 stages of 32 pixels each, at least
    TileProblem empty = new TileProblem(Pass.WGRAD, 64, 576, 0, 2);
    assertEquals(1, MODEL.splits(v, 5, empty));
    TileProblem wide = new TileProblem(Pass.WGRAD, 8192, 8192, 1 << 20, 2);
    assertEquals(1, MODEL.splits(v, 5, wide)); // partial sums of at most 256 MiB
    TileProblem forward = new TileProblem(Pass.FPROP, 64, 576, 1 << 20, 2);
    assertEquals(1, MODEL.splits(v, 5, forward));
  }
}
