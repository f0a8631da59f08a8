package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Tuning;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/**
 * Weight gradients by the kernels of compute capability 9.0: integers, hence bit for bit what the
 * reference backend computes, with the device's checkers silent. Random shapes and reals are the
 * contract's ({@link HopperSubject}).
 */
class HopperWeightGradientTest {
  /** What tensor maps, tiles, stages and splits can get wrong. */
  private static final List<Conv2dDescriptor> PROBLEMS =
      List.of(
          Conv2dDescriptor.of(1, 1, 1, 64, 8, 1, 1, 0), // one pixel, few channels
          Conv2dDescriptor.of(2, 9, 15, 8, 64, 1, 1, 0), // stages across images
          Conv2dDescriptor.of(3, 14, 14, 328, 264, 1, 1, 0), // tiles that overhang, an odd number
          Conv2dDescriptor.of(1, 40, 33, 64, 16, 1, 1, 0), // several splits
          Conv2dDescriptor.of(2, 13, 9, 128, 264, 1, 2, 0), // stride
          Conv2dDescriptor.of(3, 7, 6, 72, 64, 3, 2, 1), // taps, some of no box
          Conv2dDescriptor.of(1, 11, 12, 64, 40, 5, 3, 4), // beyond both edges
          Conv2dDescriptor.of(1, 5, 5, 64, 64, 3, 1, 4),
          new Conv2dDescriptor(2, 12, 10, 72, 64, 3, 2, 1, 2, 2, 0, 1, 3, 2, 3, 1));

  /** What taps, edges, splits and the ring of a window can get wrong. */
  private static final List<Conv2dDescriptor> WINDOWS =
      List.of(
          Conv2dDescriptor.of(2, 8, 9, 64, 128, 3, 1, 1),
          Conv2dDescriptor.of(1, 1, 1, 72, 8, 3, 1, 1), // taps beyond all edges
          Conv2dDescriptor.of(3, 7, 7, 64, 64, 3, 1, 1), // many images in 64 pixels
          Conv2dDescriptor.of(3, 13, 27, 72, 200, 3, 1, 1), // tiles that overhang
          Conv2dDescriptor.of(2, 33, 31, 8, 16, 3, 1, 1), // several splits
          Conv2dDescriptor.of(1, 3, 240, 8, 24, 3, 1, 1), // taps far apart
          new Conv2dDescriptor(2, 9, 9, 16, 16, 3, 2, 1, 1, 4, 0, 2, 3, 3, 3, 1),
          new Conv2dDescriptor(2, 6, 11, 16, 8, 2, 2, 1, 1, 0, 1, 1, 0, 1, 1, 1), // even
          new Conv2dDescriptor(1, 6, 19, 24, 16, 1, 7, 1, 1, 0, 3, 0, 3, 1, 1, 1), // seven taps
          new Conv2dDescriptor(1, 19, 6, 24, 16, 7, 1, 1, 1, 3, 0, 3, 0, 1, 1, 1));

  @AfterEach
  void reset() {
    EmulatorControl.multiprocessors(8);
    System.clearProperty(HopperConvolution.PROPERTY);
    System.clearProperty(CudaBackend.TILE_PROPERTY);
  }

