package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.backend.cuda.TiledConvolution.Tile;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/**
 * The traffic of convolution kernels, and what an H200 could do at best with it. {@code mvn verify
 * -Dtest=CudaRooflineTest -Djtrelu.traffic=docs/cuda-traffic.md} writes the table of a plain
 * ResNet-50; without the property a few of its layers are measured.
 *
 * <p>Tiles are those that the launcher takes at a batch of 256 on 132 multiprocessors; the counters
 * are of one image of at most 14 x 14 pixels, run with the same tiles.
 */
class CudaRooflineTest {
  private static final String OUTPUT = System.getProperty("jtrelu.traffic", "");
  private static final int BATCH = 256;
  private static final int EXTENT = 14;
  private static final long FEW_PRODUCTS = 15_000_000; // of a layer that every test run measures

  private static final double BANDWIDTH = 4.8e12 * 0.90; // bytes per second
  private static final double TENSOR_SHARE = 0.63; // what mma.sync reaches on this generation
  private static final double FFMA_SHARE = 0.75;
  private static final double WGMMA_SHARE = 0.75; // what public kernels reach at least

  /** Bandwidths of the second-level cache, bytes per second: until one is measured, two guesses. */
  private static final double[] SECOND_LEVEL = {7e12, 5.5e12};

  /** First-level caches and shared memory together: 128 bytes a clock of each multiprocessor. */
  private static final double FIRST_LEVEL = 132 * 128 * 1.83e9;

  /** First-level cache of a block, a share that every tile leaves; and the second level's size. */
  private static final int FIRST_LEVEL_BYTES = 30 << 10;

  private static final double SECOND_LEVEL_BYTES = 50e6;

  /** Peak multiply-adds per second, and the share that is assumed to be reached. */
  private static double rate(String type) {
    return switch (type) {
      case "bf16" -> 989.4e12 / 2 * TENSOR_SHARE;
      case "tf32" -> 494.7e12 / 2 * TENSOR_SHARE;
      default -> 66.9e12 / 2 * FFMA_SHARE;
    };
  }

  /** A convolution of the net, and how often it occurs. */
  private record ConvLayer(String name, int times, Conv2dDescriptor d) {}

  private static ConvLayer layer(
      String name, int times, int extent, int ic, int oc, int kernel, int stride) {
    return new ConvLayer(
        name, times, Conv2dDescriptor.same(BATCH, extent, extent, ic, oc, kernel, stride));
  }

  /** ResNet-50 without shortcuts; images have a homogeneous channel. */
  private static final List<ConvLayer> PLAIN_RESNET_50 =
      List.of(
          layer("stem", 1, 224, 4, 64, 7, 2),
          layer("1-first", 1, 56, 64, 64, 1, 1),
          layer("1-3x3", 3, 56, 64, 64, 3, 1),
          layer("1-expand", 3, 56, 64, 256, 1, 1),
          layer("1-reduce", 2, 56, 256, 64, 1, 1),
          layer("2-first", 1, 56, 256, 128, 1, 1),
          layer("2-down", 1, 56, 128, 128, 3, 2),
          layer("2-3x3", 3, 28, 128, 128, 3, 1),
          layer("2-expand", 4, 28, 128, 512, 1, 1),
          layer("2-reduce", 3, 28, 512, 128, 1, 1),
          layer("3-first", 1, 28, 512, 256, 1, 1),
          layer("3-down", 1, 28, 256, 256, 3, 2),
          layer("3-3x3", 5, 14, 256, 256, 3, 1),
          layer("3-expand", 6, 14, 256, 1024, 1, 1),
          layer("3-reduce", 5, 14, 1024, 256, 1, 1),
          layer("4-first", 1, 14, 1024, 512, 1, 1),
          layer("4-down", 1, 14, 512, 512, 3, 2),
          layer("4-3x3", 2, 7, 512, 512, 3, 1),
          layer("4-expand", 3, 7, 512, 2048, 1, 1),
          layer("4-reduce", 2, 7, 2048, 512, 1, 1));

  /** The layers of a chain, and how many chains there are. */
  private static final List<String> CHAIN = List.of("1-expand", "1-reduce");

  private static final int CHAINS = 2;

  /** What is known of one pass of one layer. */
  private record Row(
      ConvLayer layer,
      TileVariant tile,
      long requested,
      long touched,
      long minimum,
      double loadEfficiency,
      double storeEfficiency,
      long conflicts,
      long products,
      long padded,
      String registers,
      String spills,
      double missed,
      double expectedMissed,
      long instructions,
      double bytesAtBatch,
      double secondLevelAtBatch,
      double firstLevelAtBatch,
      double productsAtBatch) {
    double memorySeconds() {
      return bytesAtBatch / BANDWIDTH;
    }

    /** Multiply-adds of the instruction that makes its products. */
    double productsOfInstruction() {
      return switch (tile.type()) {
        case "f32" -> 32;
        case "tf32" -> 16 * 8 * 8;
        default -> 16 * 8 * 16;
      };
    }

    double productSeconds() {
      return productsAtBatch / rate(tile.type());
    }

    double firstLevelSeconds() {
      return firstLevelAtBatch / FIRST_LEVEL;
    }

    /** At a bandwidth of the second-level cache. */
    double seconds(double secondLevel) {
      return Math.max(
          Math.max(memorySeconds(), productSeconds()),
          Math.max(firstLevelSeconds(), secondLevelAtBatch / secondLevel));
    }

    /** As {@link #seconds}, but for the first level. */
    double secondsBelow(double secondLevel) {
      return Math.max(
          Math.max(memorySeconds(), productSeconds()), secondLevelAtBatch / secondLevel);
    }

    /** What limits it, by the name of the longest. */
    String by(double secondLevel) {
      double longest = seconds(secondLevel);
      return longest == memorySeconds()
          ? "memory"
          : longest == productSeconds() ? "products" : longest == firstLevelSeconds() ? "L1" : "L2";
    }
  }

  private boolean emulated;

  @BeforeEach
  void device() {
    EmulatedSubject.openPlain().close(); // loads the driver, or skips the test
    emulated = true;
    EmulatorControl.footprint(true);
    EmulatorControl.firstLevelCache(FIRST_LEVEL_BYTES);
  }

  @AfterEach
  void reset() {
    if (!emulated) {
      return;
    }
    EmulatorControl.footprint(false);
    EmulatorControl.firstLevelCache(0);
    EmulatorControl.multiprocessors(8);
    EmulatorControl.computeCapability(8, 0);
    System.clearProperty(CudaBackend.TILE_PROPERTY);
    System.clearProperty(CudaBackend.TF32_PROPERTY);
  }

