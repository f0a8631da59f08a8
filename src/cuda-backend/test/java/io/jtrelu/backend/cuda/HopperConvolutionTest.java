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
import io.jtrelu.backend.PackedWeights;
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
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/**
 * The kernels of compute capability 9.0 through the launcher: integers, hence bit for bit what the
 * reference backend computes, with the device's checkers silent. Random shapes are the contract's
 * ({@link HopperSubject}).
 */
class HopperConvolutionTest {
  /** What tensor maps, tiles and stages can get wrong. */
  private static final List<Conv2dDescriptor> PROBLEMS =
      List.of(
          Conv2dDescriptor.of(1, 1, 1, 64, 8, 1, 1, 0), // one pixel, few channels
          Conv2dDescriptor.of(2, 9, 15, 8, 64, 1, 1, 0), // tiles across images, few channels of src
          Conv2dDescriptor.of(3, 14, 14, 200, 72, 1, 1, 0), // chunks and slices that overhang
          Conv2dDescriptor.of(2, 13, 9, 128, 264, 1, 2, 0), // columns of tiles, stride
          Conv2dDescriptor.of(2, 8, 9, 64, 128, 3, 1, 1),
          Conv2dDescriptor.of(3, 7, 6, 128, 64, 3, 2, 1),
          Conv2dDescriptor.of(1, 11, 12, 64, 40, 5, 3, 4), // beyond both edges
          Conv2dDescriptor.of(1, 5, 5, 64, 64, 3, 1, 4), // dgrad: a negative padding
          new Conv2dDescriptor(2, 12, 10, 64, 64, 3, 2, 1, 2, 2, 0, 1, 3, 2, 3, 1),
          new Conv2dDescriptor(2, 12, 10, 72, 64, 3, 2, 1, 1, 2, 0, 1, 3, 2, 3, 1),
          Conv2dDescriptor.of(1, 40, 60, 64, 64, 1, 1, 0)); // more tiles than multiprocessors

  /** Those whose result has the extent of src. */
  private static final List<Conv2dDescriptor> WINDOWS =
      List.of(
          Conv2dDescriptor.of(2, 8, 9, 64, 128, 3, 1, 1),
          Conv2dDescriptor.of(1, 1, 1, 72, 8, 3, 1, 1), // taps beyond all edges
          Conv2dDescriptor.of(3, 13, 27, 72, 264, 3, 1, 1), // chunks, columns of tiles
          Conv2dDescriptor.of(1, 6, 9, 64, 40, 5, 1, 2),
          new Conv2dDescriptor(2, 9, 9, 64, 64, 3, 2, 1, 1, 4, 0, 2, 3, 3, 3, 1),
          Conv2dDescriptor.of(4, 24, 28, 64, 64, 3, 1, 1)); // more tiles than multiprocessors

  /** 1x1 filters over few channels: one or several tiles in columns, chunks that overhang. */
  private static final List<Conv2dDescriptor> PANELS =
      List.of(
          Conv2dDescriptor.of(1, 1, 1, 64, 8, 1, 1, 0),
          Conv2dDescriptor.of(2, 9, 15, 8, 64, 1, 1, 0),
          Conv2dDescriptor.of(3, 14, 14, 200, 256, 1, 1, 0),
          Conv2dDescriptor.of(2, 13, 11, 256, 136, 1, 1, 0), // of dgrad: all that a panel keeps
          Conv2dDescriptor.of(1, 40, 60, 128, 64, 1, 1, 0)); // more tiles than multiprocessors

  /** Strided ones, whose data gradients come in phases. */
  private static final List<Conv2dDescriptor> STRIDED =
      List.of(
          Conv2dDescriptor.of(2, 12, 10, 64, 64, 3, 2, 1),
          Conv2dDescriptor.same(3, 13, 11, 72, 136, 3, 2), // phases that overhang
          Conv2dDescriptor.of(1, 9, 9, 40, 72, 1, 2, 0), // phases without taps
          Conv2dDescriptor.of(1, 11, 14, 64, 64, 2, 3, 0), // and of different ones
          Conv2dDescriptor.of(1, 13, 9, 128, 64, 5, 4, 2), // sixteen phases
          Conv2dDescriptor.of(2, 1, 1, 64, 8, 3, 2, 1), // one phase
          new Conv2dDescriptor(2, 12, 10, 64, 64, 3, 3, 1, 2, 2, 0, 1, 3, 2, 3, 1),
          Conv2dDescriptor.of(4, 48, 56, 64, 64, 3, 2, 1)); // more tiles than multiprocessors