  @TestFactory
  List<DynamicTest> everyTile() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : List.of(DataType.BF16, DataType.F16)) {
      for (HopperWeightTile tile : HopperWeightTile.all()) {
        for (Conv2dDescriptor d : tile.window() ? WINDOWS : PROBLEMS) {
          if (type == DataType.BF16 || d.dilationW() > 1) { // types differ in little
            String name = tile.kernel(type) + " " + d;
            tests.add(DynamicTest.dynamicTest(name, () -> check(tile, d, type, 8)));
          }
        }
      }
    }
    return tests;
  }

  /** One split that goes round the ring many times; with taps as far apart as they may be. */
  @TestFactory
  List<DynamicTest> longSplits() {
    List<DynamicTest> tests = new ArrayList<>();
    for (HopperWeightTile tile : HopperWeightTile.all()) {
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(1, 52, 47, 16, 16, 3, 1, 1),
              Conv2dDescriptor.of(1, 9, 240, 8, 8, 3, 1, 1))) {
        tests.add(
            DynamicTest.dynamicTest(
                tile.title() + " " + d,
                () -> {
                  check(tile, d, DataType.BF16, tile.cluster());
                  assertEquals(1, plan(tile, d, tile.cluster()).splits());
                }));
      }
    }
    return tests;
  }

  private static HopperWeightGradient.Plan plan(
      HopperWeightTile tile, Conv2dDescriptor d, int multiprocessors) {
    return HopperWeightGradient.plan(tile, d, new ConvolutionBounds(multiprocessors));
  }

  private static void check(
      HopperWeightTile tile, Conv2dDescriptor d, DataType type, int multiprocessors) {
    EmulatedSubject.openPlain().close(); // loads the driver, or skips the test
    EmulatorControl.multiprocessors(multiprocessors);
    try (Backend reference = Backends.open("reference");
        Backend hopper = HopperSubject.taking(tile.title())) {
      List<float[]> expected = CudaTilesTest.passes(reference, d, type);
      EmulatorControl.clearCounters();
      List<float[]> actual = CudaTilesTest.passes(hopper, d, type);
      assertArrayEquals(expected.get(2), actual.get(2), d + ", weights");
      assertArrayEquals(expected.get(3), actual.get(3), d + ", bias");
      List<JsonNode> launches = launches(tile.kernel(type));
      assertEquals(1, launches.size(), tile.title());
      counters(tile, launches.getFirst(), d, multiprocessors);
    }
  }

  /** Products of whole tiles and stages, a matrix of ones for the bias; what copies bring. */
  private static void counters(
      HopperWeightTile tile, JsonNode c, Conv2dDescriptor d, int multiprocessors) {
    long pixels = (long) d.n() * d.oh() * d.ow();
    long stages = Math.ceilDiv(pixels, 64L);
    long tilesM = (long) Math.ceilDiv(d.oc(), tile.rows() * tile.cluster()) * tile.cluster();
    long chunks = Math.ceilDiv(d.ic(), 64);
    long taps = (long) d.kh() * d.kw();
    long tilesN = tile.window() ? chunks : Math.ceilDiv(chunks * taps, tile.columns() / 64);
    long products = tilesM * tilesN * stages * 64 * tile.rows() * tile.columns();
    assertEquals(tile.window() ? 9 * products : products, c.get("warpgroupMultiplyAdds").asLong());
    long bias = tilesM * stages * 64 * tile.rows() * 8;
    assertEquals(
        bias, c.get("tensorMultiplyAdds").asLong() - c.get("warpgroupMultiplyAdds").asLong());
    if (tile.window()) {
      assertEquals(0, c.get("bulkLoadBytes").asLong());
      assertEquals(asked(tile, d, multiprocessors), c.get("globalLoadBytes").asLong());
    } else {
      long loads = tilesM * tilesN * stages * 64 * 2 * (tile.rows() + tile.columns());
      assertEquals(loads, c.get("bulkLoadBytes").asLong());
      assertEquals(tile.cluster() > 1, c.get("multicastSavedBytes").asLong() > 0);
    }
    assertEquals(0, c.get("sharedLoadBankConflicts").asLong());
    assertEquals(0, c.get("sharedStoreBankConflicts").asLong());
  }

  /**
   * Bytes that a window's blocks ask for: pixels of their splits, of src also those beside them
   * that taps see, but none outside of the tensor; 16 of each time round the ring twice; and the
   * gradients, where one split adds to them.
   */
  private static long asked(HopperWeightTile tile, Conv2dDescriptor d, int multiprocessors) {
    HopperWeightGradient.Plan plan = plan(tile, d, multiprocessors);
    long pixels = (long) d.n() * d.h() * d.w();
    long ofDiffDst = 0;
    long ofSrc = 0;
    for (int split = 0; split < plan.splits(); split++) {
      long begin = (long) split * plan.length() * 64;
      long end = Math.min(pixels, begin + 64L * plan.length());
      ofDiffDst += end - begin;
      long first = begin - (long) d.padTop() * d.w() - d.padLeft();
      long copied = (Math.ceilDiv(end - begin, 64L) + plan.ahead()) * 64;
      for (long i = 0; i < copied; i++) {
        if (first + i >= 0 && first + i < pixels) {
          ofSrc += i % tile.ring() < 16 ? 2 : 1;
        }
      }
    }
    long gradients = plan.splits() == 1 ? d.weights().elements() + d.oc() : 0;
    return 2 * (ofDiffDst * d.oc() * plan.tilesN() + ofSrc * d.ic() * plan.tilesM())
        + 4 * gradients;
  }

  private static List<JsonNode> launches(String kernel) {
    return EmulatorControl.counters().stream()
        .filter(launch -> launch.get("kernel").asText().startsWith(kernel))
        .toList();
  }

  /** The same bits whatever the order in which warps and blocks run and copies arrive. */
  @TestFactory
  List<DynamicTest> bitsDoNotDependOnOrders() {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 23, 31, 72, 16, 3, 1, 1);
    return HopperWeightTile.all().stream()
        .map(
            tile ->
                DynamicTest.dynamicTest(
                    tile.title(),
                    () -> {
                      List<float[]> first = ofReals(tile, d);
                      try {
                        for (int seed = 1; seed < 4; seed++) {
                          EmulatorControl.seed(seed);
                          List<float[]> again = ofReals(tile, d);
                          assertArrayEquals(first.get(0), again.get(0), "weights, seed " + seed);
                          assertArrayEquals(first.get(1), again.get(1), "bias, seed " + seed);
                        }
                      } finally {
                        EmulatorControl.seed(0);
                      }
                    }))
        .toList();
  }

  private static List<float[]> ofReals(HopperWeightTile tile, Conv2dDescriptor d) {
    try (Backend backend = HopperSubject.taking(tile.title());
        Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY);
        Tensor src = random(backend, stream, 3, d.src());
        Tensor diffDst = random(backend, stream, 4, d.dst());
        Tensor diffWeights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor diffBias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      EmulatorControl.clearCounters();
      conv.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.OVERWRITE);
      List<float[]> results =
          List.of(download(backend, stream, diffWeights), download(backend, stream, diffBias));
      assertEquals(1, launches(tile.kernel(DataType.BF16)).size());
      assertEquals(1, launches("conv2d_wgrad_reduce").size(), "several splits");
      return results;
    }
  }

  private static Tensor random(Backend backend, Stream stream, long seed, Shape shape) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextDouble(-1, 1);
    }
    Tensor tensor = backend.allocate(shape, DataType.BF16, Layout.NHWC);
    try (Tensor host = Tensor.allocate(shape, DataType.BF16, Layout.NHWC).set(values)) {
      backend.copy(stream, host, tensor);
      stream.synchronize();
    }
    return tensor;
  }

  private static float[] download(Backend backend, Stream stream, Tensor tensor) {
    try (Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout())) {
      backend.copy(stream, tensor, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  @Test
  void otherProblemsKeepTheTiles() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.computeCapability(9, 0);
    System.setProperty(CudaBackend.TILE_PROPERTY, "sm90");
    try {
      Conv2dDescriptor d = Conv2dDescriptor.of(1, 9, 9, 16, 16, 3, 1, 1);
      assertTrue(used(d, DataType.BF16));
      assertFalse(used(d, DataType.F32));
      assertFalse(used(Conv2dDescriptor.of(1, 3, 3, 12, 16, 3, 1, 1), DataType.BF16));
      assertFalse(used(Conv2dDescriptor.of(1, 3, 3, 16, 12, 3, 1, 1), DataType.BF16));
      assertFalse(used(Conv2dDescriptor.of(1, 30, 30, 8, 8, 1, 9, 0), DataType.BF16), "stride");
      System.setProperty(CudaBackend.TILE_PROPERTY, "wgrad_sm90_bf16_window");
      assertTrue(used(d, DataType.BF16));
      assertFalse(used(Conv2dDescriptor.of(1, 9, 9, 16, 16, 3, 2, 1), DataType.BF16), "stride");
      assertFalse(used(Conv2dDescriptor.of(1, 9, 9, 16, 16, 3, 1, 0), DataType.BF16), "extent");
      assertFalse(used(Conv2dDescriptor.of(1, 9, 9, 16, 16, 5, 1, 2), DataType.BF16), "25 taps");
      assertFalse(used(Conv2dDescriptor.of(1, 9, 9, 16, 16, 1, 1, 0), DataType.BF16), "one tap");
      assertFalse(used(Conv2dDescriptor.of(1, 3, 300, 8, 8, 3, 1, 1), DataType.BF16), "wide");
      System.setProperty(CudaBackend.TILE_PROPERTY, "sm90");
      System.setProperty(HopperConvolution.PROPERTY, "false");
      assertFalse(used(d, DataType.BF16));
      System.clearProperty(HopperConvolution.PROPERTY);
      EmulatorControl.computeCapability(10, 0);
      assertFalse(used(d, DataType.BF16));
    } finally {
      EmulatorControl.computeCapability(8, 0);
    }
  }

  private static boolean used(Conv2dDescriptor d, DataType type) {
    try (Backend backend = new EmulatedSubject().open()) {
      EmulatorControl.clearCounters();
      CudaTilesTest.passes(backend, d, type);
      return !launches("conv2d_wgrad_sm90").isEmpty();
    }
  }

  /** An autotuner tries each tile that can do a pass. */
  @Test
  void tilesAreCandidates(@TempDir Path folder) {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 6, 6, 16, 16, 3, 1, 1);
    System.setProperty(TuningFile.PROPERTY, folder.resolve("tuning").toString());
    try (Backend backend = HopperSubject.taking()) {
      backend.tune(Tuning.ALWAYS, Map.of());
      EmulatorControl.clearCounters();
      backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY).close();
      for (HopperWeightTile tile : HopperWeightTile.all()) {
        assertFalse(launches(tile.kernel(DataType.BF16)).isEmpty(), tile.title());
      }
    } finally {
      System.clearProperty(TuningFile.PROPERTY);
    }
  }

  /** An operation tells the workspace of its splits before it runs. */
  @Test
  void scratchHoldsTheSplits() {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 33, 31, 8, 16, 3, 1, 1);
    for (HopperWeightTile tile : HopperWeightTile.all()) {
      int splits = plan(tile, d, 8).splits();
      assertTrue(splits > 1, tile.title());
      try (Backend backend = HopperSubject.taking(tile.title());
          Conv2d conv = backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY)) {
        assertTrue(conv.scratchBytes() >= splits * 4L * (d.weights().elements() + d.oc()));
      }
    }
  }

  /**
   * What is taken at a batch of 256 on an H200: as in docs/cuda-traffic.md, and in how many splits.
   */
  @Test
  void taken() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.multiprocessors(132);
    EmulatorControl.computeCapability(9, 0);
    try {
      assertEquals("_window_64x64/131", taken(56, 64, 64, 3, 1));
      assertEquals("_window_64x64/33", taken(28, 128, 128, 3, 1));
      assertEquals("_window_64x64/8", taken(14, 256, 256, 3, 1));
      assertEquals("_window_64x64/2", taken(7, 512, 512, 3, 1));
      // Pairs where L2 limits the tiles; those where memory does, or half of a tile is empty.
      assertEquals("_pair_128x256/16", taken(14, 256, 1024, 1, 1));
      assertEquals("_pair_128x256/4", taken(7, 2048, 512, 1, 1));
      assertEquals("_pair_128x256/7", taken(28, 256, 256, 3, 2));
      assertEquals("tiles", taken(56, 256, 64, 1, 1));
      assertEquals("tiles", taken(28, 512, 128, 1, 1));
      assertEquals("tiles", taken(56, 128, 128, 3, 2));
      assertEquals("none can", taken(28, 12, 64, 3, 1));
    } finally {
      EmulatorControl.computeCapability(8, 0);
    }
  }

  private static String taken(int extent, int ic, int oc, int kernel, int stride) {
    Conv2dDescriptor d = Conv2dDescriptor.same(256, extent, extent, ic, oc, kernel, stride);
    ConvolutionProblem problem = new ConvolutionProblem(d, Pass.WGRAD, DataType.BF16, false, false);
    try (CudaBackend backend = (CudaBackend) EmulatedSubject.openPlain()) {
      List<HopperWeightTile> able = HopperWeightGradient.able(backend, problem);
      if (able.isEmpty()) {
        return "none can";
      }
      TiledConvolution own =
          new TiledConvolution(backend, d, DataType.BF16, Rectifier.IDENTITY, backend.tiles());
      return HopperWeightGradient.taken(backend, able, problem, own)
          .map(tile -> tile.title() + "/" + plan(tile, d, 132).splits())
          .orElse("tiles");
    }
  }
}
