package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.Future;
import java.util.function.DoubleSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What the contract tests cannot see: native objects, lanes, formats of packed weights. */
class OneDnnBackendTest {
  private static final Rectifier PHI = Rectifier.tailored(0.4);
  private static final Conv2dDescriptor DIRECT = Conv2dDescriptor.of(2, 10, 9, 16, 24, 3, 1, 1);
  private static final Conv2dDescriptor FEW_CHANNELS =
      Conv2dDescriptor.of(2, 9, 11, 3, 32, 5, 2, 2);
  private static final Conv2dDescriptor ONE_BY_ONE = Conv2dDescriptor.of(2, 9, 7, 40, 72, 1, 1, 0);
  private static final Conv2dDescriptor MIXED = Conv2dDescriptor.of(2, 9, 7, 160, 128, 1, 1, 0);
  private static final Conv2dDescriptor WINOGRAD = Conv2dDescriptor.of(2, 8, 9, 32, 48, 3, 1, 1);

  private final List<CpuKernels> opened = new ArrayList<>();
  private OneDnnBackend backend;
  private long objectsAtStart;

  @BeforeEach
  void open() {
    backend = (OneDnnBackend) new OneDnnSubject().open();
    objectsAtStart = backend.library().liveObjects();
  }

  @AfterEach
  void close() {
    assertEquals(objectsAtStart, backend.library().liveObjects(), "native objects left");
    assertEquals(0, backend.memory().inUse(), "tensors left");
    opened.forEach(CpuKernels::close);
    backend.close();
    backend.close();
    assertEquals(0, backend.library().liveObjects(), "the engine is left");
    assertThrows(IllegalStateException.class, backend::newStream);
  }

  /** A convolution with operands of its own; runs all passes. */
  private static final class Layer implements AutoCloseable {
    private final Conv2d operation;
    private final PackedWeights packed;
    private final List<Tensor> tensors = new ArrayList<>();
    private final Backend backend;
    private final Tensor weights;
    private final Tensor bias;
    private final Tensor src;
    private final Tensor dst;
    private final Tensor diffDst;
    private final Tensor diffSrc;
    private final Tensor diffWeights;
    private final Tensor diffBias;

    Layer(Backend backend, Conv2d operation) {
      this(backend, operation, 0);
    }

    /**
     * @param offset floats before the gradients of the weights: 1 to have them unaligned
     */
    Layer(Backend backend, Conv2d operation, int offset) {
      this.backend = backend;
      this.operation = operation;
      Conv2dDescriptor d = operation.descriptor();
      SplittableRandom random = new SplittableRandom(7);
      this.packed = operation.newPackedWeights();
      this.weights = tensor(random, d.weights(), DataType.F32, Layout.KRSC);
      this.bias = tensor(random, d.bias(), DataType.F32, Layout.ROW_MAJOR);
      DataType type = operation.type();
      this.src = tensor(random, d.src(), type, Layout.NHWC);
      this.dst = tensor(random, d.dst(), type, Layout.NHWC);
      this.diffDst = tensor(random, d.dst(), type, Layout.NHWC);
      this.diffSrc = tensor(random, d.src(), type, Layout.NHWC);
      Shape gradients = Shape.of(Math.toIntExact(offset + d.weights().elements()));
      this.diffWeights =
          tensor(random, gradients, DataType.F32, Layout.ROW_MAJOR)
              .slice(offset, d.weights(), Layout.KRSC);
      this.diffBias = tensor(random, d.bias(), DataType.F32, Layout.ROW_MAJOR);
    }

    /**
     * Small integers, so that every sum is exact; of BF16 also the sums of four that a tile takes.
     */
    private Tensor tensor(SplittableRandom random, Shape shape, DataType type, Layout layout) {
      Tensor tensor = backend.allocate(shape, type, layout);
      int largest = operation.type() == DataType.BF16 ? 2 : 4;
      float[] values = new float[Math.toIntExact(shape.elements())];
      for (int i = 0; i < values.length; i++) {
        values[i] = random.nextInt(-largest, largest + 1);
      }
      tensors.add(tensor.set(values));
      return tensor;
    }

    /** Data of one size: of a magnitude from 0.7 to 1.7. */
    void fillWithReals() {
      SplittableRandom random = new SplittableRandom(11);
      for (Tensor tensor : List.of(src, diffDst, weights)) {
        for (long i = 0; i < tensor.shape().elements(); i++) {
          tensor.put(
              i, random.nextBoolean() ? 0.7f + random.nextFloat() : -0.7f - random.nextFloat());
        }
      }
    }

    void run(Stream stream, Write write) {
      operation.pack(stream, weights, packed);
      operation.forward(stream, src, packed, bias, dst);
      operation.backwardData(stream, diffDst, packed, src, diffSrc, write);
      operation.backwardWeights(stream, src, diffDst, diffWeights, diffBias, write);
    }

    List<float[]> results() {
      return List.of(
          dst.toFloatArray(),
          diffSrc.toFloatArray(),
          diffWeights.toFloatArray(),
          diffBias.toFloatArray());
    }

    @Override
    public void close() {
      tensors.forEach(Tensor::close);
      packed.close();
      packed.close();
      operation.close();
      operation.close();
    }
  }

  private Layer layer(Conv2dDescriptor descriptor, Rectifier phi) {
    return new Layer(backend, backend.conv2d(descriptor, DataType.F32, phi, phi));
  }

  @Test
  void tenThousandExecutionsMakeNoNativeObjects() {
    Conv2dDescriptor small = Conv2dDescriptor.of(1, 5, 5, 3, 4, 3, 1, 1);
    try (Stream stream = backend.newStream();
        Layer layer = layer(small, PHI)) {
      layer.run(stream, Write.OVERWRITE);
      layer.run(stream, Write.ACCUMULATE);
      long objects = backend.library().liveObjects();
      long workspace = ((OneDnnStream) stream).workspaceBytes();
      for (int i = 0; i < 2_500; i++) { // of four operations each
        layer.run(stream, Write.OVERWRITE);
      }
      assertEquals(objects, backend.library().liveObjects());
      assertEquals(workspace, ((OneDnnStream) stream).workspaceBytes());
    }
  }

  @Test
  void manyStreamsInTurnTakeNoMoreThanOne() {
    try (Layer layer = layer(DIRECT, PHI)) {
      long objects = 0;
      for (int i = 0; i < 100; i++) {
        try (Stream stream = backend.newStream()) {
          layer.run(stream, Write.OVERWRITE);
        }
        if (i == 0) {
          objects = backend.library().liveObjects();
        }
      }
      assertEquals(objects, backend.library().liveObjects());
    }
  }

