package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Conv2dSum;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * Every tile variant through the launcher, also those that the cost model takes for large problems
 * only: integers, hence bit for bit what the reference backend computes.
 */
class CudaTilesTest {
  private static final Rectifier HALF = new Rectifier(0.5f, 1);

  @TestFactory
  List<DynamicTest> everyVariant() {
    List<DynamicTest> tests = new ArrayList<>();
    for (TileVariant variant : TileVariant.all()) {
      tests.add(DynamicTest.dynamicTest(variant.name(), () -> check(variant)));
    }
    assertTrue(tests.size() >= 50 || Kernels.missing() != null, "variants: " + tests.size());
    return tests;
  }

  private static void check(TileVariant variant) {
    DataType type =
        variant.type().equals("tf32")
            ? DataType.F32
            : DataType.valueOf(variant.type().toUpperCase(Locale.ROOT));
    System.setProperty(CudaBackend.TILE_PROPERTY, variant.name());
    System.setProperty(CudaBackend.TF32_PROPERTY, Boolean.toString(variant.type().equals("tf32")));
    try (Backend reference = Backends.open("reference");
        Backend emulated = new EmulatedSubject().open()) {
      for (int stride = 1; stride <= 2; stride++) {
        Conv2dDescriptor d = problem(variant, stride);
        List<float[]> expected = passes(reference, d, type);
        EmulatorControl.clearCounters();
        List<float[]> actual = passes(emulated, d, type);
        for (int i = 0; i < actual.size(); i++) {
          assertArrayEquals(expected.get(i), actual.get(i), d + ", result " + i);
        }
        assertTrue(
            EmulatorControl.counters().stream()
                .anyMatch(launch -> launch.get("kernel").asText().equals(variant.name())),
            variant.name() + " was not used for " + d);
      }
    } finally {
      System.clearProperty(CudaBackend.TILE_PROPERTY);
      System.clearProperty(CudaBackend.TF32_PROPERTY);
    }
  }

  /** A small problem that a variant takes, with tails. */
  private static Conv2dDescriptor problem(TileVariant variant, int stride) {
    if (variant.panel()) { // blocks for all multiprocessors, each with two column tiles
      return Conv2dDescriptor.of(2, 33, 31, 136, 136, 1, stride, 0);
    }
    int oc = variant.takesAnyAlignment() ? 37 : 40;
    boolean wgrad = variant.pass() == TileVariant.Pass.WGRAD;
    int channels = wgrad ? variant.srcChannels() : variant.dstChannels();
    boolean pixels = channels * bytes(variant) == 8; // copies of whole pixels
    boolean few = variant.stem() || (wgrad && channels == 1);
    return Conv2dDescriptor.of(2, 9, 7, pixels ? 4 : few ? 3 : 24, oc, 3, stride, 1);
  }

  private static int bytes(TileVariant variant) {
    return variant.type().endsWith("16") ? 2 : 4;
  }

  /** dst, diff_src, diff_weights, diff_bias, and dst with a sum behind the convolution. */
  static List<float[]> passes(Backend backend, Conv2dDescriptor d, DataType type) {
    SplittableRandom random = new SplittableRandom(d.hashCode());
    List<AutoCloseable> owned = new ArrayList<>();
    Stream stream = backend.newStream();
    Conv2d conv = backend.conv2d(d, type, HALF, HALF);
    PackedWeights packed = conv.newPackedWeights();
    Tensor src = upload(backend, stream, random, d.src(), type, Layout.NHWC, owned);
    Tensor weights = upload(backend, stream, random, d.weights(), DataType.F32, Layout.KRSC, owned);
    Tensor bias = upload(backend, stream, random, d.bias(), DataType.F32, Layout.ROW_MAJOR, owned);
    Tensor diffDst = upload(backend, stream, random, d.dst(), type, Layout.NHWC, owned);
    Tensor dst = upload(backend, stream, random, d.dst(), type, Layout.NHWC, owned);
    Tensor diffSrc = upload(backend, stream, random, d.src(), type, Layout.NHWC, owned);
    Tensor diffWeights =
        upload(backend, stream, random, d.weights(), DataType.F32, Layout.KRSC, owned);
    Tensor diffBias =
        upload(backend, stream, random, d.bias(), DataType.F32, Layout.ROW_MAJOR, owned);
    Conv2d inner = backend.conv2d(d, type, Rectifier.IDENTITY, HALF);
    Conv2dSum sum = backend.conv2dSum(inner, 2, 0.5f, HALF);
    Tensor sumDst = upload(backend, stream, random, d.dst(), type, Layout.NHWC, owned);
    conv.pack(stream, weights, packed);
    sum.forward(stream, src, packed, bias, diffDst, sumDst);
    conv.forward(stream, src, packed, bias, dst);
    conv.backwardData(stream, diffDst, packed, src, diffSrc, Write.ACCUMULATE);
    conv.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.ACCUMULATE);
    List<float[]> results = new ArrayList<>();
    for (Tensor result : List.of(dst, diffSrc, diffWeights, diffBias, sumDst)) {
      try (Tensor host = Tensor.allocate(result.shape(), result.type(), result.layout())) {
        backend.copy(stream, result, host);
        stream.synchronize();
        results.add(host.toFloatArray());
      }
    }
    sum.close();
    inner.close();
    packed.close();
    conv.close();
    stream.close();
    owned.forEach(CudaTilesTest::close);
    return results;
  }

  private static void close(AutoCloseable resource) {
    try {
      resource.close();
    } catch (Exception impossible) {
      throw new AssertionError(impossible);
    }
  }

  private static Tensor upload(
      Backend backend,
      Stream stream,
      SplittableRandom random,
      Shape shape,
      DataType type,
      Layout layout,
      List<AutoCloseable> owned) {
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextInt(-2, 3);
    }
    Tensor host = Tensor.allocate(shape, type, layout).set(values);
    Tensor tensor = backend.allocate(shape, type, layout);
    backend.copy(stream, host, tensor);
    stream.synchronize();
    host.close();
    owned.add(tensor);
    return tensor;
  }
}
