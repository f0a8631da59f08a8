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
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Conv2dPool;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
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
 * ImageNet's stem with its pooling by the kernels of compute capability 9.0: what they move and
 * multiply, where they are taken, and networks with them. Results are the contract's ({@code
 * Conv2dPoolContractTest}).
 */
class HopperPoolTest {
  private static final String FPROP = "conv2d_pool_fprop_sm90";
  private static final String WGRAD = "conv2d_pool_wgrad_sm90";

  @AfterEach
  void reset() {
    System.clearProperty(HopperPool.PROPERTY);
    System.clearProperty(HopperConvolution.PROPERTY);
    System.clearProperty(CudaBackend.TILE_PROPERTY);
  }

  private static JsonNode launch(String kernel) {
    return EmulatorControl.counters().stream()
        .filter(launch -> launch.get("kernel").asText().startsWith(kernel))
        .findFirst()
        .orElseThrow();
  }

  private static Conv2dDescriptor stem(int images, int height) {
    return Conv2dDescriptor.same(images, height, 224, 4, 64, 7, 2);
  }

  private static MaxPool2dDescriptor pooling(Conv2dDescriptor d) {
    return new MaxPool2dDescriptor(d.n(), d.oh(), d.ow(), d.oc(), 3, 2, 0, 1);
  }

  private static final Conv2dDescriptor STEM = stem(3, 38);
  private static final MaxPool2dDescriptor POOLING = pooling(STEM);