  @Test
  void convolutions() throws IOException {
    EmulatorControl.multiprocessors(132);
    EmulatorControl.computeCapability(9, 0);
    Map<String, String[]> compiled = compiled();
    StringBuilder text = new StringBuilder();
    for (String type : List.of("bf16", "tf32", "f32")) {
      System.setProperty(CudaBackend.TF32_PROPERTY, Boolean.toString(type.equals("tf32")));
      List<Row> rows = new ArrayList<>();
      try (CudaBackend backend = (CudaBackend) EmulatedSubject.openPlain()) {
        for (ConvLayer layer : PLAIN_RESNET_50) {
          if (!OUTPUT.isEmpty() || small(layer.d()).multiplyAdds() <= FEW_PRODUCTS) {
            rows.addAll(measure(backend, layer, type.equals("bf16"), compiled));
          }
        }
      }
      rows.forEach(CudaRooflineTest::check);
      text.append(table(type, rows));
      if (type.equals("bf16")) {
        text.append(hopperTable(rows, compiled));
      }
    }
    publish(text.toString());
  }

  /** Fprop and dgrad by the kernels of compute capability 9.0, beside the rows of all devices. */
  private static String hopperTable(List<Row> rows, Map<String, String[]> compiled) {
    StringBuilder text = new StringBuilder();
    text.append(
        String.format(
            Locale.ROOT,
            """

            ## bf16 by wgmma and TMA

            The kernels of compute capability 9.0, `conv2d_fprop_sm90`, `conv2d_dgrad_sm90` and
            `conv2d_wgrad_sm90`, and `conv2d_dgrad_strided_sm90`, beside those of all devices, of the table
            above. L2: what the copies ask for, and results, signs, and a wgrad's partial sums. Tensor copies go
            past L1, so each tap of a filter is asked for, pixels outside of the tensor too; but of a window what
            all taps see only once, and what a pair of blocks shares once for both. L1: shared memory, into which
            they copy and from which wgmma and ldmatrix read. Products at %.0f %% of the tensor cores' peak, which
            public kernels with wgmma reach. The counters of the emulated device are held to the copies, products
            and results of the small size.
            Taken: where the bound at 5.5 TB/s, on the busiest multiprocessor, is no worse; wgrads where it is less.

            | layer | tiles above: kernel | L2 MB | bound µs at 7 / 5.5 TB/s | wgmma: kernel | registers | spills | useful | L2 MB | L1 MB | bound µs at 7 / 5.5 TB/s | by | taken |
            |---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|---|---|
            """,
            100 * WGMMA_SHARE));
    double[] before = new double[SECOND_LEVEL.length];
    double[] after = new double[SECOND_LEVEL.length];
    double[] apart = new double[SECOND_LEVEL.length]; // of a chain's convolutions
    double[] stem = new double[SECOND_LEVEL.length];
    try (CudaBackend backend = (CudaBackend) EmulatedSubject.openPlain()) {
      for (Row row : rows) {
        Conv2dDescriptor d = row.layer().d();
        if (row.tile().pass() == Pass.WGRAD) {
          double[] least = hopperWeightGradient(backend, row, compiled, text);
          for (int i = 0; i < least.length; i++) {
            before[i] += row.layer().times() * row.seconds(SECOND_LEVEL[i]);
            after[i] += row.layer().times() * least[i];
            apart[i] += CHAIN.contains(row.layer().name()) ? least[i] : 0;
            stem[i] += row.layer().name().equals("stem") ? least[i] : 0;
          }
          continue;
        }
        ConvolutionProblem problem =
            new ConvolutionProblem(d, row.tile().pass(), DataType.BF16, false, true);
        List<HopperTile> able =
            row.layer().name().equals("stem")
                ? List.of()
                : HopperConvolution.able(backend, problem);
        double[] bound = {row.seconds(SECOND_LEVEL[0]), row.seconds(SECOND_LEVEL[1])};
        for (int i = 0; i < bound.length; i++) {
          before[i] += row.layer().times() * bound[i];
        }
        if (!able.isEmpty()) {
          TiledConvolution own =
              new TiledConvolution(backend, d, DataType.BF16, Rectifier.IDENTITY);
          Optional<HopperTile> taken = HopperConvolution.taken(backend, able, problem, own);
          HopperTile tile =
              HopperConvolution.best(
                  new ConvolutionBounds(backend.cudaDevice().multiprocessors()),
                  able,
                  problem,
                  own.chosen(problem.pass()).problem());
          HopperTraffic at = HopperTraffic.of(tile, problem);
          ConvolutionProblem few =
              new ConvolutionProblem(small(d), problem.pass(), DataType.BF16, false, true);
          checkHopper(backend, tile, few, HopperTraffic.of(tile, few));
          double products = at.products() / (989.4e12 / 2 * WGMMA_SHARE);
          double first = at.firstLevel() / FIRST_LEVEL;
          double[] other = bound.clone();
          String[] by = new String[bound.length];
          for (int i = 0; i < bound.length; i++) {
            double second = at.secondLevel() / SECOND_LEVEL[i];
            double own90 =
                Math.max(Math.max(row.memorySeconds(), products), Math.max(first, second));
            by[i] =
                own90 == row.memorySeconds()
                    ? "memory"
                    : own90 == products ? "products" : own90 == first ? "L1" : "L2";
            other[i] = own90;
            if (taken.isPresent()) {
              bound[i] = own90;
            }
          }
          String kernel = HopperConvolution.kernel(tile, problem);
          String[] registers = compiled.getOrDefault(kernel, new String[] {"-", "-"});
          text.append(
              String.format(
                  Locale.ROOT,
                  "| %s | %s | %.0f | %.0f / %.0f | %s | %s | %s | %.0f %% | %.0f | %.0f |"
                      + " %.0f / %.0f | %s / %s | %s |%n",
                  row.layer().name(),
                  row.tile().name().replace("conv2d_", ""),
                  row.secondLevelAtBatch() / 1e6,
                  row.seconds(SECOND_LEVEL[0]) * 1e6,
                  row.seconds(SECOND_LEVEL[1]) * 1e6,
                  kernel.replace("conv2d_", ""),
                  registers[0],
                  registers[1],
                  100 * d.multiplyAdds() / at.products(),
                  at.secondLevel() / 1e6,
                  at.firstLevel() / 1e6,
                  other[0] * 1e6,
                  other[1] * 1e6,
                  by[0],
                  by[1],
                  taken.isPresent() ? "yes" : "no"));
        }
        boolean chained = CHAIN.contains(row.layer().name());
        for (int i = 0; i < bound.length; i++) {
          after[i] += row.layer().times() * bound[i];
          apart[i] += chained ? bound[i] : 0;
          stem[i] += row.layer().name().equals("stem") ? bound[i] : 0;
        }
      }
    }
    if (rows.size() == 3 * PLAIN_RESNET_50.size() - 1) {
      text.append(
          String.format(
              Locale.ROOT,
              "%nAll convolutions of a training step with these where they are taken, %d images: at"
                  + " least %.1f ms at 7 TB/s of L2, %.1f ms at 5.5, so at most %.0f or %.0f"
                  + " images/s; with the tiles alone %.1f and %.1f ms.%n",
              BATCH,
              after[0] * 1e3,
              after[1] * 1e3,
              BATCH / after[0],
              BATCH / after[1],
              before[0] * 1e3,
              before[1] * 1e3));
      text.append(chainTable(compiled, apart, stem, after));
    }
    return text.toString();
  }

