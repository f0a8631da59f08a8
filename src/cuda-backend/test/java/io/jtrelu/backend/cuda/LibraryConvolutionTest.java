package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Convolutions by stand-ins for NVIDIA's libraries: who computes which pass, and that it is work of
 * the stream like any other. What is computed the contract tests hold to the definition.
 */
class LibraryConvolutionTest {
  private static final Conv2dDescriptor LINEAR = Conv2dDescriptor.linear(5, 24, 40);
  private static final Conv2dDescriptor POINTWISE = Conv2dDescriptor.of(2, 5, 3, 24, 40, 1, 1, 0);
  private static final Conv2dDescriptor STRIDED = Conv2dDescriptor.of(2, 9, 7, 24, 40, 3, 2, 1);
  private static final Conv2dDescriptor FEW = Conv2dDescriptor.of(2, 9, 7, 3, 40, 3, 1, 1);
  private static final Conv2dDescriptor UNEVEN = Conv2dDescriptor.same(2, 8, 8, 24, 40, 3, 2);
  private static final String NONE = "";
  private static final String ALL = "fprop dgrad wgrad";

  /** Who is asked, for what, and the passes that are left to our kernels. */
  private record Setting(String providers, Conv2dDescriptor d, String own, String ownIn16Bits) {}

  private static final List<Setting> SETTINGS =
      List.of(
          new Setting("own", LINEAR, ALL, ALL),
          new Setting("cublas", LINEAR, NONE, NONE),
          new Setting("cublas", POINTWISE, NONE, NONE),
          new Setting("cublas", STRIDED, ALL, ALL),
          new Setting("cudnn", LINEAR, NONE, "fprop wgrad"),
          new Setting("cudnn", POINTWISE, NONE, "fprop wgrad"),
          new Setting("cudnn", STRIDED, NONE, "fprop wgrad"),
          new Setting("cudnn", FEW, NONE, "fprop wgrad"),
          new Setting("cudnn", UNEVEN, ALL, ALL));

  @TestFactory
  List<DynamicTest> whoComputes() {
    List<DynamicTest> tests = new ArrayList<>();
    for (String generation : List.of("cuda12", "cuda13")) {
      for (Setting setting : SETTINGS) {
        for (DataType type : List.of(DataType.F32, DataType.BF16)) {
          tests.add(
              DynamicTest.dynamicTest(
                  generation + " " + setting + " " + type, () -> check(generation, setting, type)));
        }
      }
    }
    return tests;
  }

  private static void check(String generation, Setting setting, DataType type) {
    String own = type == DataType.F32 ? setting.own : setting.ownIn16Bits;
    try (Backend reference = Backends.open("reference");
        Backend emulated =
            LibrariesSubject.with(generation, setting.providers, new EmulatedSubject()::open)) {
      List<float[]> expected = CudaTilesTest.passes(reference, setting.d, type);
      EmulatorControl.clearCounters();
      List<float[]> actual = CudaTilesTest.passes(emulated, setting.d, type);
      for (int i = 0; i < actual.size(); i++) {
        assertArrayEquals(expected.get(i), actual.get(i), "result " + i);
      }
      Set<String> passes = new TreeSet<>();
      for (JsonNode launch : EmulatorControl.counters()) {
        String kernel = launch.get("kernel").asText();
        for (String pass : ALL.split(" ", -1)) {
          if (kernel.startsWith("conv2d_" + pass) && !kernel.endsWith("_reduce")) {
            passes.add(pass);
          }
        }
      }
      assertEquals(
          own.isEmpty() ? Set.of() : new TreeSet<>(Arrays.asList(own.split(" ", -1))), passes);
      assertEquals(own.equals(ALL), !EmulatorControl.calls().has("cuLaunchHostFunc"));
    }
  }

  /** Other products of matrices: thin ones, and all where ours come first, are left to ours. */
  @ParameterizedTest
  @CsvSource({
    "cublas, 16, 17, 18, true",
    "'cudnn,cublas', 16, 17, 18, true",
    "cublas, 16, 17, 15, false",
    "cublas, 1, 17, 18, false",
    "'own,cublas', 16, 17, 18, false"
  })
  void whoMultipliesMatrices(String providers, int m, int n, int k, boolean library) {
    try (Backend emulated =
            LibrariesSubject.with("cuda12", providers, new EmulatedSubject()::open);
        Stream stream = emulated.newStream();
        MatrixProduct product =
            emulated.matrixProduct(MatrixProduct.Sizes.dense(m, n, k, false, true));
        Tensor a = emulated.allocate(Shape.of(m, k), DataType.F32, Layout.ROW_MAJOR);
        Tensor b = emulated.allocate(Shape.of(n, k), DataType.F32, Layout.ROW_MAJOR);
        Tensor c = emulated.allocate(Shape.of(m, n), DataType.F32, Layout.ROW_MAJOR)) {
      emulated.fill(stream, a, 1);
      emulated.fill(stream, b, 2);
      stream.synchronize();
      EmulatorControl.clearCounters();
      product.run(stream, 0.5f, a, b, 0, c);
      stream.synchronize();
      assertEquals(library, EmulatorControl.calls().has("cuLaunchHostFunc"));
      assertEquals(library, EmulatorControl.counters().isEmpty());
      assertEquals(k, read(emulated, stream, c)[m * n - 1]);
    }
  }

  private static float[] read(Backend backend, Stream stream, Tensor tensor) {
    try (Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout())) {
      backend.copy(stream, tensor, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  /**
   * A library's work is its stream's: recorded and not done while a stream records, and done again
   * wherever the recording is replayed.
   */
  @ParameterizedTest
  @CsvSource({"cuda12,cublas", "cuda12,cudnn", "cuda13,cublas", "cuda13,cudnn"})
  void isWorkOfTheStream(String generation, String provider) {
    Conv2dDescriptor d = POINTWISE;
    DataType type = DataType.F32;
    try (Backend backend =
            LibrariesSubject.with(generation, provider, new EmulatedSubject()::open);
        Stream other = backend.newStream();
        Conv2d conv = backend.conv2d(d, type, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        Tensor src = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC)) {
      float[] seven = filled(dst, 7);
      float[] product = filled(dst, 24 * 2 + 1);
      Recording recording;
      try (Stream stream = backend.newStream()) {
        backend.fill(stream, src, 2);
        backend.fill(stream, weights, 1);
        backend.fill(stream, bias, 1);
        backend.fill(stream, dst, 7);
        conv.pack(stream, weights, packed);
        stream.synchronize();
        conv.forward(stream, src, packed, bias, dst);
        assertArrayEquals(product, read(backend, stream, dst));
        backend.fill(stream, dst, 7);
        recording = backend.record(stream, () -> conv.forward(stream, src, packed, bias, dst));
        assertArrayEquals(seven, read(backend, stream, dst), "recording does not run");
        long before = backend.memory().allocations();
        recording.replay(stream);
        assertArrayEquals(product, read(backend, stream, dst));
        assertEquals(before, backend.memory().allocations());
      }
      backend.fill(other, src, 0);
      recording.replay(other);
      assertArrayEquals(filled(dst, 1), read(backend, other, dst), "after its stream has closed");
      recording.close();
    }
  }

  private static float[] filled(Tensor like, float value) {
    float[] values = new float[Math.toIntExact(like.shape().elements())];
    Arrays.fill(values, value);
    return values;
  }
}