  /** Both passes: dst and gradients. */
  private static List<float[]> passes(DataType type) {
    Rectifier phi = Rectifier.tailored(0.4);
    try (Backend backend = HopperSubject.taking();
        Stream stream = backend.newStream();
        Conv2d convolution = backend.conv2d(STEM, type, phi, Rectifier.IDENTITY);
        MaxPool2d pooling = backend.maxPool2d(POOLING, type, phi);
        Conv2dPool op = backend.conv2dPool(convolution, pooling);
        PackedWeights packed = convolution.newPackedWeights();
        Tensor weights = random(backend, stream, 1, STEM.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = random(backend, stream, 2, STEM.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = random(backend, stream, 3, STEM.src(), type, Layout.NHWC);
        Tensor diffDst = random(backend, stream, 4, POOLING.dst(), type, Layout.NHWC);
        Tensor dst = backend.allocate(POOLING.dst(), type, Layout.NHWC);
        Tensor places = backend.allocate(POOLING.dst(), DataType.U8, Layout.NHWC);
        Tensor diffWeights = backend.allocate(STEM.weights(), DataType.F32, Layout.KRSC);
        Tensor diffBias = backend.allocate(STEM.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      convolution.pack(stream, weights, packed);
      stream.synchronize(); // packing is not counted
      EmulatorControl.clearCounters();
      op.forward(stream, src, packed, bias, dst, places);
      op.backwardWeights(stream, src, diffDst, places, diffWeights, diffBias, Write.OVERWRITE);
      List<float[]> results = new ArrayList<>();
      for (Tensor tensor : List.of(dst, diffWeights, diffBias)) {
        results.add(download(backend, stream, tensor));
      }
      return results;
    }
  }

  /** What both passes move and multiply: nothing of the size of what lies between. */
  @ParameterizedTest
  @EnumSource(names = {"BF16", "F16"})
  void counters(DataType type) {
    passes(type);
    HopperPool.Plan forward = HopperPool.forward(STEM.n(), POOLING, 8);
    HopperPool.Plan backward = HopperPool.backward(STEM.n(), POOLING, 8);
    assertTrue(forward.strips() > 1 && backward.strips() > 1);
    long images = 0;
    long rows = 0;
    for (int r = 0; r < POOLING.oh(); r += forward.stripRows()) {
      int end = Math.min(r + forward.stripRows(), POOLING.oh());
      int last = Math.min(2 * end, STEM.oh() - 1); // of the convolution
      rows += last - 2 * r + 1;
      images += rowsSeen(2 * r, last);
    }
    String suffix = Kernels.suffix(type);
    JsonNode fprop = launch(FPROP + suffix);
    assertEquals(3 * images * 224 * 8, fprop.get("bulkLoadBytes").asLong());
    assertEquals(3L * POOLING.oh() * 56 * 128, fprop.get("bulkStoreBytes").asLong());
    check(fprop, 3 * rows);

    images = 0;
    rows = 0;
    long pooled = 0;
    for (int r = 0; r < backward.rows(); r += backward.stripRows()) {
      int end = Math.min(r + backward.stripRows(), backward.rows());
      int last = Math.min(2 * end, STEM.oh()) - 1;
      rows += last - 2 * r + 1;
      images += rowsSeen(2 * r, last);
      pooled += Math.min(end, POOLING.oh()) - Math.max(r - 1, 0);
    }
    assertEquals(STEM.oh(), rows, "each row of the convolution once");
    JsonNode wgrad = launch(WGRAD + suffix);
    assertEquals(
        3 * (images * 224 * 8 + pooled * (56 * 128 + 5 * 128 * 4)),
        wgrad.get("bulkLoadBytes").asLong());
    check(wgrad, 3 * rows);
    assertEquals(3, EmulatorControl.counters().size(), "they, and the sum of partial ones");
  }

  /** Rows of an image, in pairs, that rows of the convolution see. */
  private static int rowsSeen(int first, int last) {
    int top = Math.max(2 * first - STEM.padTop(), 0) / 2 * 2;
    int bottom = (2 * last - STEM.padTop() + 6) / 2 * 2 + 2;
    return Math.min(bottom, STEM.h()) - top;
  }

  private static void check(JsonNode launch, long rows) {
    assertEquals(rows * HopperPool.PRODUCTS, launch.get("warpgroupMultiplyAdds").asDouble());
    assertEquals(0, launch.get("sharedLoadBankConflicts").asLong());
    assertEquals(0, launch.get("sharedStoreBankConflicts").asLong());
    assertEquals(0, launch.get("localLoadBytes").asLong());
  }

  /** Warpgroups that take all strips use every stage again and again, and give the same. */
  @Test
  void oneMultiprocessor() {
    List<float[]> expected = passes(DataType.BF16);
    EmulatorControl.multiprocessors(1);
    try {
      List<float[]> actual = passes(DataType.BF16);
      assertArrayEquals(expected.get(0), actual.get(0), "dst");
      for (int i = 1; i < expected.size(); i++) { // added up in another order
        assertArrayEquals(expected.get(i), actual.get(i), 1e-3f, "gradient " + i);
      }
    } finally {
      EmulatorControl.multiprocessors(8);
    }
  }

  private static boolean taken(Backend backend, Conv2dDescriptor d) {
    return backend.pools(d, pooling(d), DataType.BF16);
  }

  @Test
  void takenWhereItPays() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.multiprocessors(132);
    EmulatorControl.computeCapability(9, 0);
    try (Backend backend = EmulatedSubject.openPlain()) {
      Conv2dDescriptor d = stem(256, 224);
      assertTrue(taken(backend, d));
      assertTrue(taken(backend, stem(8, 224)));
      assertTrue(taken(backend, Conv2dDescriptor.of(256, 224, 224, 4, 64, 7, 2, 3)));
      assertTrue(backend.pools(d, pooling(d), DataType.F16));
      assertFalse(backend.pools(d, pooling(d), DataType.F32));
      assertFalse(taken(backend, stem(0, 224)), "nothing to do");
      assertFalse(taken(backend, Conv2dDescriptor.same(256, 224, 192, 4, 64, 7, 2)), "no kernel");
      assertFalse(taken(backend, Conv2dDescriptor.same(256, 224, 224, 3, 64, 7, 2)), "no kernel");
      assertFalse(taken(backend, Conv2dDescriptor.same(256, 224, 224, 4, 64, 5, 2)), "no kernel");
      System.setProperty(HopperPool.PROPERTY, "false");
      assertFalse(taken(backend, d));
      System.clearProperty(HopperPool.PROPERTY);
      System.setProperty(HopperConvolution.PROPERTY, "false");
      assertFalse(taken(backend, d));
      System.clearProperty(HopperConvolution.PROPERTY);
      System.setProperty(CudaBackend.TILE_PROPERTY, "fprop_bf16");
      assertFalse(taken(backend, d), "other kernels were asked for");
      System.clearProperty(CudaBackend.TILE_PROPERTY);
      for (int[] capability : new int[][] {{8, 0}, {10, 0}}) {
        EmulatorControl.computeCapability(capability[0], capability[1]);
        try (Backend other = EmulatedSubject.openPlain()) {
          assertFalse(taken(other, d));
        }
      }
    } finally {
      EmulatorControl.multiprocessors(8);
      EmulatorControl.computeCapability(8, 0);
    }
  }

  /** Of images in colour, to which the pipeline adds a constant channel. */
  private static Network network() {
    Network.Builder b = Network.builder("stem", 40, 224, 4);
    int x = b.activation("act", b.convolution("c", b.input(), 64, 7, 2));
    x = b.maxPool("max", x, 3, 2);
    x = b.activation("act1", b.convolution("c1", x, 16, 1, 2));
    b.linear("logits", b.globalMeanPool("mean", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.3));
  }

  private static boolean pooled(Outcome of) {
    return of.kernels().containsAll(Set.of(WGRAD + "_bf16_0", FPROP + "_bf16_0"));
  }

  /** A pass with the two as one repeats, and is no further from F32's than apart. */
  @Test
  void networks() {
    Outcome pooled = Outcome.of(network(), 4, HopperSubject.taking(), DataType.BF16);
    Outcome again = Outcome.of(network(), 4, HopperSubject.taking(), DataType.BF16);
    assertArrayEquals(pooled.logits(), again.logits());
    assertArrayEquals(pooled.gradients(), again.gradients());
    assertTrue(pooled(pooled), pooled.kernels().toString());
    System.setProperty(HopperPool.PROPERTY, "false");
    Outcome apart = Outcome.of(network(), 4, HopperSubject.taking(), DataType.BF16);
    assertFalse(pooled(apart));
    assertTrue(pooled.held() <= apart.held());
    Outcome exact = Outcome.of(network(), 4, Backends.open("reference"), DataType.F32);
    assertTrue(apart.from(exact) > 0, "BF16 rounds");
    assertTrue(
        pooled.from(exact) <= 1.2 * apart.from(exact),
        pooled.from(exact) + " from F32, apart " + apart.from(exact));
    for (int i = 0; i < exact.logits().length; i++) {
      assertEquals(apart.logits()[i], pooled.logits()[i], 0.02 * Math.abs(exact.logits()[i]));
    }
  }

  private static ImageDataset images(int count, Split split) {
    SplittableRandom random = new SplittableRandom(count);
    byte[][] images = new byte[count][40 * 224 * 3];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < images[i].length; p++) {
        images[i][p] = (byte) ((p % 3 == labels[i] ? 120 : 0) + random.nextInt(100));
      }
    }
    return ImageDataset.of(
        "colours", split, 40, 224, 3, List.of("red", "green", "blue"), images, labels);
  }