  @AfterEach
  void reset() {
    System.clearProperty(HopperConvolution.PROPERTY);
    System.clearProperty(CudaBackend.TILE_PROPERTY);
  }

  @TestFactory
  List<DynamicTest> everyTile() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : List.of(DataType.BF16, DataType.F16)) {
      for (HopperTile tile : HopperTile.all()) {
        for (Conv2dDescriptor d : tile.window() ? WINDOWS : tile.panel() ? PANELS : PROBLEMS) {
          boolean both = d.dilationW() > 1 || d.ic() == 200;
          if (type == DataType.BF16 || both) { // types differ in little
            String name = tile.kernel(Pass.FPROP, type) + " " + d;
            tests.add(DynamicTest.dynamicTest(name, () -> check(tile, d, type)));
          }
        }
      }
    }
    return tests;
  }

  private static void check(HopperTile tile, Conv2dDescriptor d, DataType type) {
    try (Backend reference = Backends.open("reference");
        Backend hopper = HopperSubject.taking(tile.title())) {
      List<float[]> expected = CudaTilesTest.passes(reference, d, type);
      EmulatorControl.clearCounters();
      List<float[]> actual = CudaTilesTest.passes(hopper, d, type);
      for (int i = 0; i < actual.size(); i++) {
        assertArrayEquals(expected.get(i), actual.get(i), d + ", result " + i);
      }
      long out = (long) d.n() * d.oh() * d.ow();
      List<JsonNode> fprop = launches(tile.kernel(Pass.FPROP, type));
      assertEquals(2, fprop.size(), "alone and with a sum behind it");
      counters(tile, fprop.getFirst(), d, out, d.ic(), d.oc());
      boolean dense = d.strideH() == 1 && d.strideW() == 1;
      List<JsonNode> dgrad =
          launches(dense ? tile.kernel(Pass.DGRAD, type) : tile.stridedKernel(type));
      assertEquals(1, dgrad.size());
      if (dense) {
        counters(tile, dgrad.getFirst(), d, (long) d.n() * d.h() * d.w(), d.oc(), d.ic());
      } else {
        countersOfPhases(tile, dgrad.getFirst(), d);
      }
    }
  }

  @TestFactory
  List<DynamicTest> stridedDataGradients() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : List.of(DataType.BF16, DataType.F16)) {
      for (HopperTile tile : HopperTile.all()) {
        for (Conv2dDescriptor d : STRIDED) {
          boolean window =
              d.kh() * d.kw() > 1
                  && d.oh() == Math.ceilDiv(d.h(), d.strideH())
                  && d.ow() == Math.ceilDiv(d.w(), d.strideW());
          if (!tile.panel()
              && (!tile.window() || window)
              && (type == DataType.BF16 || d.dilationW() > 1)) {
            tests.add(
                DynamicTest.dynamicTest(
                    tile.stridedKernel(type) + " " + d, () -> checkStrided(tile, d, type)));
          }
        }
      }
    }
    return tests;
  }

  private static void checkStrided(HopperTile tile, Conv2dDescriptor d, DataType type) {
    try (Backend reference = Backends.open("reference");
        Backend hopper = HopperSubject.taking(tile.title())) {
      List<float[]> expected = CudaTilesTest.passes(reference, d, type);
      EmulatorControl.clearCounters();
      List<float[]> actual = CudaTilesTest.passes(hopper, d, type);
      assertArrayEquals(expected.get(1), actual.get(1), d.toString());
      List<JsonNode> dgrad = launches(tile.stridedKernel(type));
      assertEquals(1, dgrad.size());
      countersOfPhases(tile, dgrad.getFirst(), d);
    }
  }

  /** Places of diff_dst that the first place of a phase sees along an axis, those outside too. */
  private static int[] places(int phase, int kernel, int stride, int dilation, int pad) {
    return IntStream.range(0, kernel)
        .map(tap -> phase + pad - tap * dilation)
        .filter(at -> Math.floorMod(at, stride) == 0)
        .map(at -> Math.floorDiv(at, stride))
        .sorted()
        .toArray();
  }

  private static int span(int[] places) {
    return places.length == 0 ? 0 : places[places.length - 1] - places[0];
  }

  private static void countersOfPhases(HopperTile tile, JsonNode c, Conv2dDescriptor d) {
    int gridW = Math.ceilDiv(d.w(), d.strideW());
    long grid = (long) d.n() * Math.ceilDiv(d.h(), d.strideH()) * gridW;
    long clusters = Math.ceilDiv(grid, (long) tile.rows() * tile.cluster());
    long tiles = clusters * tile.cluster() * Math.ceilDiv(d.ic(), tile.columns());
    long chunks = Math.ceilDiv(d.oc(), 64);
    long rows = 0;
    long steps = 0;
    for (int y = 0; y < Math.min(d.h(), d.strideH()); y++) {
      for (int x = 0; x < Math.min(d.w(), d.strideW()); x++) {
        int[] h = places(y, d.kh(), d.strideH(), d.dilationH(), d.padTop());
        int[] w = places(x, d.kw(), d.strideW(), d.dilationW(), d.padLeft());
        long taps = (long) h.length * w.length;
        long own = taps == 0 ? 1 : taps * chunks; // a chunk of zeros where no tap reaches
        long seen = tile.rows() + (taps == 0 ? 0 : (long) span(h) * gridW + span(w));
        long windows = taps == 0 ? 1 : chunks;
        rows += tile.window() ? windows * Math.ceilDiv(seen, 32L) * 32 : own * tile.rows();
        steps += own;
      }
    }
    assertEquals(tiles * (rows + steps * tile.columns()) * 128, c.get("bulkLoadBytes").asLong());
    assertEquals(
        tiles * steps * tile.rows() * tile.columns() * 64, c.get("warpgroupMultiplyAdds").asLong());
    assertEquals(0, c.get("bulkStoreBytes").asLong());
    long results = (long) d.n() * d.h() * d.w() * d.ic() * 2;
    assertEquals(results, c.get("globalStoreBytes").asLong());
    if (d.ic() % 16 == 0) {
      assertEquals(results, 32 * c.get("globalStoreSectors").asLong());
    }
    assertEquals(tile.cluster() > 1, c.get("multicastSavedBytes").asLong() > 0);
    assertEquals(0, c.get("sharedLoadBankConflicts").asLong());
    assertEquals(0, c.get("sharedStoreBankConflicts").asLong());
  }

  private static void counters(
      HopperTile tile, JsonNode c, Conv2dDescriptor d, long pixels, int inC, int outC) {
    long chunks = Math.ceilDiv(inC, 64);
    long steps = (long) d.kh() * d.kw() * chunks;
    long seen = tile.rows() + (d.kh() - 1L) * d.dilationH() * d.w() + (d.kw() - 1L) * d.dilationW();
    long gathered = tile.window() ? chunks * Math.ceilDiv(seen, 32L) * 32 : steps * tile.rows();
    long clusters = Math.ceilDiv(pixels, (long) tile.rows() * tile.cluster());
    long tiles = clusters * tile.cluster() * Math.ceilDiv(outC, tile.columns());
    assertEquals(
        tiles * (gathered + steps * tile.columns()) * 128, c.get("bulkLoadBytes").asLong());
    assertEquals(pixels * outC * 2, c.get("bulkStoreBytes").asLong());
    assertEquals(
        tiles * steps * tile.rows() * tile.columns() * 64, c.get("warpgroupMultiplyAdds").asLong());
    long saved = c.get("multicastSavedBytes").asLong();
    if (inC % 16 == 0) { // whole sectors: what lies in the tensor of weights
      long weights = (long) d.kh() * d.kw() * inC * outC * 2;
      assertEquals(clusters * (tile.cluster() - 1) * weights, saved);
    } else {
      assertEquals(tile.cluster() > 1, saved > 0);
    }
    assertEquals(0, c.get("sharedLoadBankConflicts").asLong());
    assertEquals(0, c.get("sharedStoreBankConflicts").asLong());
  }

  /** Signs are those of dst, and the gradient by signs has the bits of the gradient by src. */
  @TestFactory
  List<DynamicTest> signs() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : List.of(DataType.BF16, DataType.F16)) {
      for (HopperTile tile : HopperTile.all()) {
        int kernel = tile.panel() ? 1 : 3;
        Conv2dDescriptor d =
            Conv2dDescriptor.of(2, 9, 7, 160, 96, kernel, 1, kernel / 2); // half slices
        tests.add(
            DynamicTest.dynamicTest(
                tile.kernel(Pass.FPROP, type), () -> checkSigns(tile, d, type)));
        Conv2dDescriptor strided = Conv2dDescriptor.of(2, 9, 7, 160, 96, 3, 2, 1);
        if (tile.panel()) {
          continue;
        }
        tests.add(
            DynamicTest.dynamicTest(
                tile.stridedKernel(type), () -> checkSigns(tile, strided, type)));
      }
    }
    return tests;
  }

  private static void checkSigns(HopperTile tile, Conv2dDescriptor d, DataType type) {
    Rectifier phi = Rectifier.tailored(0.4);
    EmulatedSubject.openPlain().close();
    try (Backend backend = HopperSubject.taking(tile.title());
        Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, type, phi, phi);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = random(backend, stream, 1, d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = random(backend, stream, 2, d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = random(backend, stream, 3, d.src(), type, Layout.NHWC);
        Tensor diffDst = random(backend, stream, 4, d.dst(), type, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor signs = backend.allocate(Conv2d.signs(d.dst()), DataType.U8, Layout.ROW_MAJOR);
        Tensor signsOfSrc = backend.allocate(Conv2d.signs(d.src()), DataType.U8, Layout.ROW_MAJOR);
        Tensor bits = Tensor.allocate(Conv2d.signs(d.src()), DataType.U8, Layout.ROW_MAJOR);
        Tensor bySrc = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor bySigns = backend.allocate(d.src(), type, Layout.NHWC)) {
      conv.pack(stream, weights, packed);
      EmulatorControl.clearCounters();
      conv.forwardWithSigns(stream, src, packed, bias, dst, signs);
      assertArrayEquals(
          signs(download(backend, stream, dst), d.oc()), download(backend, stream, signs));
      bits.set(signs(download(backend, stream, src), d.ic()));
      backend.copy(stream, bits, signsOfSrc);
      conv.backwardData(stream, diffDst, packed, src, bySrc, Write.OVERWRITE);
      conv.backwardDataBySigns(stream, diffDst, packed, signsOfSrc, bySigns, Write.OVERWRITE);
      assertArrayEquals(download(backend, stream, bySrc), download(backend, stream, bySigns));
      boolean dense = d.strideH() == 1;
      assertEquals(dense || !tile.window() ? 1 : 0, launches(tile.kernel(Pass.FPROP, type)).size());
      assertEquals(
          2, launches(dense ? tile.kernel(Pass.DGRAD, type) : tile.stridedKernel(type)).size());
    }
  }

  /** A pair adds in the order of a block of its own, whatever the order in which its blocks run. */
  @TestFactory
  List<DynamicTest> pairsHaveTheBitsOfBlocks() {
    // Odd numbers of tiles, several for each block.
    Conv2dDescriptor small = Conv2dDescriptor.of(1, 42, 61, 128, 136, 1, 1, 0);
    Conv2dDescriptor window = Conv2dDescriptor.of(1, 92, 28, 72, 136, 3, 1, 1);
    Conv2dDescriptor strided = Conv2dDescriptor.of(1, 42, 61, 136, 72, 3, 2, 1);
    return HopperTile.all().stream()
        .filter(tile -> tile.cluster() == 2)
        .map(
            tile ->
                DynamicTest.dynamicTest(
                    tile.title(),
                    () -> {
                      Conv2dDescriptor d = tile.window() ? window : small;
                      String alone = tile.title().replace("_pair", "");
                      List<float[]> expected = ofReals(alone, d);
                      Optional<float[]> phases =
                          tile.panel()
                              ? Optional.empty()
                              : Optional.of(ofReals(alone, strided).get(1));
                      try {
                        for (int seed = 0; seed < 3; seed++) {
                          EmulatorControl.seed(seed);
                          List<float[]> actual = ofReals(tile.title(), d);
                          assertArrayEquals(expected.get(0), actual.get(0), "dst, seed " + seed);
                          assertArrayEquals(expected.get(1), actual.get(1), "diffSrc, " + seed);
                          phases.ifPresent(
                              bits ->
                                  assertArrayEquals(
                                      bits, ofReals(tile.title(), strided).get(1), "phases"));
                        }
                      } finally {
                        EmulatorControl.seed(0);
                      }
                    }))
        .toList();
  }

  private static List<float[]> ofReals(String title, Conv2dDescriptor d) {
    DataType type = DataType.BF16;
    Rectifier phi = Rectifier.tailored(0.4);
    try (Backend backend = HopperSubject.taking(title);
        Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, type, phi, phi);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = random(backend, stream, 1, d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = random(backend, stream, 2, d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = random(backend, stream, 3, d.src(), type, Layout.NHWC);
        Tensor diffDst = random(backend, stream, 4, d.dst(), type, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor diffSrc = backend.allocate(d.src(), type, Layout.NHWC)) {
      conv.pack(stream, weights, packed);
      EmulatorControl.clearCounters();
      conv.forward(stream, src, packed, bias, dst);
      conv.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE);
      List<float[]> results =
          List.of(download(backend, stream, dst), download(backend, stream, diffSrc));
      boolean dense = d.strideH() == 1;
      if (dense) {
        assertEquals(1, launches("conv2d_fprop_sm90_bf16" + title).size());
      }
      String pass = dense ? "dgrad" : "dgrad_strided";
      assertEquals(1, launches("conv2d_" + pass + "_sm90_bf16" + title).size());
      return results;
    }
  }

  /** Bytes as {@link Conv2d} lays them out. */
  private static float[] signs(float[] values, int channels) {
    int pixels = values.length / channels;
    float[] bytes = new float[values.length / 8];
    for (int i = 0; i < values.length; i++) {
      int c = i % channels;
      if (values[i] > 0) {
        bytes[(c / 32 * pixels + i / channels) * 4 + c % 32 / 8] += 1 << c % 8;
      }
    }
    return bytes;
  }

  private static Tensor random(
      Backend backend, Stream stream, long seed, Shape shape, DataType type, Layout layout) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextInt(8) == 0 ? 0 : (float) random.nextDouble(-1, 1);
    }
    Tensor tensor = backend.allocate(shape, type, layout);
    try (Tensor host = Tensor.allocate(shape, type, layout).set(values)) {
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

  private static List<JsonNode> launches(String kernel) {
    return EmulatorControl.counters().stream()
        .filter(launch -> launch.get("kernel").asText().startsWith(kernel))
        .toList();
  }

  private static boolean used(Conv2dDescriptor d, DataType type) {
    try (Backend backend = new EmulatedSubject().open()) {
      EmulatorControl.clearCounters();
      CudaTilesTest.passes(backend, d, type);
      return !launches("conv2d_fprop_sm90").isEmpty();
    }
  }

  private static boolean strides(int stride) {
    try (Backend backend = new EmulatedSubject().open()) {
      EmulatorControl.clearCounters();
      CudaTilesTest.passes(
          backend, Conv2dDescriptor.of(1, 10, 10, 8, 8, 3, stride, 1), DataType.BF16);
      return !launches("conv2d_dgrad_strided_sm90").isEmpty();
    }
  }

  @Test
  void otherDevicesAndProblemsKeepTheTiles() {
    EmulatedSubject.openPlain().close();
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 9, 9, 64, 64, 1, 1, 0);
    System.setProperty(CudaBackend.TILE_PROPERTY, "sm90");
    EmulatorControl.computeCapability(9, 0);
    try {
      assertTrue(used(d, DataType.BF16));
      assertFalse(used(d, DataType.F32));
      assertFalse(used(Conv2dDescriptor.of(1, 3, 3, 36, 8, 1, 1, 0), DataType.BF16));
      assertFalse(used(Conv2dDescriptor.of(1, 3, 3, 64, 12, 1, 1, 0), DataType.BF16));
      assertFalse(used(Conv2dDescriptor.of(1, 30, 30, 8, 8, 1, 9, 0), DataType.BF16));
      assertTrue(strides(4));
      assertFalse(strides(5)); // 25 phases
      System.setProperty(HopperConvolution.PROPERTY, "false");
      assertFalse(used(d, DataType.BF16));
      System.clearProperty(HopperConvolution.PROPERTY);
      System.setProperty(CudaBackend.TILE_PROPERTY, "fprop_bf16");
      assertFalse(used(d, DataType.BF16));
      System.setProperty(CudaBackend.TILE_PROPERTY, "sm90");
      for (int[] capability : new int[][] {{8, 0}, {10, 0}}) {
        EmulatorControl.computeCapability(capability[0], capability[1]);
        assertFalse(used(d, DataType.BF16));
      }
    } finally {
      EmulatorControl.computeCapability(8, 0);
    }
  }

  /** An autotuner tries each tile that can do a pass. */
  @Test
  void tilesAreCandidates(@TempDir Path folder) {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 6, 6, 64, 64, 3, 1, 1);
    System.setProperty(TuningFile.PROPERTY, folder.resolve("tuning").toString());
    try (Backend backend = HopperSubject.taking()) {
      backend.tune(Tuning.ALWAYS, Map.of());
      EmulatorControl.clearCounters();
      backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY).close();
      for (HopperTile tile : HopperTile.all()) {
        boolean can = !tile.panel();
        assertEquals(can, !launches(tile.kernel(Pass.FPROP, DataType.BF16)).isEmpty());
        assertEquals(can, !launches(tile.kernel(Pass.DGRAD, DataType.BF16)).isEmpty());
      }
      EmulatorControl.clearCounters();
      Conv2dDescriptor one = Conv2dDescriptor.of(1, 6, 6, 64, 64, 1, 1, 0);
      backend.conv2d(one, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY).close();
      for (HopperTile tile : HopperTile.all()) {
        boolean can = !tile.window();
        assertEquals(can, !launches(tile.kernel(Pass.FPROP, DataType.BF16)).isEmpty());
        assertEquals(can, !launches(tile.kernel(Pass.DGRAD, DataType.BF16)).isEmpty());
      }
      EmulatorControl.clearCounters();
      Conv2dDescriptor strided = Conv2dDescriptor.of(1, 6, 6, 64, 64, 3, 2, 1);
      backend.conv2d(strided, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY).close();
      for (HopperTile tile : HopperTile.all()) {
        assertEquals(!tile.panel(), !launches(tile.stridedKernel(DataType.BF16)).isEmpty());
      }
    } finally {
      System.clearProperty(TuningFile.PROPERTY);
    }
  }

  /** Which tile is taken at a batch of 256 on an H200: those of docs/cuda-traffic.md. */
  @Test
  void taken() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.multiprocessors(132);
    EmulatorControl.computeCapability(9, 0);
    try {
      // Windows where taps overlap; large tiles where products are long; few channels: memory.
      assertEquals("_window_pair_256x64", taken(256, 56, 64, 64, 3, 1, Pass.FPROP));
      assertEquals("_window_256x128", taken(256, 28, 128, 128, 3, 1, Pass.DGRAD));
      assertEquals("_window_256x128", taken(256, 14, 256, 256, 3, 1, Pass.FPROP));
      assertEquals("_256x64", taken(256, 56, 256, 64, 1, 1, Pass.FPROP));
      // Pairs where weights are much of what L2 is asked for.
      assertEquals("_pair_192x256", taken(256, 14, 1024, 256, 1, 1, Pass.FPROP));
      assertEquals("_pair_192x256", taken(256, 7, 2048, 512, 1, 1, Pass.DGRAD));
      assertEquals("_pair_256x128", taken(256, 28, 512, 128, 1, 1, Pass.FPROP));
      // Short products with many results: panels read their pixels once.
      assertEquals("_panel_pair_256x512", taken(256, 28, 128, 512, 1, 1, Pass.FPROP));
      assertEquals("_panel_pair_256x512", taken(256, 14, 1024, 256, 1, 1, Pass.DGRAD));
      assertEquals("_panel_pair_256x512", taken(256, 28, 512, 256, 1, 1, Pass.DGRAD));
      // Each tap of L2 costs more than L1's answers, unless weights are most of it.
      assertEquals("tiles", taken(256, 56, 128, 128, 3, 2, Pass.FPROP));
      assertEquals("_pair_192x256", taken(256, 28, 256, 256, 3, 2, Pass.FPROP));
      assertEquals("_pair_192x256", taken(256, 14, 512, 512, 3, 2, Pass.FPROP));
      assertEquals("_window_pair_256x128", taken(256, 56, 128, 128, 3, 2, Pass.DGRAD));
      assertEquals("_window_pair_256x128", taken(256, 28, 256, 256, 3, 2, Pass.DGRAD));
      assertEquals("_pair_192x256", taken(256, 14, 512, 512, 3, 2, Pass.DGRAD));
    } finally {
      EmulatorControl.multiprocessors(8);
      EmulatorControl.computeCapability(8, 0);
    }
  }

  private static String taken(
      int batch, int extent, int ic, int oc, int kernel, int stride, Pass pass) {
    Conv2dDescriptor d = Conv2dDescriptor.same(batch, extent, extent, ic, oc, kernel, stride);
    ConvolutionProblem problem = new ConvolutionProblem(d, pass, DataType.BF16, false, true);
    try (CudaBackend backend = (CudaBackend) EmulatedSubject.openPlain()) {
      List<HopperTile> able = HopperConvolution.able(backend, problem);
      if (able.isEmpty()) {
        return "none can";
      }
      TiledConvolution own =
          new TiledConvolution(backend, d, DataType.BF16, Rectifier.IDENTITY, backend.tiles());
      return HopperConvolution.taken(backend, able, problem, own)
          .map(HopperTile::title)
          .orElse("tiles");
    }
  }
}