  /**
   * Two convolutions as one by the kernels of compute capability 9.0. HopperChainTest holds the
   * counters to what this computes with.
   *
   * @param apart bounds of the six passes of these convolutions
   * @param stem bounds of the stem's passes
   * @param step bounds of all convolutions of a step
   */
  private static String chainTable(
      Map<String, String[]> compiled, double[] apart, double[] stem, double[] step) {
    StringBuilder text = new StringBuilder();
    text.append(
        """

        ## bf16: chains of two convolutions

        1-expand and the 1-reduce that follows it, as one: `conv2d_chain_fprop_sm90`, and for all gradients
        `conv2d_chain_bprop_sm90` with the sum of what its blocks leave. The tensor of 256 channels between them
        is neither written nor read. L1: also what warpgroups write and read there.

        | layers | kernel | registers | spills | memory MB | L2 MB | L1 MB | bound µs at 7 / 5.5 TB/s | by |
        |---|---|--:|--:|--:|--:|--:|--:|---|
        """);
    double pixels = BATCH * 56.0 * 56;
    double tiles = Math.ceil(pixels / HopperChain.ROWS);
    double tensor = pixels * HopperChain.NARROW * 2;
    double signs = pixels * HopperChain.NARROW / 8;
    double weights = HopperChain.WIDE * HopperChain.NARROW;
    double sums = 2 * 132 * 4 * (2 * weights + HopperChain.WIDE + HopperChain.NARROW);
    double[] chained = new double[SECOND_LEVEL.length];
    for (boolean backward : new boolean[] {false, true}) {
      HopperChain.Work work = backward ? HopperChain.BACKWARD : HopperChain.FORWARD;
      double memory = (backward ? 3 : 2) * tensor + signs;
      double asked =
          tiles * work.loads() + 132 * 2 * weights * 2 + tensor + signs + (backward ? sums : 0);
      double products = tiles * work.products() / (989.4e12 / 2 * WGMMA_SHARE);
      double first = tiles * work.shared() / FIRST_LEVEL;
      double[] bound = new double[SECOND_LEVEL.length];
      String[] by = new String[SECOND_LEVEL.length];
      for (int i = 0; i < bound.length; i++) {
        double second = asked / SECOND_LEVEL[i];
        double own = Math.max(products, first);
        bound[i] = Math.max(Math.max(memory / BANDWIDTH, second), own);
        by[i] =
            bound[i] == products
                ? "products"
                : bound[i] == first ? "L1" : bound[i] == second ? "L2" : "memory";
        chained[i] += bound[i];
      }
      String kernel = "conv2d_chain_" + (backward ? "bprop" : "fprop") + "_sm90_bf16";
      String[] registers = compiled.getOrDefault(kernel, new String[] {"-", "-"});
      text.append(
          String.format(
              Locale.ROOT,
              "| 1-expand, 1-reduce | %s | %s | %s | %.0f | %.0f | %.0f | %.0f / %.0f | %s / %s |%n",
              kernel.replace("conv2d_", ""),
              registers[0],
              registers[1],
              memory / 1e6,
              asked / 1e6,
              tiles * work.shared() / 1e6,
              bound[0] * 1e6,
              bound[1] * 1e6,
              by[0],
              by[1]));
    }
    double[] with = new double[SECOND_LEVEL.length];
    for (int i = 0; i < with.length; i++) {
      with[i] = step[i] - CHAINS * (apart[i] - chained[i]);
    }
    text.append(
        String.format(
            Locale.ROOT,
            "%nA chain: %.0f µs at 7 TB/s of L2, %.0f at 5.5; its two convolutions apart: %.0f and"
                + " %.0f. All convolutions of a training step with the %d chains of stage 1, %d"
                + " images: at least %.1f ms at 7 TB/s of L2, %.1f ms at 5.5, so at most %.0f or"
                + " %.0f images/s.%n",
            chained[0] * 1e6,
            chained[1] * 1e6,
            apart[0] * 1e6,
            apart[1] * 1e6,
            CHAINS,
            BATCH,
            with[0] * 1e3,
            with[1] * 1e3,
            BATCH / with[0],
            BATCH / with[1]));
    return text.append(poolTable(compiled, stem, with)).toString();
  }

