package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.FusedRuns.download;
import static io.jtrelu.backend.cuda.FusedRuns.random;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dChain;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.FusedRuns.Outcome;
import io.jtrelu.backend.cuda.FusedRuns.Training;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Network;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Chains of two 1x1 convolutions by the kernels of compute capability 9.0: what they move and
 * multiply, where they are taken, and networks with them. Results are the contract's ({@code
 * Conv2dChainContractTest}).
 */
class HopperChainTest {
  @AfterEach
  void reset() {
    System.clearProperty(HopperChain.PROPERTY);
    System.clearProperty(HopperConvolution.PROPERTY);
    System.clearProperty(CudaBackend.TILE_PROPERTY);
  }

  private static List<JsonNode> launches(String kernel) {
    return EmulatorControl.counters().stream()
        .filter(launch -> launch.get("kernel").asText().startsWith(kernel))
        .toList();
  }

  private static final Conv2dDescriptor EXPAND = Conv2dDescriptor.of(1, 37, 41, 64, 256, 1, 1, 0);
  private static final Conv2dDescriptor REDUCE = Conv2dDescriptor.of(1, 37, 41, 256, 64, 1, 1, 0);

  /** Both passes of 12 tiles: dst, diff_src and gradients. */
  private static List<float[]> passes(DataType type) {
    Rectifier phi = Rectifier.tailored(0.4);
    try (Backend backend = HopperSubject.taking();
        Stream stream = backend.newStream();
        Conv2d first = backend.conv2d(EXPAND, type, phi, phi);
        Conv2d second = backend.conv2d(REDUCE, type, phi, phi);
        Conv2dChain chain = backend.conv2dChain(first, second);
        PackedWeights packed1 = first.newPackedWeights();
        PackedWeights packed2 = second.newPackedWeights();
        Tensor w1 = random(backend, stream, 1, EXPAND.weights(), DataType.F32, Layout.KRSC);
        Tensor w2 = random(backend, stream, 2, REDUCE.weights(), DataType.F32, Layout.KRSC);
        Tensor b1 = random(backend, stream, 3, EXPAND.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor b2 = random(backend, stream, 4, REDUCE.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = random(backend, stream, 5, EXPAND.src(), type, Layout.NHWC);
        Tensor diffDst = random(backend, stream, 6, REDUCE.dst(), type, Layout.NHWC);
        Tensor dst = backend.allocate(REDUCE.dst(), type, Layout.NHWC);
        Tensor diffSrc = backend.allocate(EXPAND.src(), type, Layout.NHWC);
        Tensor signs = backend.allocate(Conv2d.signs(dst.shape()), DataType.U8, Layout.ROW_MAJOR);
        Tensor dw1 = backend.allocate(EXPAND.weights(), DataType.F32, Layout.KRSC);
        Tensor dw2 = backend.allocate(REDUCE.weights(), DataType.F32, Layout.KRSC);
        Tensor db1 = backend.allocate(EXPAND.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor db2 = backend.allocate(REDUCE.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      first.pack(stream, w1, packed1);
      second.pack(stream, w2, packed2);
      var of1 = new Conv2dChain.Weights(packed1, b1);
      stream.synchronize(); // packing is not counted
      EmulatorControl.clearCounters();
      chain.forwardWithSigns(stream, src, of1, new Conv2dChain.Weights(packed2, b2), dst, signs);
      chain.backwardBySigns(
          stream,
          src,
          signs,
          diffDst,
          of1,
          packed2,
          diffSrc,
          Write.OVERWRITE,
          new Conv2dChain.Gradients(dw1, db1),
          new Conv2dChain.Gradients(dw2, db2),
          Write.OVERWRITE);
      List<float[]> results = new ArrayList<>();
      for (Tensor tensor : List.of(dst, diffSrc, dw1, db1, dw2, db2)) {
        results.add(download(backend, stream, tensor));
      }
      return results;
    }
  }

  /** What both passes move and multiply: nothing of the wide tensor's size. */
  @ParameterizedTest
  @EnumSource(names = {"BF16", "F16"})
  void counters(DataType type) {
    passes(type);
    long pixels = 37 * 41;
    long tiles = Math.ceilDiv(pixels, HopperChain.ROWS);
    long blocks = 8; // as multiprocessors
    long weights = 2L * 256 * 64 * 2;
    String suffix = "_sm90" + Kernels.suffix(type);
    JsonNode forward = launches("conv2d_chain_fprop" + suffix).getFirst();
    JsonNode backward = launches("conv2d_chain_bprop" + suffix).getFirst();
    check(forward, tiles, blocks * weights, HopperChain.FORWARD);
    check(backward, tiles, blocks * weights, HopperChain.BACKWARD);
    assertEquals(2, launches("conv2d_wgrad_reduce").size());
    assertEquals(4, EmulatorControl.counters().size(), "nothing else runs");
  }

  private static void check(JsonNode launch, long tiles, long weights, HopperChain.Work work) {
    assertEquals(tiles * work.loads() + weights, launch.get("bulkLoadBytes").asDouble());
    assertEquals(37 * 41 * 128, launch.get("bulkStoreBytes").asLong());
    assertEquals(tiles * work.products(), launch.get("warpgroupMultiplyAdds").asDouble());
    assertEquals(0, launch.get("sharedLoadBankConflicts").asLong());
    assertEquals(0, launch.get("sharedStoreBankConflicts").asLong());
    assertEquals(0, launch.get("localLoadBytes").asLong());
  }

  /** A block that takes all tiles uses every stage again and again, and gives the same. */
  @Test
  void oneMultiprocessor() {
    List<float[]> expected = passes(DataType.BF16);
    EmulatorControl.multiprocessors(1);
    try {
      List<float[]> actual = passes(DataType.BF16);
      assertArrayEquals(expected.get(0), actual.get(0), "dst");
      assertArrayEquals(expected.get(1), actual.get(1), "diff_src");
      for (int i = 2; i < expected.size(); i++) { // added up in another order
        assertArrayEquals(expected.get(i), actual.get(i), 1e-3f, "gradient " + i);
      }
    } finally {
      EmulatorControl.multiprocessors(8);
    }
  }

  private static boolean taken(Backend backend, int batch, int extent, int narrow, int wide) {
    return backend.chains(
        Conv2dDescriptor.of(batch, extent, extent, narrow, wide, 1, 1, 0),
        Conv2dDescriptor.of(batch, extent, extent, wide, narrow, 1, 1, 0),
        DataType.BF16);
  }

  @Test
  void takenWhereItPays() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.multiprocessors(132);
    EmulatorControl.computeCapability(9, 0);
    try (Backend backend = EmulatedSubject.openPlain()) {
      assertTrue(taken(backend, 256, 56, 64, 256));
      assertTrue(taken(backend, 16, 56, 64, 256));
      assertFalse(taken(backend, 1, 14, 64, 256), "two tiles, and sums of weights");
      assertFalse(taken(backend, 256, 28, 128, 512), "no kernel");
      assertFalse(taken(backend, 256, 56, 64, 320), "no kernel");
      Conv2dDescriptor strided = Conv2dDescriptor.of(256, 56, 56, 256, 64, 1, 2, 0);
      Conv2dDescriptor wide = Conv2dDescriptor.of(256, 56, 56, 64, 256, 1, 1, 0);
      Conv2dDescriptor narrow = Conv2dDescriptor.of(256, 56, 56, 256, 64, 1, 1, 0);
      assertFalse(backend.chains(wide, strided, DataType.BF16));
      assertFalse(backend.chains(wide, narrow, DataType.F32));
      assertTrue(backend.chains(wide, narrow, DataType.F16));
      System.setProperty(HopperChain.PROPERTY, "false");
      assertFalse(taken(backend, 256, 56, 64, 256));
      System.clearProperty(HopperChain.PROPERTY);
      System.setProperty(HopperConvolution.PROPERTY, "false");
      assertFalse(taken(backend, 256, 56, 64, 256));
      System.clearProperty(HopperConvolution.PROPERTY);
      System.setProperty(CudaBackend.TILE_PROPERTY, "fprop_bf16");
      assertFalse(taken(backend, 256, 56, 64, 256), "other kernels were asked for");
      System.clearProperty(CudaBackend.TILE_PROPERTY);
      for (int[] capability : new int[][] {{8, 0}, {10, 0}}) {
        EmulatorControl.computeCapability(capability[0], capability[1]);
        try (Backend other = EmulatedSubject.openPlain()) {
          assertFalse(taken(other, 256, 56, 64, 256));
        }
      }
    } finally {
      EmulatorControl.multiprocessors(8);
      EmulatorControl.computeCapability(8, 0);
    }
  }

  private static Network network() {
    Network.Builder b = Network.builder("bottlenecks", 14, 14, 2);
    int x = b.activation("stem", b.convolution("c0", b.input(), 64, 3, 1));
    for (int block = 0; block < 3; block++) {
      String name = "b" + block;
      x = b.activation(name + "a", b.convolution(name + ".reduce", x, 64, 1, 1));
      x = b.activation(name + "b", b.convolution(name + ".window", x, 64, 3, 1));
      x = b.activation(name + "c", b.convolution(name + ".expand", x, 256, 1, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.3));
  }

  /** A pass with chains repeats, and is no further from F32's than without them. */
  @Test
  void networks() {
    Outcome chained = Outcome.of(network(), 8, HopperSubject.taking(), DataType.BF16);
    Outcome again = Outcome.of(network(), 8, HopperSubject.taking(), DataType.BF16);
    assertArrayEquals(chained.logits(), again.logits());
    assertArrayEquals(chained.gradients(), again.gradients());
    String forward = "conv2d_chain_fprop_sm90_bf16";
    String backward = "conv2d_chain_bprop_sm90_bf16";
    assertTrue(chained.kernels().containsAll(Set.of(forward, backward)));
    System.setProperty(HopperChain.PROPERTY, "false");
    Outcome apart = Outcome.of(network(), 8, HopperSubject.taking(), DataType.BF16);
    assertFalse(apart.kernels().contains(forward) || apart.kernels().contains(backward));
    long wide = 8 * 14 * 14 * 256;
    assertEquals(2 * (wide * 2 + wide / 8), apart.held() - chained.held());
    Outcome exact = Outcome.of(network(), 8, Backends.open("reference"), DataType.F32);
    assertTrue(apart.from(exact) > 0, "BF16 rounds");
    assertTrue(
        chained.from(exact) <= 1.2 * apart.from(exact),
        chained.from(exact) + " from F32, apart " + apart.from(exact));
    for (int i = 0; i < exact.logits().length; i++) {
      assertEquals(apart.logits()[i], chained.logits()[i], 0.02 * Math.abs(exact.logits()[i]));
    }
  }

  private static ImageDataset images(int count, Split split) {
    SplittableRandom random = new SplittableRandom(count);
    byte[][] images = new byte[count][14 * 14];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < images[i].length; p++) {
        images[i][p] = (byte) ((p / 70 == labels[i] ? 120 : 0) + random.nextInt(100));
      }
    }
    return ImageDataset.of(
        "bars", split, 14, 14, 1, List.of("top", "middle", "bottom"), images, labels);
  }

  private static Training train() throws IOException {
    Datasets data = new Datasets(images(25, Split.TRAIN), images(4, Split.TEST), List.of());
    return Training.of(network(), data, 8, HopperSubject.taking());
  }

  /**
   * Recorded steps with chains repeat, learn as without them, and take the memory that is planned.
   */
  @Test
  void training() throws IOException {
    Training chained = train();
    assertEquals(chained.losses(), train().losses());
    assertTrue(chained.kernels().contains("conv2d_chain_bprop_sm90_bf16"));
    System.setProperty(HopperChain.PROPERTY, "false");
    Training apart = train();
    assertFalse(apart.kernels().contains("conv2d_chain_bprop_sm90_bf16"));
    for (int step = 0; step < apart.losses().size(); step++) {
      double loss = apart.losses().get(step);
      assertEquals(loss, chained.losses().get(step), loss * (1 + step) / 128, "step " + step);
    }
    for (Training of : List.of(chained, apart)) {
      assertTrue(of.taken() <= of.planned(), of.taken() + " of " + of.planned());
      assertTrue(of.planned() <= 1.25 * of.taken(), of.taken() + " of " + of.planned());
    }
  }
}