  private static Training train() throws IOException {
    Datasets data = new Datasets(images(13, Split.TRAIN), images(4, Split.TEST), List.of());
    return Training.of(network(), data, 4, HopperSubject.taking());
  }

  /** Recorded steps repeat, learn as with the two apart, and take the memory that is planned. */
  @Test
  void training() throws IOException {
    Training pooled = train();
    assertEquals(pooled.losses(), train().losses());
    assertTrue(pooled.kernels().contains(WGRAD + "_bf16_0"), pooled.kernels().toString());
    System.setProperty(HopperPool.PROPERTY, "false");
    Training apart = train();
    assertFalse(apart.kernels().contains(WGRAD + "_bf16_0"));
    for (int step = 0; step < apart.losses().size(); step++) {
      double loss = apart.losses().get(step);
      assertEquals(loss, pooled.losses().get(step), loss * (1 + step) / 128, "step " + step);
    }
    for (Training of : List.of(pooled, apart)) {
      assertTrue(of.taken() <= of.planned(), of.taken() + " of " + of.planned());
      // Twice what it takes to convert 64 images, for two streams, of which one converts.
      assertTrue(of.planned() <= 1.4 * of.taken(), of.taken() + " of " + of.planned());
    }
    long between = 4L * 20 * 112 * 64 * 2;
    assertTrue(apart.planned() - pooled.planned() >= between, "what lies between is not planned");
  }
}