  @Test
  void lanesRunOneOperationAtOnce() throws Exception {
    for (Conv2dDescriptor descriptor : List.of(DIRECT, WINOGRAD, ONE_BY_ONE, FEW_CHANNELS, MIXED)) {
      try (Conv2d operation = backend.conv2d(descriptor, DataType.F32, PHI, PHI);
          ExecutorService threads = Executors.newFixedThreadPool(4)) {
        List<Future<List<float[]>>> futures = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
          futures.add(
              threads.submit(
                  () -> {
                    try (Stream stream = backend.newStream()) {
                      Layer layer = new Layer(backend, operation);
                      for (int repeat = 0; repeat < 20; repeat++) {
                        layer.run(stream, Write.OVERWRITE);
                      }
                      List<float[]> results = layer.results();
                      layer.tensors.forEach(Tensor::close);
                      layer.packed.close();
                      return results;
                    }
                  }));
        }
        List<float[]> first = futures.get(0).get();
        for (Future<List<float[]>> future : futures) {
          for (int i = 0; i < first.size(); i++) {
            assertArrayEquals(first.get(i), future.get().get(i), "result " + i + " differs");
          }
        }
      }
    }
  }

  /**
   * oneDNN's direct convolution is the independent implementation; integers make both exact. Every
   * instruction set that this machine has, every width of register tiles, odd and even extents, all
   * paddings, units that begin and end within an image, gradients of weights on cache lines or not.
   */
  @Test
  void winogradAgreesWithTheDirectMethod() throws IOException {
    List<CpuKernels> sets = openEveryInstructionSet();
    for (DataType type : List.of(DataType.F32, DataType.BF16)) {
      if (!backend.supports(type)) { // by the direct method
        continue;
      }
      List<CpuKernels.Convolutions> convolutions = new ArrayList<>();
      for (CpuKernels kernels : sets) {
        if (kernels.usesMatrixUnits()) {
          continue; // its kernels of Winograd's method are those of the next one
        }
        convolutions.add(kernels.convolutions(type));
        if (type == DataType.BF16 && kernels.roundedConvolutions() != null) {
          convolutions.add(kernels.roundedConvolutions());
        }
      }
      winogradAgreesWithTheDirectMethod(convolutions, type, new SplittableRandom(3));
    }
  }

  /** For tests of each; they are closed with the backend. */
  private List<CpuKernels> openEveryInstructionSet() throws IOException {
    while (true) {
      try {
        opened.add(CpuKernels.load(opened.size()));
      } catch (UnsupportedException noMore) {
        assertFalse(opened.isEmpty(), "no kernels: " + backendsReason());
        return opened;
      }
    }
  }

  private static String backendsReason() {
    return new OneDnnProvider().availability().toString();
  }

  private void winogradAgreesWithTheDirectMethod(
      List<CpuKernels.Convolutions> everySet, DataType type, SplittableRandom random) {
    Rectifier exact = new Rectifier(0.5f, 1);
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < 60; i++) {
        int offset = i % 2;
        boolean large = i % 10 == 0; // several units
        Conv2dDescriptor d =
            new Conv2dDescriptor(
                large ? 6 : random.nextInt(4),
                random.nextInt(1, 12) + (large ? 24 : 0),
                random.nextInt(1, 12) + (large ? 24 : 0),
                16 * random.nextInt(1, 7),
                16 * random.nextInt(1, 7),
                3,
                3,
                1,
                1,
                random.nextInt(1, 3),
                random.nextInt(1, 3),
                random.nextInt(1, 3),
                random.nextInt(1, 3),
                1,
                1,
                1);
        assertTrue(WinogradConv2d.applies(d), d.toString());
        for (Write write : Write.values()) {
          for (Rectifier srcActivation : List.of(exact, Rectifier.IDENTITY)) {
            List<float[]> expected =
                results(
                    stream,
                    new OneDnnConv2d(backend.library(), d, type, exact, srcActivation),
                    offset,
                    write);
            for (CpuKernels.Convolutions convolutions : everySet) {
              for (int tile : new int[] {2, 4}) {
                requireEqual(
                    expected,
                    results(
                        stream,
                        new WinogradConv2d(convolutions, d, type, exact, srcActivation, tile, 1),
                        offset,
                        write),
                    convolutions + ", tile " + tile + " " + d + " " + write);
              }
            }
          }
        }
      }
    }
  }

  /** What all passes of an operation give, which is closed. */
  private List<float[]> results(Stream stream, Conv2d operation, int offset, Write write) {
    try (Layer layer = new Layer(backend, operation, offset)) {
      layer.run(stream, write);
      return layer.results();
    }
  }

  private static void requireEqual(List<float[]> expected, List<float[]> actual, String what) {
    for (int k = 0; k < expected.size(); k++) {
      assertArrayEquals(expected.get(k), actual.get(k), what + " result " + k);
    }
  }

  /**
   * oneDNN is the independent implementation; integers make both exact. Every instruction set that
   * this machine has, kernels, strides and paddings of all kinds, channels each side of vectors and
   * panels, blocks of channels, units and blocks of pixels, gradients on cache lines or not.
   */
  @Test
  void directAgreesWithOneDnn() throws IOException {
    List<F32Convolutions> everySet =
        openEveryInstructionSet().stream().map(CpuKernels::directConvolutions).toList();
    SplittableRandom random = new SplittableRandom(4);
    Rectifier exact = new Rectifier(0.5f, 1);
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < 120; i++) {
        int offset = i % 2;
        int kh = i % 2 == 0 ? 1 : random.nextInt(1, 8);
        int kw = i % 2 == 0 ? 1 : random.nextInt(1, 8);
        boolean many = i % 10 == 0; // pixels: several units
        boolean deep = i % 10 == 2; // channels: several blocks and panels
        Conv2dDescriptor d =
            new Conv2dDescriptor(
                many ? 3 : random.nextInt(4),
                kh + random.nextInt(many ? 30 : 9),
                kw + random.nextInt(many ? 30 : 9),
                deep ? random.nextInt(250, 600) : random.nextInt(1, 70),
                deep ? random.nextInt(250, 600) : random.nextInt(1, 70),
                kh,
                kw,
                random.nextInt(1, 4),
                random.nextInt(1, 4),
                random.nextInt(kh),
                random.nextInt(kw),
                random.nextInt(kh),
                random.nextInt(kw),
                1,
                1,
                1);
        assertTrue(F32Conv2d.applies(d), d.toString());
        Write write = random.nextBoolean() ? Write.OVERWRITE : Write.ACCUMULATE;
        Rectifier srcActivation = random.nextBoolean() ? exact : Rectifier.IDENTITY;
        requireSameResults(stream, d, srcActivation, everySet, offset, write);
      }
    }
  }

  /**
   * oneDNN is the independent implementation; integers make both exact. Every instruction set that
   * this machine has, kernels, strides and paddings of all kinds, every number of channels and
   * width of register tiles, several blocks of rows, gradients on cache lines or not.
   */
  @Test
  void fewChannelsAgreeWithOneDnn() throws IOException {
    List<F32Convolutions> everySet =
        openEveryInstructionSet().stream()
            .filter(kernels -> !kernels.usesMatrixUnits()) // else its kernels are the next one's
            .map(CpuKernels::fewChannels)
            .toList();
    SplittableRandom random = new SplittableRandom(6);
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < 120; i++) {
        int kh = i % 5 == 0 ? 7 : random.nextInt(1, 8);
        int kw = i % 5 == 0 ? 7 : random.nextInt(1, 8);
        boolean many = i % 10 == 0; // pixels: several blocks
        Conv2dDescriptor d =
            new Conv2dDescriptor(
                many ? 3 : random.nextInt(4),
                kh + random.nextInt(9) + (many ? 50 : 0),
                kw + random.nextInt(9) + (many ? 50 : 0),
                1 + i % 15,
                16 * random.nextInt(1, 7),
                kh,
                kw,
                random.nextInt(1, 4),
                random.nextInt(1, 4),
                random.nextInt(kh),
                random.nextInt(kw),
                random.nextInt(kh),
                random.nextInt(kw),
                1,
                1,
                1);
        assertTrue(F32Conv2d.fewChannelsApply(d), d.toString());
        Write write = random.nextBoolean() ? Write.OVERWRITE : Write.ACCUMULATE;
        Rectifier srcActivation =
            random.nextBoolean() ? new Rectifier(0.5f, 1) : Rectifier.IDENTITY;
        requireSameResults(stream, d, srcActivation, everySet, i % 2, write);
      }
    }
  }

  /** By sizes alone: channels read and written, taps, and the width of an image. */
  @Test
  void convolutionsOfFewChannelsHaveKernelsOfTheirOwn() throws IOException {
    try (CpuKernels kernels = CpuKernels.best()) {
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(1, 224, 224, 3, 64, 7, 2, 3),
              Conv2dDescriptor.of(1, 224, 224, 4, 64, 7, 2, 3),
              Conv2dDescriptor.same(1, 225, 223, 4, 64, 7, 2),
              Conv2dDescriptor.of(8, 28, 28, 2, 32, 3, 1, 1),
              Conv2dDescriptor.of(2, 9, 8, 15, 16, 3, 2, 1),
              Conv2dDescriptor.of(0, 9, 8, 1, 48, 5, 1, 0))) {
        assertSame(kernels.fewChannels(), F32Conv2d.kernelsFor(kernels, d, true), d.toString());
      }
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(8, 28, 28, 2, 24, 3, 1, 1),
              Conv2dDescriptor.of(8, 28, 28, 4, 32, 1, 1, 0), // one tap
              Conv2dDescriptor.of(
                  8, 16, 28, 4, 32, 12, 1, 0), // more taps than there are kernels for
              Conv2dDescriptor.of(1, 7, 3000, 4, 64, 7, 2, 3))) { // a wide row
        assertNull(F32Conv2d.kernelsFor(kernels, d, true), d.toString());
      }
    }
  }

  /** By sizes alone: channels, extents, padding and the number of results. */
  @Test
  void stridedConvolutionsAreByWinogradsMethodWhereItIsFaster() throws IOException {
    try (CpuKernels kernels = CpuKernels.best()) {
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.same(3, 11, 12, 16, 32, 3, 2),
              Conv2dDescriptor.of(4, 14, 14, 512, 512, 3, 2, 1),
              Conv2dDescriptor.of(1, 28, 28, 256, 256, 3, 2, 1))) {
        assertSame(kernels.stridedWinograd(), F32Conv2d.kernelsFor(kernels, d, true), d.toString());
      }
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(1, 14, 14, 512, 512, 3, 2, 1), // few results
              Conv2dDescriptor.same(9, 10, 12, 16, 32, 3, 2), // five rows of them
              Conv2dDescriptor.same(3, 11, 12, 17, 32, 3, 2),
              Conv2dDescriptor.same(3, 11, 12, 16, 32, 5, 2),
              Conv2dDescriptor.same(3, 18, 18, 16, 32, 3, 3),
              Conv2dDescriptor.of(3, 16, 15, 16, 32, 3, 2, 0), // a row in no window
              Conv2dDescriptor.of(3, 12, 12, 16, 32, 1, 2, 0))) {
        assertSame(
            kernels.directConvolutions(), F32Conv2d.kernelsFor(kernels, d, true), d.toString());
      }
      assertNull(
          F32Conv2d.kernelsFor(kernels, Conv2dDescriptor.of(3, 12, 12, 8, 40, 3, 2, 1), true));
      assertNull(
          F32Conv2d.kernelsFor(kernels, Conv2dDescriptor.of(3, 12, 12, 16, 32, 3, 1, 1), true));
    }
  }

  /** By sizes alone: channels, extents and the number of results; or never. */
  @Test
  void oneByOneConvolutionsAreByStrassensMethodWhereItIsFaster() throws IOException {
    try (CpuKernels kernels = CpuKernels.best()) {
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(1, 14, 14, 1024, 256, 1, 1, 0),
              Conv2dDescriptor.of(1, 28, 28, 128, 512, 1, 1, 0),
              Conv2dDescriptor.of(4, 7, 7, 2048, 512, 1, 1, 0),
              MIXED)) {
        assertSame(kernels.strassen(), F32Conv2d.kernelsFor(kernels, d, true), d.toString());
        assertSame(
            kernels.directConvolutions(), F32Conv2d.kernelsFor(kernels, d, false), d.toString());
      }
      for (Conv2dDescriptor d :
          List.of(
              Conv2dDescriptor.of(1, 7, 7, 2048, 512, 1, 1, 0), // few results
              Conv2dDescriptor.of(1, 56, 56, 64, 256, 1, 1, 0), // few channels
              Conv2dDescriptor.of(1, 28, 28, 144, 256, 1, 1, 0), // halves that no vectors fill
              Conv2dDescriptor.of(1, 28, 28, 256, 144, 1, 1, 0),
              Conv2dDescriptor.of(1, 28, 28, 256, 256, 1, 2, 0),
              Conv2dDescriptor.of(1, 28, 28, 256, 256, 1, 1, 1),
              Conv2dDescriptor.linear(200, 1024, 1024))) {
        assertSame(
            kernels.directConvolutions(), F32Conv2d.kernelsFor(kernels, d, true), d.toString());
      }
    }
  }

  @Test
  void strassensMethodIsUsedUnlessAPropertySaysOtherwise() {
    assertEquals(
        !backendsReason().contains("AMX"), methodOf(backend, MIXED).startsWith("strassen"));
    System.setProperty(OneDnnBackend.STRASSEN_PROPERTY, "false");
    try (Backend exact = new OneDnnSubject().open()) {
      assertTrue(methodOf(exact, MIXED).startsWith("direct"));
    } finally {
      System.clearProperty(OneDnnBackend.STRASSEN_PROPERTY);
    }
  }

  private static String methodOf(Backend backend, Conv2dDescriptor d) {
    try (Conv2d operation = backend.conv2d(d, DataType.F32, PHI, PHI)) {
      return ((F32Conv2d) operation).method();
    }
  }

  private void requireSameResults(
      Stream stream,
      Conv2dDescriptor d,
      Rectifier srcActivation,
      List<F32Convolutions> everySet,
      int offset,
      Write write) {
    Rectifier exact = new Rectifier(0.5f, 1);
    List<float[]> expected =
        results(
            stream,
            new OneDnnConv2d(backend.library(), d, DataType.F32, exact, srcActivation),
            offset,
            write);
    for (F32Convolutions convolutions : everySet) {
      requireEqual(
          expected,
          results(stream, new F32Conv2d(convolutions, d, exact, srcActivation, 1), offset, write),
          convolutions + " " + d + " " + write);
    }
  }

  /**
   * oneDNN is the independent implementation; integers make both exact. Every instruction set that
   * this machine has, odd and even extents, all paddings, every width of register tiles, several
   * units, gradients on cache lines or not.
   */
  @Test
  void stridedWinogradAgreesWithOneDnn() throws IOException {
    List<F32Convolutions> everySet =
        openEveryInstructionSet().stream()
            .filter(kernels -> !kernels.usesMatrixUnits()) // else its kernels are the next one's
            .map(CpuKernels::stridedWinograd)
            .toList();
    SplittableRandom random = new SplittableRandom(5);
    Rectifier exact = new Rectifier(0.5f, 1);
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < 90; i++) {
        boolean large = i % 10 == 0; // several units
        Conv2dDescriptor d =
            new Conv2dDescriptor(
                large ? 5 : random.nextInt(4),
                random.nextInt(3, 16) + (large ? 40 : 0),
                random.nextInt(3, 16) + (large ? 40 : 0),
                16 * random.nextInt(1, 7),
                16 * random.nextInt(1, 7),
                3,
                3,
                2,
                2,
                random.nextInt(3),
                random.nextInt(3),
                random.nextInt(3),
                random.nextInt(3),
                1,
                1,
                1);
        assertTrue(F32Conv2d.winogradApplies(d), d.toString());
        Write write = random.nextBoolean() ? Write.OVERWRITE : Write.ACCUMULATE;
        Rectifier srcActivation = random.nextBoolean() ? exact : Rectifier.IDENTITY;
        requireSameResults(stream, d, srcActivation, everySet, i % 2, write);
      }
    }
  }

  /** Every instruction set but matrix units, whose kernels are the next one's. */
  private List<F32Convolutions> strassenOfEverySet() throws IOException {
    return openEveryInstructionSet().stream()
        .filter(kernels -> !kernels.usesMatrixUnits())
        .map(CpuKernels::strassen)
        .toList();
  }

  /**
   * oneDNN is the independent implementation; integers make both exact. Every instruction set that
   * this machine has, images of odd and even numbers of pixels, every width of register tiles,
   * several units, panels and blocks of channels, gradients on cache lines or not.
   */
  @Test
  void strassenAgreesWithOneDnn() throws IOException {
    List<F32Convolutions> everySet = strassenOfEverySet();
    SplittableRandom random = new SplittableRandom(6);
    Rectifier exact = new Rectifier(0.5f, 1);
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < 60; i++) {
        boolean many = i % 10 == 0; // pixels: several units
        boolean deep = i % 5 == 2; // channels: several blocks and panels
        Conv2dDescriptor d =
            Conv2dDescriptor.of(
                many ? 3 : random.nextInt(4),
                random.nextInt(1, 10) + (many ? 24 : 0),
                random.nextInt(1, 10) + (many ? 24 : 0),
                32 * (deep ? random.nextInt(8, 21) : random.nextInt(1, 7)),
                32 * (deep ? random.nextInt(8, 21) : random.nextInt(1, 7)),
                1,
                1,
                0);
        assertTrue(F32Conv2d.strassenApplies(d), d.toString());
        Write write = random.nextBoolean() ? Write.OVERWRITE : Write.ACCUMULATE;
        Rectifier srcActivation = random.nextBoolean() ? exact : Rectifier.IDENTITY;
        requireSameResults(stream, d, srcActivation, everySet, i % 2, write);
      }
    }
  }

  /**
   * The bound of {@link Conv2d}'s page, for data of one size in each pair of pixels and of any size
   * from one to the next: errors stay within the pair. Roundings of random signs come to far less.
   */
  @Test
  void strassenIsWithinTheRoundingOfItsSums() throws IOException {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 7, 7, 192, 160, 1, 1, 0);
    SplittableRandom random = new SplittableRandom(12);
    float[] src = pairsOfAnySize(random, d.n(), d.h() * d.w(), d.ic());
    float[] diffDst = pairsOfAnySize(random, d.n(), d.h() * d.w(), d.oc());
    List<F32Convolutions> everySet = strassenOfEverySet();
    try (Backend reference = Backends.open("reference");
        Stream exactly = reference.newStream();
        Stream stream = backend.newStream();
        Layer expected =
            new Layer(
                reference,
                reference.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY))) {
      expected.fillWithReals();
      expected.src.set(src);
      expected.diffDst.set(diffDst);
      expected.bias.set(new float[d.oc()]);
      expected.run(exactly, Write.OVERWRITE);
      for (F32Convolutions kernels : everySet) {
        try (Layer actual =
            new Layer(
                backend, new F32Conv2d(kernels, d, Rectifier.IDENTITY, Rectifier.IDENTITY, 1))) {
          actual.fillWithReals();
          actual.src.set(src);
          actual.diffDst.set(diffDst);
          actual.bias.set(new float[d.oc()]);
          actual.run(stream, Write.OVERWRITE);
          float[] weights = actual.weights.toFloatArray();
          float[] transposed = new float[weights.length];
          for (int i = 0; i < weights.length; i++) {
            transposed[i % d.ic() * d.oc() + i / d.ic()] = weights[i];
          }
          requireWithinPairs(d, src, weights, expected.results().get(0), actual.results().get(0));
          requireWithinPairs(
              d, diffDst, transposed, expected.results().get(1), actual.results().get(1));
          requireGradientsWithinPairs(
              d, src, diffDst, expected.results().get(2), actual.results().get(2));
        }
      }
    }
  }

  /** Pixels of magnitudes that differ by up to 2^40 from one pair to the next. */
  private static float[] pairsOfAnySize(
      SplittableRandom random, int images, int pixels, int channels) {
    float[] values = new float[images * pixels * channels];
    int exponent = 0;
    for (int i = 0; i < values.length; i++) {
      if (i % channels == 0 && i / channels % pixels % 2 == 0) {
        exponent = random.nextInt(-20, 21);
      }
      float magnitude = Math.scalb(0.7f + random.nextFloat(), exponent);
      values[i] = random.nextBoolean() ? magnitude : -magnitude;
    }
    return values;
  }

  /**
   * Requires |error| {@code <=} 18 (C / 2 + 6) u sum_c X_c W_c of results [image, pixel, K].
   *
   * @param x [image, pixel, C]
   * @param weights [K, C]
   */
  private static void requireWithinPairs(
      Conv2dDescriptor d, float[] x, float[] weights, float[] expected, float[] actual) {
    int pixels = d.h() * d.w();
    int channels = x.length / d.n() / pixels;
    int results = weights.length / channels;
    int half = channels / 2;
    double[] bounds = new double[expected.length];
    for (int i = 0; i < expected.length; i++) {
      int k = i % results % (results / 2);
      int pixel = i / results % pixels;
      int first = (i / results - pixel % 2) * channels;
      double sum = 0;
      for (int c = 0; c < half; c++) {
        double source = 0;
        double weight = 0;
        for (int h = c; h < channels; h += half) {
          source = Math.max(source, Math.abs(x[first + h]));
          if (pixel / 2 * 2 + 1 < pixels) {
            source = Math.max(source, Math.abs(x[first + channels + h]));
          }
          weight = Math.max(weight, Math.abs(weights[k * channels + h]));
          weight = Math.max(weight, Math.abs(weights[(k + results / 2) * channels + h]));
        }
        sum += source * weight;
      }
      bounds[i] = 18 * (half + 6) * 0x1p-24 * sum;
    }
    requireWithin(bounds, expected, actual);
  }

  /** Likewise gradients, {@code <=} 18 (P / 2 + 6) u sum_p E_p X_p over pairs of pixels. */
  private static void requireGradientsWithinPairs(
      Conv2dDescriptor d, float[] x, float[] e, float[] expected, float[] actual) {
    int pairs = d.n() * d.h() * d.w() / 2;
    double[] bounds = new double[expected.length];
    for (int i = 0; i < expected.length; i++) {
      double sum = 0;
      for (int pair = 0; pair < pairs; pair++) {
        sum +=
            largest(e, 2 * pair * d.oc() + i / d.ic() % (d.oc() / 2), d.oc())
                * largest(x, 2 * pair * d.ic() + i % d.ic() % (d.ic() / 2), d.ic());
      }
      bounds[i] = 18 * (pairs + 6) * 0x1p-24 * sum;
    }
    requireWithin(bounds, expected, actual);
  }

  /** Of a pair of pixels and both halves of channels. */
  private static double largest(float[] values, int first, int channels) {
    double largest = 0;
    for (int i = 0; i < 4; i++) {
      largest = Math.max(largest, Math.abs(values[first + i * channels / 2]));
    }
    return largest;
  }

  private static void requireWithin(double[] bounds, float[] expected, float[] actual) {
    double squares = 0;
    for (int i = 0; i < expected.length; i++) {
      double error = Math.abs((double) actual[i] - expected[i]);
      assertTrue(error <= bounds[i], error + " at " + i + ", bound " + bounds[i]);
      squares += error * error / (bounds[i] * bounds[i]) / expected.length;
    }
    assertTrue(Math.sqrt(squares) <= 0.01, Math.sqrt(squares) + " of the bound");
  }

  /**
   * The factors of A^T, G and B^T make the sum of |terms| of a result at most 25 for 9, for data of
   * one size. Sums of some channels are exact but for roundings of random signs: an error is within
   * a rounding of that sum, and their mean square far below.
   */
  @Test
  void stridedWinogradIsWithinTheRoundingOfItsTransforms() throws IOException {
    Conv2dDescriptor d = Conv2dDescriptor.same(2, 27, 28, 64, 48, 3, 2);
    try (Backend reference = Backends.open("reference");
        Stream exactly = reference.newStream();
        CpuKernels kernels = CpuKernels.load(0);
        Stream stream = backend.newStream();
        Layer expected =
            new Layer(
                reference,
                reference.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY));
        Layer actual =
            new Layer(
                backend,
                new F32Conv2d(
                    kernels.stridedWinograd(), d, Rectifier.IDENTITY, Rectifier.IDENTITY, 1))) {
      expected.fillWithReals();
      actual.fillWithReals();
      expected.run(exactly, Write.OVERWRITE);
      actual.run(stream, Write.OVERWRITE);
      double[] terms = {9 * 64, 9 * 48, 2 * 14 * 14};
      for (int k = 0; k < terms.length; k++) {
        float[] exact = expected.results().get(k);
        float[] ours = actual.results().get(k);
        double squares = 0;
        for (int i = 0; i < exact.length; i++) {
          double error = Math.abs((double) ours[i] - exact[i]);
          assertTrue(error <= 25.0 / 9 * 0x1p-24 * 1.7 * 1.7 * terms[k], k + " at " + i);
          squares += error * error / exact.length;
        }
        double deviation = Math.sqrt(squares);
        assertTrue(deviation <= 0x1p-25 * 1.2 * 1.2 * terms[k], k + ": " + deviation);
      }
    }
  }

  /**
   * BF16 Winograd rounds transformed values, so its error is bounded by eps of BF16 times the sum
   * of |A^T| |G g G^T| |B^T d B| over the places: for data of one size at most 4 (tiles of 2x2) or
   * 28 (4x4: 23.8 forward, 27.3 for gradients) times the sum of |src| |weights|, from the matrices.
   * The root of the sum of squares is 2.2 times that of the direct method at most, for either
   * operand.
   */
  @ParameterizedTest
  @CsvSource({"2, 4", "4, 28"})
  void roundedWinogradIsWithinTheRoundingOfItsTransforms(int tile, int growth) throws IOException {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 13, 14, 32, 48, 3, 1, 1);
    try (CpuKernels kernels = CpuKernels.load(0);
        Stream stream = backend.newStream()) {
      CpuKernels.Convolutions bf16 = kernels.roundedConvolutions();
      Assumptions.assumeTrue(bf16 != null, "this machine has no products of BF16");
      try (Layer direct =
              new Layer(
                  backend,
                  new OneDnnConv2d(backend.library(), d, DataType.BF16, Rectifier.IDENTITY, PHI));
          Layer winograd =
              new Layer(
                  backend,
                  new WinogradConv2d(bf16, d, DataType.BF16, Rectifier.IDENTITY, PHI, tile, 1))) {
        for (Layer layer : List.of(direct, winograd)) {
          layer.fillWithReals();
          layer.run(stream, Write.OVERWRITE);
        }
        double[] terms = {9 * 32, 9 * 48, 2 * 13 * 14};
        for (int k = 0; k < terms.length; k++) {
          float[] expected = direct.results().get(k);
          float[] actual = winograd.results().get(k);
          double squares = 0;
          for (int i = 0; i < expected.length; i++) {
            double bound = growth * 0x1p-8 * 1.7 * 1.7 * terms[k];
            assertTrue(Math.abs(actual[i] - expected[i]) <= bound, "result " + k + " at " + i);
            squares += Math.pow(actual[i] - expected[i], 2) / expected.length;
          }
          // Roundings are independent: their sum grows with the root of the number of terms.
          double deviation = Math.sqrt(squares);
          assertTrue(
              deviation <= 4 * 0x1p-8 * 1.2 * 1.2 * Math.sqrt(terms[k]), k + ": " + deviation);
        }
      }
    }
  }

  @Test
  void transformsAreRoundedUnlessAPropertySaysOtherwise() throws IOException {
    try (CpuKernels kernels = CpuKernels.load(0)) {
      assertEquals(
          kernels.roundedConvolutions() != null
              && !backend.library().instructionSet().contains("amx"),
          backend.roundsTransforms(DataType.BF16));
      assertFalse(backend.roundsTransforms(DataType.F32));
    }
    System.setProperty(OneDnnBackend.BF16_WINOGRAD_PROPERTY, "false");
    try (Backend exact = new OneDnnSubject().open()) {
      assertFalse(((OneDnnBackend) exact).roundsTransforms(DataType.BF16));
    } finally {
      System.clearProperty(OneDnnBackend.BF16_WINOGRAD_PROPERTY);
    }
  }

  @Test
  void matrixUnitsAreUsedWhereAPropertyAsksForThem() throws IOException {
    try (CpuKernels all = CpuKernels.load(0);
        CpuKernels used = CpuKernels.best()) {
      assertFalse(used.usesMatrixUnits());
      System.setProperty(CpuKernels.MATRIX_UNITS_PROPERTY, "true");
      try (CpuKernels asked = CpuKernels.best()) {
        assertEquals(all.instructionSet(), asked.instructionSet());
        String devices = new OneDnnProvider().availability().toString();
        assertTrue(devices.contains("own kernels for " + all.instructionSet()), devices);
      } finally {
        System.clearProperty(CpuKernels.MATRIX_UNITS_PROPERTY);
      }
    }
  }

  /** Both configure the thread's tiles: oneDNN's BF16 convolutions on matrix units, and ours. */
  @Test
  void oneDnnFindsItsTilesAsTheyWere() throws IOException {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 9, 7, 64, 64, 1, 1, 0);
    try (CpuKernels kernels = CpuKernels.load(0)) {
      Assumptions.assumeTrue(
          kernels.usesMatrixUnits() && backend.supports(DataType.BF16), "no matrix units");
      try (Stream stream = backend.newStream();
          Layer theirs =
              new Layer(
                  backend, new OneDnnConv2d(backend.library(), d, DataType.BF16, PHI, PHI), 0);
          Layer ours =
              new Layer(backend, new F32Conv2d(kernels.directConvolutions(), d, PHI, PHI, 1), 0)) {
        theirs.run(stream, Write.OVERWRITE);
        ours.run(stream, Write.OVERWRITE);
        List<float[]> theirResults = theirs.results();
        List<float[]> ourResults = ours.results();
        theirs.run(stream, Write.OVERWRITE);
        ours.run(stream, Write.OVERWRITE);
        for (int k = 0; k < 4; k++) {
          assertArrayEquals(theirResults.get(k), theirs.results().get(k), "oneDNN's result " + k);
          assertArrayEquals(ourResults.get(k), ours.results().get(k), "our result " + k);
        }
      }
    }
  }

  /**
   * The reference is the independent implementation. Every instruction set that this machine has,
   * and oneDNN's products: sizes at the edges of blocks, of vectors and of what one thread does by
   * itself, some of them too large for the contract tests.
   */
  @Test
  void orthogonalMatricesAgreeWithTheReference() throws IOException {
    int[][] sizes = {
      {1, 1},
      {5, 1},
      {1, 5},
      {33, 17},
      {63, 64},
      {65, 64},
      {64, 65},
      {95, 81},
      {127, 128},
      {130, 129},
      {200, 200},
      {5, 321},
      {321, 70}
    };
    for (int[] size : sizes) {
      float[] expected = referenceOrthogonal(size[0], size[1], 1.25f, -9, 1L << 40);
      float[] products =
          orthogonal(
              new OneDnnOrthogonal(backend.library(), size[0], size[1], 1.25f), -9, 1L << 40);
      assertArrayEquals(
          expected, products, 2.5e-6f, "oneDNN's products " + size[0] + "x" + size[1]);
      int instructionSets = 0;
      while (true) {
        try (CpuKernels kernels = CpuKernels.load(instructionSets)) {
          float[] actual =
              orthogonal(
                  new NativeOrthogonal(kernels.orthogonals(), size[0], size[1], 1.25f),
                  -9,
                  1L << 40);
          String what = kernels.instructionSet() + " " + size[0] + "x" + size[1];
          assertArrayEquals(expected, actual, 2.5e-6f, what);
          instructionSets++;
        } catch (UnsupportedException noMore) {
          break;
        }
      }
      assertTrue(instructionSets > 0, "no kernels: " + backendsReason());
    }
  }

  /**
   * A single column is a Gaussian vector brought to unit length by one reflection: it shows each of
   * the random numbers to its last digits, but for the first, a difference of numbers near 1.
   */
  @Test
  void singleColumnsShowTheRandomNumbers() throws IOException {
    int m = 100_003;
    float[] expected = referenceOrthogonal(m, 1, 1000, 77, -1);
    int instructionSets = 0;
    while (true) {
      try (CpuKernels kernels = CpuKernels.load(instructionSets)) {
        float[] actual =
            orthogonal(new NativeOrthogonal(kernels.orthogonals(), m, 1, 1000), 77, -1);
        assertEquals(expected[0], actual[0], 1e-3, kernels.instructionSet());
        for (int i = 1; i < m; i++) {
          double bound = 8 * 0x1p-24 * Math.abs(expected[i]) + 1e-9;
          assertTrue(
              Math.abs((double) actual[i] - expected[i]) <= bound,
              kernels.instructionSet() + ": " + actual[i] + " for " + expected[i] + " at " + i);
        }
        instructionSets++;
      } catch (UnsupportedException noMore) {
        break;
      }
    }
    assertTrue(instructionSets > 0, "no kernels: " + backendsReason());
  }

  private static float[] referenceOrthogonal(
      int rows, int cols, float gain, long seed, long sequence) {
    try (Backend reference = Backends.open("reference");
        Stream stream = reference.newStream();
        Orthogonal operation = reference.orthogonal(rows, cols, gain);
        Tensor dst = reference.allocate(Shape.of(rows, cols), DataType.F32, Layout.ROW_MAJOR)) {
      operation.fill(stream, dst, seed, sequence);
      return dst.toFloatArray();
    }
  }

  /** Fills twice, with all threads and with one, over other values: all bits must repeat. */
  private float[] orthogonal(Orthogonal operation, long seed, long sequence) {
    Shape shape = Shape.of(operation.rows(), operation.cols());
    try (operation;
        Stream stream = backend.newStream();
        ForkJoinPool alone = new ForkJoinPool(1);
        Tensor first = backend.allocate(shape, DataType.F32, Layout.ROW_MAJOR);
        Tensor second = backend.allocate(shape, DataType.F32, Layout.ROW_MAJOR)) {
      backend.fill(stream, first, Float.NaN);
      backend.fill(stream, second, 3);
      operation.fill(stream, first, seed, sequence);
      alone.submit(() -> operation.fill(stream, second, seed, sequence)).join();
      float[] values = first.toFloatArray();
      assertArrayEquals(values, second.toFloatArray(), operation.rows() + "x" + operation.cols());
      return values;
    }
  }

  /**
   * The loops in Java, which do without the kernels, against those of every instruction set that
   * this machine has. Data and factors are such that at most one rounding is left in each result,
   * so that a fused product makes no difference; activations hold infinities, NaN and both zeros.
   */
  @Test
  void elementPassesAgreeWithTheLoops() throws IOException {
    int instructionSets = 0;
    try (OneDnnBackend loops = new OneDnnBackend(OneDnnProvider.load(), null, 1)) {
      while (true) {
        try (OneDnnBackend kernels =
            new OneDnnBackend(OneDnnProvider.load(), CpuKernels.load(instructionSets), 1)) {
          for (int n : new int[] {0, 1, 5, 16, 31, 33, 64, 100, 129, 5000}) {
            requireEqual(n, parameterPasses(loops, n), parameterPasses(kernels, n));
            for (DataType type : List.of(DataType.F32, DataType.BF16)) {
              if (loops.supports(type)) {
                requireEqual(
                    n, activationPasses(loops, type, n), activationPasses(kernels, type, n));
              }
            }
          }
          for (MaxPool2dDescriptor d : POOLS) {
            for (DataType type : List.of(DataType.F32, DataType.BF16)) {
              if (loops.supports(type)) {
                requireEqual(d.c(), poolPasses(loops, type, d), poolPasses(kernels, type, d));
              }
            }
          }
          instructionSets++;
        } catch (UnsupportedException noMore) {
          break;
        }
      }
    }
    assertTrue(instructionSets > 0, "no kernels: " + backendsReason());
  }

  private static void requireEqual(int n, List<float[]> expected, List<float[]> actual) {
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), actual.get(i), n + " elements, result " + i);
    }
  }

  /** Tensors of one length, filled with what a source of values gives. */
  private static List<Tensor> tensors(
      OneDnnBackend backend, int count, DataType type, int n, DoubleSupplier values) {
    List<Tensor> tensors = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      Tensor tensor = backend.allocate(Shape.of(n), type, Layout.ROW_MAJOR);
      for (int k = 0; k < n; k++) {
        tensor.put(k, (float) values.getAsDouble());
      }
      tensors.add(tensor);
    }
    return tensors;
  }

  /** Sum, norm and both optimisers. */
  private static List<float[]> parameterPasses(OneDnnBackend backend, int n) {
    SplittableRandom random = new SplittableRandom(n);
    List<Tensor> reals = tensors(backend, 9, DataType.F32, n, random::nextGaussian);
    List<Tensor> whole = tensors(backend, 8, DataType.F32, n, () -> random.nextInt(1, 9));
    double[] scalars = {1, 1, 0.5, 1};
    int[] next = new int[1];
    Tensor given = tensors(backend, 1, DataType.F32, 4, () -> scalars[next[0]++]).getFirst();
    Tensor rateAndStep = given.slice(2, Shape.of(2), Layout.ROW_MAJOR);
    Tensor rate = given.slice(2, Shape.of(1), Layout.ROW_MAJOR);
    Tensor one = given.slice(3, Shape.of(1), Layout.ROW_MAJOR);
    List<float[]> results = new ArrayList<>();
    try (Stream stream = backend.newStream();
        var sum = backend.gradientSum(n);
        var norm = backend.gradientNorm(n);
        var plain = backend.sgd(n, 0.5f, false, 0.25f);
        var nesterov = backend.sgd(n, 0.5f, true, 0.25f);
        var adam = backend.adam(n, 0.5f, 0.5f, 0.5f, 0.25f)) {
      sum.run(stream, reals.getFirst(), reals.subList(1, 9));
      norm.run(stream, reals.getLast(), 0.75f, given.slice(0, Shape.of(2), Layout.ROW_MAJOR));
      plain.step(stream, whole.get(0), whole.get(1), whole.get(2), rate, one);
      nesterov.step(stream, whole.get(0), whole.get(3), whole.get(2), rate, one);
      adam.step(stream, whole.get(4), whole.get(5), whole.get(6), whole.get(7), rateAndStep, one);
      for (Tensor tensor : List.of(reals.getFirst(), given)) {
        results.add(tensor.toFloatArray());
      }
      whole.forEach(tensor -> results.add(tensor.toFloatArray()));
    }
    given.close();
    reals.forEach(Tensor::close);
    whole.forEach(Tensor::close);
    return results;
  }

  /** Weighted sum and rectifier, both directions. */
  private static List<float[]> activationPasses(OneDnnBackend backend, DataType type, int n) {
    SplittableRandom random = new SplittableRandom(n);
    double[] special = {0, -0.0, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY};
    List<Tensor> values =
        tensors(
            backend,
            4,
            type,
            n,
            () -> random.nextInt(10) == 0 ? special[random.nextInt(5)] : random.nextGaussian());
    List<float[]> results = new ArrayList<>();
    for (Rectifier phi : List.of(Rectifier.IDENTITY, new Rectifier(0.5f, 2), new Rectifier(0, 1))) {
      for (Write write : Write.values()) {
        try (Stream stream = backend.newStream();
            var sum = backend.weightedSum(n, type, 1, 0.5f, phi);
            var rectify = backend.rectify(n, type, phi)) {
          sum.forward(stream, values.get(0), values.get(1), values.get(2));
          results.add(values.get(2).toFloatArray());
          sum.backwardB(stream, values.get(1), phi, values.get(0), values.get(3), write);
          results.add(values.get(3).toFloatArray());
          rectify.forward(stream, values.get(0), values.get(2));
          results.add(values.get(2).toFloatArray());
          rectify.backward(stream, values.get(2), values.get(1), values.get(3), write);
          results.add(values.get(3).toFloatArray());
        }
      }
    }
    values.forEach(Tensor::close);
    return results;
  }

  /** Windows that overlap, touch, leave gaps and lie in the padding; places that leave no bit. */
  private static final List<MaxPool2dDescriptor> POOLS =
      List.of(
          MaxPool2dDescriptor.same(2, 8, 8, 40, 3, 2),
          new MaxPool2dDescriptor(1, 6, 7, 5, 2, 2, 0, 0),
          new MaxPool2dDescriptor(1, 7, 5, 16, 3, 1, 1, 2),
          new MaxPool2dDescriptor(1, 9, 9, 33, 2, 4, 1, 0),
          new MaxPool2dDescriptor(1, 14, 14, 3, 13, 1, 6, 6));

  /** Max-pooling, both directions. */
  private static List<float[]> poolPasses(
      OneDnnBackend backend, DataType type, MaxPool2dDescriptor d) {
    SplittableRandom random = new SplittableRandom(d.c());
    double[] special = {0, -0.0, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY};
    DoubleSupplier value =
        () -> random.nextInt(10) == 0 ? special[random.nextInt(5)] : random.nextGaussian();
    List<float[]> results = new ArrayList<>();
    try (Stream stream = backend.newStream();
        Tensor src = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor diffSrc = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor diffDst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor argmax = backend.allocate(d.dst(), DataType.U8, Layout.NHWC)) {
      for (Tensor tensor : List.of(src, diffSrc, diffDst)) {
        for (long i = 0; i < tensor.shape().elements(); i++) {
          tensor.put(i, (float) value.getAsDouble());
        }
      }
      for (Rectifier psi :
          List.of(Rectifier.IDENTITY, new Rectifier(0.5f, 2), new Rectifier(0, 1))) {
        for (Write write : Write.values()) {
          try (MaxPool2d pool = backend.maxPool2d(d, type, psi)) {
            pool.forward(stream, src, dst, argmax);
            pool.backward(stream, diffDst, argmax, src, diffSrc, write);
          }
          for (Tensor tensor : List.of(dst, argmax, diffSrc)) {
            results.add(tensor.toFloatArray());
          }
        }
      }
    }
    return results;
  }

  @Test
  void withoutKernelsOneDnnDoesAll() {
    try (OneDnnBackend bare = new OneDnnBackend(OneDnnProvider.load(), null, 1);
        Orthogonal orthogonal = bare.orthogonal(8, 8, 1);
        Conv2d operation = bare.conv2d(WINOGRAD, DataType.F32, PHI, PHI)) {
      assertTrue(operation instanceof OneDnnConv2d);
      assertTrue(orthogonal instanceof OneDnnOrthogonal);
    }
    try (Conv2d operation = backend.conv2d(WINOGRAD, DataType.F32, PHI, PHI);
        Orthogonal orthogonal = backend.orthogonal(8, 8, 1)) {
      assertTrue(operation instanceof WinogradConv2d);
      assertTrue(orthogonal instanceof NativeOrthogonal);
    }
  }

  @Test
  void kernelsCannotBeCalledAfterClose() throws IOException {
    CpuKernels kernels = CpuKernels.load(0);
    kernels.close();
    CpuKernels.Convolutions f32 = kernels.convolutions(DataType.F32);
    assertThrows(IllegalStateException.class, () -> f32.pack(0, 16, 16, 4, 0, 0));
    CpuKernels.Orthogonals orthogonals = kernels.orthogonals();
    assertThrows(IllegalStateException.class, () -> orthogonals.draw(1, 1, 0, 0, 0, 0));
    assertThrows(IllegalStateException.class, () -> orthogonals.panelBytes(1, 1));
    assertThrows(UnsupportedException.class, () -> CpuKernels.load(99).close());
  }

  /** A failed training step must show, not be clamped away. */
  @Test
  void rectifiersKeepNaN() {
    try (Stream stream = backend.newStream()) {
      for (float slope : new float[] {0, 0.4f, 1}) {
        for (Conv2dDescriptor d :
            List.of(
                DIRECT,
                WINOGRAD,
                ONE_BY_ONE,
                MIXED,
                Conv2dDescriptor.linear(2, 8, 8).withBatch(3))) {
          try (Layer layer = layer(d, new Rectifier(slope, 1))) {
            layer.src.put(0, Float.NaN);
            layer.run(stream, Write.OVERWRITE);
            assertTrue(Float.isNaN(layer.dst.get(0)), d + " slope " + slope);
          }
        }
      }
    }
  }

  @Test
  void packedWeightsFitOperationsOfEqualFormatOnly() {
    try (Stream stream = backend.newStream();
        Layer large = layer(DIRECT, PHI);
        Layer other = layer(Conv2dDescriptor.of(2, 10, 9, 16, 24, 5, 1, 2), PHI)) {
      large.run(stream, Write.OVERWRITE);
      other.run(stream, Write.OVERWRITE);
      assertThrows(
          OperandException.class,
          () -> large.operation.forward(stream, large.src, other.packed, large.bias, large.dst));
      large.packed.close();
      assertThrows(
          IllegalStateException.class,
          () -> large.operation.forward(stream, large.src, large.packed, large.bias, large.dst));
    }
  }

  @Test
  void refusesMoreMemoryThanTheMachineHas() {
    OutOfMemoryException refused =
        assertThrows(
            OutOfMemoryException.class,
            () ->
                backend
                    .allocate(Shape.of(1 << 30, 1 << 20), DataType.F32, Layout.ROW_MAJOR)
                    .close());
    assertTrue(refused.getMessage().contains("4503599627370496 bytes"), refused.getMessage());
    backend.allocate(Shape.of(10), DataType.F32, Layout.ROW_MAJOR).close(); // it goes on
  }
}