  /**
   * The stem with its pooling by the kernels of compute capability 9.0. HopperPoolTest holds the
   * counters to what this computes with.
   *
   * @param stem bounds of both passes of the convolution alone
   * @param step bounds of all convolutions of a step
   */
  private static String poolTable(Map<String, String[]> compiled, double[] stem, double[] step) {
    StringBuilder text = new StringBuilder();
    text.append(
        """

        ## bf16: the stem with its pooling

        `conv2d_pool_fprop_sm90`, and for the gradients of the weights `conv2d_pool_wgrad_sm90`: the tensor
        between the convolution and its pooling, and its gradient, are neither written nor read. L1: also what
        warpgroups write and read there.

        | kernel | registers | spills | useful | memory MB | L2 MB | L1 MB | bound µs at 7 / 5.5 TB/s | by |
        |---|--:|--:|--:|--:|--:|--:|--:|---|
        """);
    Conv2dDescriptor d = PLAIN_RESNET_50.getFirst().d();
    double rows = (double) BATCH * d.oh(); // of the convolution
    double images = d.src().elements() * 2.0;
    double pooled = rows / 2 * HopperPool.POOLED_ROW;
    double places = rows / 2 * HopperPool.PLACES_ROW;
    double between = d.dst().elements() * 2.0;
    double windows = rows * HopperPool.PRODUCTS / 64 * 2; // B of the products, as they read it
    double products = rows * HopperPool.PRODUCTS / (989.4e12 / 2 * WGMMA_SHARE);
    double[] asOne = new double[SECOND_LEVEL.length];
    for (boolean backward : new boolean[] {false, true}) {
      double memory = images + pooled + places;
      double other =
          backward
              ? 2.0 * 132 * HopperPool.SUMS * Float.BYTES
              : 132 * 2.0 * d.weights().elements() * 2;
      // A pooled row arrives or leaves; backward it is read for three rows, in pairs of pixels.
      double shared = images + windows + (backward ? pooled + 6 * pooled + 7 * places : 2 * pooled);
      double first = shared / FIRST_LEVEL;
      double[] bound = new double[SECOND_LEVEL.length];
      String[] by = new String[SECOND_LEVEL.length];
      for (int i = 0; i < bound.length; i++) {
        double second = (memory + other) / SECOND_LEVEL[i];
        bound[i] = Math.max(Math.max(memory / BANDWIDTH, second), Math.max(products, first));
        by[i] =
            bound[i] == products
                ? "products"
                : bound[i] == first ? "L1" : bound[i] == second ? "L2" : "memory";
        asOne[i] += bound[i];
      }
      String kernel = "conv2d_pool_" + (backward ? "wgrad" : "fprop") + "_sm90_bf16_0";
      String[] registers = compiled.getOrDefault(kernel, new String[] {"-", "-"});
      text.append(
          String.format(
              Locale.ROOT,
              "| %s | %s | %s | %.0f %% | %.0f | %.0f | %.0f | %.0f / %.0f | %s / %s |%n",
              kernel.replace("conv2d_", ""),
              registers[0],
              registers[1],
              100 * d.multiplyAdds() / (rows * HopperPool.PRODUCTS),
              memory / 1e6,
              (memory + other) / 1e6,
              shared / 1e6,
              bound[0] * 1e6,
              bound[1] * 1e6,
              by[0],
              by[1]));
    }
    double pooling = 2 * (between + 1.5 * pooled) / BANDWIDTH; // both passes, a byte for a place
    double[] with = new double[SECOND_LEVEL.length];
    for (int i = 0; i < with.length; i++) {
      with[i] = step[i] - stem[i] + asOne[i];
    }
    text.append(
        String.format(
            Locale.ROOT,
            "%nBoth: %.0f µs at 7 TB/s of L2, %.0f at 5.5; apart: the convolution %.0f and %.0f, and"
                + " %.0f of the pooling, which memory limits. All convolutions of a training step and"
                + " this pooling, with chains, %d images: at least %.1f ms at 7 TB/s of L2, %.1f ms"
                + " at 5.5, so at most %.0f or %.0f images/s; with the two apart %.1f and %.1f ms.%n",
            asOne[0] * 1e6,
            asOne[1] * 1e6,
            stem[0] * 1e6,
            stem[1] * 1e6,
            pooling * 1e6,
            BATCH,
            with[0] * 1e3,
            with[1] * 1e3,
            BATCH / with[0],
            BATCH / with[1],
            (step[0] + pooling) * 1e3,
            (step[1] + pooling) * 1e3));
    return text.toString();
  }

  /**
   * What a pass by kernels of compute capability 9.0 moves and multiplies.
   *
   * @param loads bytes that tensor copies bring
   * @param asked bytes that they ask the second level for: what a pair shares, once
   * @param results bytes that they store
   * @param signs bytes of signs
   * @param products multiply-adds
   * @param operands bytes that wgmma reads of shared memory
   */
  private record HopperTraffic(
      double loads, double asked, double results, double signs, double products, double operands) {
    static HopperTraffic of(HopperTile tile, ConvolutionProblem problem) {
      Conv2dDescriptor d = problem.d();
      Shape out = problem.pass() == Pass.FPROP ? d.dst() : d.src();
      double tiles = HopperConvolution.tiles(tile, problem);
      HopperTile.Work work = HopperConvolution.work(tile, problem);
      return new HopperTraffic(
          tiles * work.loads(),
          tiles * work.asked(),
          2.0 * out.elements(),
          out.elements() / 8.0,
          tiles * work.products(),
          tiles * work.operands());
    }

    double secondLevel() {
      return asked + results + signs;
    }

    double firstLevel() {
      return loads + operands;
    }
  }

  /**
   * What a weight gradient by kernels of compute capability 9.0 moves and multiplies.
   *
   * @param work of all blocks
   * @param sums bytes of the sums of all splits
   * @param results bytes of the gradients
   * @param bias multiply-adds by mma.sync for the bias
   * @param splits of its pixels
   */
  private record WeightTraffic(
      HopperWeightTile.Work work, double sums, double results, double bias, int splits) {
    static WeightTraffic of(HopperWeightTile tile, Conv2dDescriptor d) {
      HopperWeightGradient.Plan plan =
          HopperWeightGradient.plan(tile, d, new ConvolutionBounds(132));
      long stages = Math.ceilDiv((long) d.n() * d.oh() * d.ow(), 64L);
      HopperWeightTile.Work whole = tile.work(plan.length(), plan.ahead());
      HopperWeightTile.Work last =
          tile.work(stages - (plan.splits() - 1L) * plan.length(), plan.ahead());
      double first = plan.tiles() * (plan.splits() - 1.0);
      double results = 4.0 * (d.weights().elements() + d.oc());
      return new WeightTraffic(
          new HopperWeightTile.Work(
              first * whole.loads() + plan.tiles() * last.loads(),
              first * whole.asked() + plan.tiles() * last.asked(),
              first * whole.operands() + plan.tiles() * last.operands(),
              first * whole.products() + plan.tiles() * last.products()),
          plan.splits() * results,
          results,
          plan.tilesM() * stages * 64.0 * tile.rows() * 8,
          plan.splits());
    }

    double secondLevel() {
      return work.asked() + sums + (splits == 1 ? 0 : sums + results);
    }

    double seconds() {
      return work.products() / (989.4e12 / 2 * WGMMA_SHARE) + bias / rate("bf16");
    }
  }

  /** A row of the table; returns the bounds of what is taken. */
  private static double[] hopperWeightGradient(
      CudaBackend backend, Row row, Map<String, String[]> compiled, StringBuilder text) {
    Conv2dDescriptor d = row.layer().d();
    double[] bound = {row.seconds(SECOND_LEVEL[0]), row.seconds(SECOND_LEVEL[1])};
    ConvolutionProblem problem = new ConvolutionProblem(d, Pass.WGRAD, DataType.BF16, false, false);
    List<HopperWeightTile> able = HopperWeightGradient.able(backend, problem);
    if (able.isEmpty()) {
      return bound;
    }
    TiledConvolution own = new TiledConvolution(backend, d, DataType.BF16, Rectifier.IDENTITY);
    boolean taken = HopperWeightGradient.taken(backend, able, problem, own).isPresent();
    HopperWeightTile tile =
        HopperWeightGradient.best(
            new ConvolutionBounds(backend.cudaDevice().multiprocessors()), able, d);
    checkHopperWeightGradient(backend, tile, small(d));
    WeightTraffic at = WeightTraffic.of(tile, d);
    double operands = 2.0 * (d.src().elements() + d.dst().elements());
    double memory =
        (operands + at.results() + (at.sums() < SECOND_LEVEL_BYTES / 2 ? 0 : 2 * at.sums()))
            / BANDWIDTH;
    double products = at.seconds();
    double first = at.work().shared() / FIRST_LEVEL;
    double[] own90 = new double[bound.length];
    String[] by = new String[bound.length];
    for (int i = 0; i < bound.length; i++) {
      double second = at.secondLevel() / SECOND_LEVEL[i];
      own90[i] = Math.max(Math.max(memory, products), Math.max(first, second));
      by[i] =
          own90[i] == memory
              ? "memory"
              : own90[i] == products ? "products" : own90[i] == first ? "L1" : "L2";
    }
    String kernel = tile.kernel(DataType.BF16);
    String[] registers = compiled.getOrDefault(kernel, new String[] {"-", "-"});
    text.append(
        String.format(
            Locale.ROOT,
            "| %s | %s | %.0f | %.0f / %.0f | %s | %s | %s | %.0f %% | %.0f | %.0f |"
                + " %.0f / %.0f | %s / %s | %s |%n",
            row.layer().name(),
            row.tile().name().replace("conv2d_", ""),
            row.secondLevelAtBatch() / 1e6,
            bound[0] * 1e6,
            bound[1] * 1e6,
            kernel.replace("conv2d_", ""),
            registers[0],
            registers[1],
            100 * d.multiplyAdds() / (at.work().products() + at.bias()),
            at.secondLevel() / 1e6,
            at.work().shared() / 1e6,
            own90[0] * 1e6,
            own90[1] * 1e6,
            by[0],
            by[1],
            taken ? "yes" : "no"));
    return taken ? own90 : bound;
  }

  /** Runs a small problem: the counters are those that the table computes with. */
  private static void checkHopperWeightGradient(
      CudaBackend backend, HopperWeightTile tile, Conv2dDescriptor d) {
    WeightTraffic expected = WeightTraffic.of(tile, d);
    String kernel = tile.kernel(DataType.BF16);
    System.setProperty(CudaBackend.TILE_PROPERTY, kernel);
    Rectifier phi = Rectifier.tailored(0.4);
    try (Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, DataType.BF16, phi, phi);
        Tensor src = backend.allocate(d.src(), DataType.BF16, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.BF16, Layout.NHWC);
        Tensor diffWeights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor diffBias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      stream.synchronize();
      EmulatorControl.clearCounters();
      conv.backwardWeights(stream, src, dst, diffWeights, diffBias, Write.OVERWRITE);
      stream.synchronize();
      JsonNode c = EmulatorControl.counters().getFirst();
      assertEquals(kernel, c.get("kernel").asText());
      String what = kernel + " of " + d;
      HopperWeightTile.Work work = expected.work();
      assertEquals(
          tile.window() ? 0 : work.loads(), c.get("bulkLoadBytes").asDouble(), what + ": loads");
      assertEquals(expected.sums(), c.get("globalStoreBytes").asDouble(), what + ": stores");
      double products = c.get("warpgroupMultiplyAdds").asDouble();
      assertEquals(work.products(), products, what + ": products");
      assertEquals(
          expected.bias(), c.get("tensorMultiplyAdds").asDouble() - products, what + ": bias");
      assertEquals(0, c.get("sharedLoadBankConflicts").asLong(), what + ": bank conflicts");
      assertEquals(0, c.get("sharedStoreBankConflicts").asLong(), what + ": bank conflicts");
      // What the copies ask for but pixels and channels outside of the tensors.
      double asked = 32.0 * c.get("globalLoadSectors").asLong();
      assertTrue(asked <= work.asked() + 65_536, what + ": L2 " + asked);
      if (!tile.window() && d.kh() * d.kw() == 1) {
        double pixels = 2.0 * d.n() * d.oh() * d.ow();
        double channels =
            (double) d.oc() * tile.tilesN(d) + (double) d.ic() * tile.tilesM(d) / tile.cluster();
        assertEquals(pixels * channels, asked, what + ": L2");
      }
      assertEquals(
          ratio(c, "globalStoreSectorsMinimum", "globalStoreSectors"), 1, 0.05, what + ": stores");
    } finally {
      System.clearProperty(CudaBackend.TILE_PROPERTY);
    }
  }

  /** Runs a small problem: the counters are those that the table computes with. */
  private static void checkHopper(
      CudaBackend backend, HopperTile tile, ConvolutionProblem problem, HopperTraffic expected) {
    Conv2dDescriptor d = problem.d();
    String kernel = HopperConvolution.kernel(tile, problem);
    System.setProperty(CudaBackend.TILE_PROPERTY, kernel);
    Rectifier phi = Rectifier.tailored(0.4);
    try (Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, DataType.BF16, phi, phi);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = backend.allocate(d.src(), DataType.BF16, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.BF16, Layout.NHWC);
        Tensor below = backend.allocate(signs(d.src()), DataType.U8, Layout.ROW_MAJOR);
        Tensor above = backend.allocate(signs(d.dst()), DataType.U8, Layout.ROW_MAJOR);
        Tensor diffSrc = backend.allocate(d.src(), DataType.BF16, Layout.NHWC)) {
      conv.pack(stream, weights, packed);
      stream.synchronize();
      EmulatorControl.clearCounters();
      if (problem.pass() == Pass.FPROP) {
        conv.forwardWithSigns(stream, src, packed, bias, dst, above);
      } else {
        conv.backwardDataBySigns(stream, dst, packed, below, diffSrc, Write.OVERWRITE);
      }
      stream.synchronize();
      JsonNode c = EmulatorControl.counters().getFirst();
      assertEquals(kernel, c.get("kernel").asText());
      String what = kernel + " of " + d;
      assertEquals(expected.loads(), c.get("bulkLoadBytes").asDouble(), what + ": loads");
      boolean phases = kernel.contains("strided"); // whose pixels do not lie side by side
      assertEquals(
          expected.results(),
          c.get(phases ? "globalStoreBytes" : "bulkStoreBytes").asDouble(),
          what + ": stores");
      assertEquals(
          expected.products(), c.get("warpgroupMultiplyAdds").asDouble(), what + ": products");
      assertEquals(0, c.get("sharedStoreBankConflicts").asLong(), what + ": bank conflicts");
      // What the copies ask for but pixels and channels outside of the tensors; bias and signs.
      double asked = 32.0 * c.get("globalLoadSectors").asLong();
      double beside = problem.pass() == Pass.FPROP ? 0.01 * expected.asked() : expected.signs();
      assertTrue(asked <= expected.asked() + beside + 65_536, what + ": L2 " + asked);
      assertEquals(
          expected.loads() - expected.asked(),
          c.get("multicastSavedBytes").asDouble(),
          what + ": shared weights");
      assertEquals(
          ratio(c, "globalStoreSectorsMinimum", "globalStoreSectors"), 1, 0.05, what + ": stores");
    } finally {
      System.clearProperty(CudaBackend.TILE_PROPERTY);
    }
  }

  private static void check(Row row) {
    String what = row.tile().name() + " on " + row.layer().name();
    assertEquals(0, row.conflicts(), what + ": bank conflicts");
    if (!row.layer().name().equals("stem")) { // its source has fewer channels than fill a sector
      assertTrue(row.loadEfficiency() >= 0.95, what + ": loads use " + row.loadEfficiency());
      assertTrue(row.storeEfficiency() >= 0.95, what + ": stores use " + row.storeEfficiency());
      if (row.tile().type().equals("f32")) { // some of its FMAs are the epilogue's
        assertTrue(
            row.products() >= row.padded() && row.products() <= 1.03 * row.padded(),
            what + ": products " + row.products() + " of " + row.padded());
      } else {
        assertEquals(row.padded(), row.products(), what + ": products");
      }
    }
    if (row.tile().type().endsWith("16")) { // others leave too little of the cache to hold a tile
      assertEquals(row.expectedMissed(), row.missed(), 0.03 * row.missed(), what + ": L2");
    }
    // Packed weights are padded to whole stages; a stride may leave pixels of the source out.
    assertTrue(row.touched() <= 1.01 * row.minimum() + 4096, what + ": bytes " + row.touched());
    assertTrue(row.requested() >= row.touched(), what + ": requested " + row.requested());
    assertTrue(row.spills().equals("0") || row.spills().equals("-"), what + ": spills");
  }

  private static Conv2dDescriptor small(Conv2dDescriptor d) {
    int extent = Math.min(EXTENT, d.h());
    return Conv2dDescriptor.same(1, extent, extent, d.ic(), d.oc(), d.kh(), d.strideH());
  }

  private static List<Row> measure(
      CudaBackend backend, ConvLayer layer, boolean half, Map<String, String[]> compiled) {
    DataType type = half ? DataType.BF16 : DataType.F32;
    Rectifier phi = Rectifier.tailored(0.4);
    List<Tile> atBatch =
        new TiledConvolution(backend, layer.d(), type, Rectifier.IDENTITY).chosen();
    System.setProperty(
        CudaBackend.TILE_PROPERTY,
        String.join(",", atBatch.stream().map(each -> each.variant().name()).toList()));
    Conv2dDescriptor d = small(layer.d());
    List<Tile> tiles = new TiledConvolution(backend, d, type, Rectifier.IDENTITY).chosen();
    boolean first = layer.name().equals("stem");
    List<Row> rows = new ArrayList<>();
    try (Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, type, phi, first ? Rectifier.IDENTITY : phi);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor below = backend.allocate(signs(d.src()), DataType.U8, Layout.ROW_MAJOR);
        Tensor above = backend.allocate(signs(d.dst()), DataType.U8, Layout.ROW_MAJOR);
        Tensor diffSrc = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor diffWeights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor diffBias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      conv.pack(stream, weights, packed);
      for (int i = 0; i < tiles.size(); i++) {
        TileVariant tile = tiles.get(i).variant();
        if (first && tile.pass() == Pass.DGRAD) {
          continue; // images have no gradient
        }
        stream.synchronize();
        EmulatorControl.clearCounters();
        switch (tile.pass()) {
          case FPROP -> {
            if (half) {
              conv.forwardWithSigns(stream, src, packed, bias, dst, above);
            } else {
              conv.forward(stream, src, packed, bias, dst);
            }
          }
          case DGRAD -> {
            if (half) {
              conv.backwardDataBySigns(stream, dst, packed, below, diffSrc, Write.OVERWRITE);
            } else {
              conv.backwardData(stream, dst, packed, src, diffSrc, Write.OVERWRITE);
            }
          }
          case WGRAD ->
              conv.backwardWeights(stream, src, dst, diffWeights, diffBias, Write.OVERWRITE);
        }
        stream.synchronize();
        JsonNode c = EmulatorControl.counters().getFirst();
        assertEquals(tile.name(), c.get("kernel").asText());
        String[] registers = compiled.getOrDefault(tile.name(), new String[] {"-", "-"});
        double partials = CacheTraffic.sums(atBatch.get(i), layer.d());
        boolean kept = tile.pass() != Pass.WGRAD || partials < SECOND_LEVEL_BYTES / 2;
        double requested = c.get("globalLoadBytes").asDouble();
        double scale = (double) padded(tile, layer.d(), type) / padded(tile, d, type);
        rows.add(
            new Row(
                layer,
                tile,
                c.get("globalLoadBytes").asLong() + c.get("globalStoreBytes").asLong(),
                c.get("globalLoadFootprint").asLong() + c.get("globalStoreFootprint").asLong(),
                minimum(tile.pass(), d, type, tiles.get(i).splits()),
                ratio(c, "globalLoadSectorsMinimum", "globalLoadSectors"),
                ratio(c, "globalStoreSectorsMinimum", "globalStoreSectors"),
                c.get("sharedLoadBankConflicts").asLong()
                    + c.get("sharedStoreBankConflicts").asLong(),
                c.get(tile.type().equals("f32") ? "fusedMultiplyAdds" : "tensorMultiplyAdds")
                    .asLong(),
                padded(tile, d, type),
                registers[0],
                registers[1],
                32.0 * c.get("globalLoadSectorsMissed").asLong()
                    + c.get("globalStoreBytes").asLong(),
                CacheTraffic.ofKernel(tiles.get(i), d, type),
                c.get("warpInstructions").get("total").asLong(),
                minimum(tile.pass(), layer.d(), type, 1) + (kept ? 0 : 2 * partials),
                CacheTraffic.secondLevel(atBatch.get(i), layer.d(), type),
                scale
                    * (2 * requested
                        - 32 * c.get("globalLoadSectorsMissed").asDouble()
                        + c.get("sharedLoadBytes").asDouble()
                        + c.get("sharedStoreBytes").asDouble()),
                padded(tile, layer.d(), type)));
      }
    } finally {
      System.clearProperty(CudaBackend.TILE_PROPERTY);
    }
    return rows;
  }

  /** Images have none. */
  private static Shape signs(Shape activation) {
    return activation.dim(3) % 32 == 0 ? Conv2d.signs(activation) : Shape.of(1, 1, 4);
  }

  private static double ratio(JsonNode counters, String part, String whole) {
    return counters.get(part).asDouble() / counters.get(whole).asDouble();
  }

  private static long roundUp(long value, long unit) {
    return Math.ceilDiv(value, unit) * unit;
  }

  private static TileProblem problem(Pass pass, Conv2dDescriptor d, DataType type) {
    long out = (long) d.n() * d.oh() * d.ow();
    long in = (long) d.n() * d.h() * d.w();
    long taps = (long) d.kh() * d.kw();
    return switch (pass) {
      case FPROP -> new TileProblem(pass, out, d.oc(), taps * d.ic(), type.bytes());
      case DGRAD -> new TileProblem(pass, in, d.ic(), taps * d.oc(), type.bytes());
      case WGRAD -> new TileProblem(pass, d.oc(), taps * d.ic(), out, type.bytes());
    };
  }

  /**
   * Every operand once: activations, signs, packed weights (wgrad: F32 sums of each split), bias.
   */
  private static long minimum(Pass pass, Conv2dDescriptor d, DataType type, int splits) {
    long src = d.src().elements() * type.bytes();
    long dst = d.dst().elements() * type.bytes();
    long weights = d.weights().elements();
    return switch (pass) {
      case FPROP -> src + dst + signs(d.dst(), type) + weights * type.bytes() + 4L * d.oc();
      case DGRAD ->
          src + dst + (type.bytes() == 2 ? signs(d.src(), type) : src) + weights * type.bytes();
      case WGRAD -> src + dst + splits * 4L * (weights + d.oc());
    };
  }

  private static long signs(Shape activation, DataType type) {
    return type.bytes() == 2 ? activation.elements() / 8 : 0;
  }

  /** Products of the problem padded to whole tiles and stages; see cuda/README.md. */
  private static long padded(TileVariant v, Conv2dDescriptor d, DataType type) {
    long area = (long) v.blockM() * v.blockN();
    int unit = 16 / type.bytes();
    long taps = (long) d.kh() * d.kw();
    return switch (v.pass()) {
      case FPROP -> {
        long depth = taps * (v.stem() ? d.ic() : roundUp(d.ic(), unit));
        yield problem(v.pass(), d, type).tiles(v) * area * roundUp(depth, v.blockK());
      }
      case DGRAD -> {
        // Pixels of a phase (y mod stride, x mod stride) are reached by the same taps.
        int s = d.strideH();
        long pixels = (long) d.n() * Math.ceilDiv(d.h(), s) * Math.ceilDiv(d.w(), s);
        long tiles =
            Math.ceilDiv(pixels, (long) v.blockM()) * Math.ceilDiv((long) d.ic(), v.blockN());
        long depth = 0;
        for (int y = 0; y < s; y++) {
          for (int x = 0; x < s; x++) {
            long reached = (long) Math.ceilDiv(d.kh() - y, s) * Math.ceilDiv(d.kw() - x, s);
            depth += roundUp(reached * roundUp(d.oc(), unit), v.blockK());
          }
        }
        yield tiles * area * depth;
      }
      case WGRAD -> {
        long pixels = roundUp((long) d.n() * d.oh() * d.ow(), v.blockK());
        // The bias is a product with eight columns of ones.
        long bias = v.type().equals("f32") ? 0 : pixels * roundUp(d.oc(), v.blockM()) * 8;
        yield problem(v.pass(), d, type).tiles(v) * area * pixels + bias;
      }
    };
  }

  /** Registers and spilled bytes of each kernel on sm_90, as the compiler printed them. */
  private static Map<String, String[]> compiled() throws IOException {
    Map<String, String[]> table = new HashMap<>();
    Path file = Path.of("target", "cuda", "ptxas.txt");
    if (Files.exists(file)) {
      for (String line : Files.readAllLines(file)) {
        String[] word = line.trim().split("\\s+", -1);
        if (word.length == 6 && word[1].startsWith("sm_90")) {
          table.put(word[0], new String[] {word[2], word[5]});
        }
      }
    }
    return table;
  }

  private static String table(String type, List<Row> rows) {
    StringBuilder text = new StringBuilder();
    text.append(String.format("%n## %s%n%n", type))
        .append("| layer | kernel | requested KB | touched KB | minimum KB | sectors used, loads /")
        .append(" stores | bank conflicts | products 10^6 | padded 10^6 | useful | registers |")
        .append(" spills | shared KB | PTX per product | memory MB | L2 MB | L1 MB |")
        .append(" bound µs at 7 / 5.5 TB/s | by |\n")
        .append("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n");
    double[] seconds = new double[SECOND_LEVEL.length];
    double[] below = new double[SECOND_LEVEL.length];
    double products = 0;
    double memory = 0;
    for (Row row : rows) {
      double useful = row.layer().d().multiplyAdds() / row.productsAtBatch();
      text.append(
          String.format(
              Locale.ROOT,
              "| %s | %s | %.0f | %.0f | %.0f | %.2f / %.2f | %d | %.2f | %.2f | %.0f %% | %s | %s"
                  + " | %d | %.1f | %.0f | %.0f | %.0f | %.0f / %.0f | %s / %s |%n",
              row.layer().name(),
              row.tile().name().replace("conv2d_", ""),
              row.requested() / 1e3,
              row.touched() / 1e3,
              row.minimum() / 1e3,
              row.loadEfficiency(),
              row.storeEfficiency(),
              row.conflicts(),
              row.products() / 1e6,
              row.padded() / 1e6,
              100 * useful,
              row.registers(),
              row.spills(),
              row.tile().sharedMemory() >> 10,
              row.instructions() / (row.products() / row.productsOfInstruction()),
              row.bytesAtBatch() / 1e6,
              row.secondLevelAtBatch() / 1e6,
              row.firstLevelAtBatch() / 1e6,
              row.seconds(SECOND_LEVEL[0]) * 1e6,
              row.seconds(SECOND_LEVEL[1]) * 1e6,
              row.by(SECOND_LEVEL[0]),
              row.by(SECOND_LEVEL[1])));
      for (int i = 0; i < seconds.length; i++) {
        seconds[i] += row.layer().times() * row.seconds(SECOND_LEVEL[i]);
        below[i] += row.layer().times() * row.secondsBelow(SECOND_LEVEL[i]);
      }
      products += row.layer().times() * row.productSeconds();
      memory += row.layer().times() * row.memorySeconds();
    }
    if (rows.size() == 3 * PLAIN_RESNET_50.size() - 1) {
      text.append(
          String.format(
              Locale.ROOT,
              "%nAll convolutions of a training step, %d images: at least %.1f ms at 7 TB/s of L2,"
                  + " %.1f ms at 5.5, so at most %.0f or %.0f images/s; without L1 %.1f and %.1f"
                  + " ms; products alone %.1f ms, memory alone %.1f ms.%n",
              BATCH,
              seconds[0] * 1e3,
              seconds[1] * 1e3,
              BATCH / seconds[0],
              BATCH / seconds[1],
              below[0] * 1e3,
              below[1] * 1e3,
              products * 1e3,
              memory * 1e3));
    }
    return text.toString();
  }

  private static void publish(String tables) throws IOException {
    if (OUTPUT.isEmpty()) {
      System.out.print(tables);
      return;
    }
    String text =
        String.format(
            Locale.ROOT,
            """
            # Traffic of the convolution kernels

            Counted by the emulated device, not measured on a GPU. Made by

            ```
            mvn verify -pl src/cuda-backend -am -Dtest=CudaRooflineTest -Djtrelu.traffic=docs/cuda-traffic.md
            ```

            The layers are those of a plain ResNet-50 at 224 x 224. The tiles are what the cost model takes
            at a batch of %d on a device of 132 multiprocessors; the counters are of one image of at most
            %d x %d pixels, run with the same tiles. `CudaRooflineTest` holds some of the layers to the
            table's properties in every run of the tests.

            - requested: bytes of all loads and stores. A 3x3 convolution asks for each source element
              nine times, and tiles for weights again and again; caches answer.
            - touched: bytes read or written at least once. minimum: every operand once (wgrad: the
              partial sums of its splits too). A stride of 2 leaves pixels out, so touched may be less.
            - sectors used: bytes asked for in sectors of 32 bytes, over sectors. The stem reads elements of 2
              bytes one by one, and leaves it to the cache to put them together.
            - products: multiply-adds executed; padded: those of the problem rounded up to whole tiles and
              stages (wgrad: and a product with ones, for the bias). f32: FMAs, a few of them elsewhere.
            - useful: multiply-adds of the definition over padded ones, at the batch of %d.
            - registers and spills: ptxas for sm_90.
            - PTX per product: instructions of a warp for each one that multiplies.
            - memory, L2, L1, at the batch of %d. memory: every operand once, and a wgrad's partial sums where
              they fill more than half of L2. L2: what blocks ask of it. It is computed, not counted: of each
              block the distinct sectors of the activation (the first-level cache answers the others: taps
              follow each other within %d KiB), its weights, its part of the result; partial sums written and
              read. The emulated device, whose blocks have a first-level cache of that size, counts the same
              to 3 %% at the small size. L1: copies into shared memory and what L1 answers of them, and reads
              of operands.
            - bound: the longest of memory's bytes at %.2f TB/s (90 %% of an H200's 4.8), L2's at 7 or 5.5 TB/s
              (nobody has measured it for these kernels), L1's at 128 bytes a clock of each multiprocessor, and
              padded products at %.0f %% of the tensor cores' peak (989 TFLOP/s bf16, 495 tf32: what mma.sync is
              limited to) or %.0f %% of 66.9 TFLOP/s for f32. It is a bound, not a forecast.

            ## Passes per layer

            A layer of a plain chain in training reads and writes %s activation tensors in 16 bits: fprop reads
            src and writes dst and a bit for the sign of each element (2 and 1/16); dgrad reads diff_dst and
            the signs of src, for the derivative of the activation below, and writes diff_src (2 and 1/16);
            wgrad, which sums the bias gradient too, reads src and diff_dst (2). In 32 bits %s: dgrad reads
            src instead. Counted as the bytes that one more layer touches per image.
            """,
            BATCH,
            EXTENT,
            EXTENT,
            BATCH,
            BATCH,
            FIRST_LEVEL_BYTES >> 10,
            BANDWIDTH / 1e12,
            100 * TENSOR_SHARE,
            100 * FFMA_SHARE,
            String.format(Locale.ROOT, "%.2f", passes(DataType.BF16)),
            String.format(Locale.ROOT, "%.2f", passes(DataType.F32)));
    Files.writeString(Path.of(OUTPUT), text + tables);
  }

  /** The scheme of docs/cuda-traffic.md: no elementwise pass is left in a plain chain. */
  @Test
  void passesPerLayer() {
    double half = passes(DataType.BF16);
    assertTrue(half <= 6.13, half + " passes");
    assertTrue(half > 6, half + " passes cannot be: six tensors and signs are read and written");
    double single = passes(DataType.F32);
    assertTrue(single <= 7, single + " passes");
    assertTrue(single > 6, single + " passes cannot be");
  }

  /** Bytes that one more layer touches for one more image, over those of its activation. */
  private static double passes(DataType type) {
    EmulatorControl.multiprocessors(
        1); // so few that the splits of wgrad do not grow with the batch
    long images = 8;
    long shallow = touched(2, 2 * images, type) - touched(2, images, type);
    long deep = touched(3, 2 * images, type) - touched(3, images, type);
    return (deep - shallow) / (double) (images * EXTENT * EXTENT * 64 * type.bytes());
  }

  /** Bytes touched by all kernels of a training step of a plain chain. */
  private static long touched(int depth, long batch, DataType type) {
    Network network =
        Networks.plain(
                "chain",
                new Layer.Extent(EXTENT, EXTENT, 8),
                10,
                List.of(new Networks.Stage(depth, 64, 1)),
                0)
            .with(TransformedActivation.rectifier(0.5, Math.sqrt(1.6)));
    Program.Options options = new Program.Options(type, 0.1f, true, 1);
    try (Backend backend = EmulatedSubject.openPlain();
        Stream stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Program program = new Program(network, backend, (int) batch, options);
        Program.Workspace workspace = program.newWorkspace(stream);
        Tensor images =
            backend.allocate(Shape.of((int) batch, EXTENT, EXTENT, 8), type, Layout.NHWC);
        Tensor labels = backend.allocate(Shape.of((int) batch), DataType.I32, Layout.ROW_MAJOR)) {
      program.load(stream, parameters);
      stream.synchronize();
      EmulatorControl.clearCounters();
      workspace.forward(images, 0);
      workspace.loss(labels, 1);
      workspace.backward(gradients, Write.OVERWRITE);
      stream.synchronize();
      long bytes = 0;
      for (JsonNode launch : EmulatorControl.counters()) {
        bytes += launch.get("globalLoadFootprint").asLong();
        bytes += launch.get("globalStoreFootprint").asLong();
      }
      return bytes;
    }
  }
}
