package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Kernels that start before the one ahead of them has ended: by their results, and by the checks of
 * the emulated device, which tells what a kernel touches before it has waited.
 */
class DependentLaunchTest {
  private static final int LENGTH = 1000;
  private static final int PASSES = 6; // of a round, each behind another

  @AfterEach
  void reset() {
    System.clearProperty(DependentLaunch.PROPERTY);
    if (DriverLibrary.isLoaded()) {
      EmulatorControl.clear();
      EmulatorControl.seed(0);
      EmulatorControl.driverVersion(13000);
      EmulatorControl.computeCapability(8, 0);
    }
  }

  /** The bits of launches that wait for all, whatever the order of work, also as a graph. */
  @ParameterizedTest
  @CsvSource({
    "_128x64, false",
    "_128x64, true",
    "_pair_192x256, true",
    "_window_256x64, true",
    "_window_pair_256x64, false"
  })
  void hasTheBitsOfOthers(String tile, boolean recorded) {
    System.setProperty(DependentLaunch.PROPERTY, "false");
    float[] expected = chain(tile, recorded, 1, 0);
    System.setProperty(DependentLaunch.PROPERTY, "true");
    for (long order = 0; order < 4; order++) {
      int early = 3 * PASSES - (recorded ? 1 : 3); // but the first of a round, or of a recording
      assertArrayEquals(expected, chain(tile, recorded, order, early), "order " + order);
    }
  }

  /** Convolutions forward and back, three rounds each of which writes what the last one read. */
  private static float[] chain(String tile, boolean recorded, long order, int early) {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 9, 12, 64, 64, 3, 1, 1);
    Conv2dDescriptor half = Conv2dDescriptor.of(1, 9, 12, 64, 64, 3, 2, 1);
    Rectifier phi = Rectifier.tailored(0.4);
    try (Backend backend = HopperSubject.taking(tile, "_128x64");
        Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, DataType.BF16, phi, phi);
        Conv2d strided = backend.conv2d(half, DataType.BF16, phi, phi);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = random(backend, stream, d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = random(backend, stream, d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor a = random(backend, stream, d.src(), DataType.BF16, Layout.NHWC);
        Tensor b = backend.allocate(d.src(), DataType.BF16, Layout.NHWC);
        Tensor c = backend.allocate(half.dst(), DataType.BF16, Layout.NHWC);
        Tensor host = Tensor.allocate(d.src(), DataType.BF16, Layout.NHWC)) {
      conv.pack(stream, weights, packed);
      stream.synchronize();
      EmulatorControl.delay(order);
      EmulatorControl.seed(order);
      Runnable round =
          () -> {
            conv.forward(stream, a, packed, bias, b);
            conv.forward(stream, b, packed, bias, a);
            strided.forward(stream, a, packed, bias, c);
            strided.backwardData(stream, c, packed, a, b, Write.OVERWRITE);
            conv.backwardData(stream, b, packed, a, a, Write.OVERWRITE); // in place
            conv.backwardData(stream, b, packed, b, a, Write.ACCUMULATE);
          };
      EmulatorControl.clearCounters();
      if (recorded) {
        try (Recording recording =
            backend.record(
                stream,
                () -> {
                  for (int i = 0; i < 3; i++) {
                    round.run();
                  }
                })) {
          recording.replay(stream);
          stream.synchronize();
        }
      } else {
        for (int i = 0; i < 3; i++) {
          round.run();
          stream.synchronize();
        }
      }
      assertEquals(early, EmulatorControl.calls().path("cuLaunchKernelEx").asInt());
      backend.copy(stream, a, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  private static Tensor random(
      Backend backend, Stream stream, Shape shape, DataType type, Layout layout) {
    SplittableRandom random = new SplittableRandom(shape.hashCode());
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextDouble(-0.1, 0.1);
    }
    Tensor tensor = backend.allocate(shape, type, layout);
    try (Tensor host = Tensor.allocate(shape, type, layout).set(values)) {
      backend.copy(stream, host, tensor);
      stream.synchronize();
    }
    return tensor;
  }

  /** A kernel that does not wait, launched as if it did: whatever the order, it is found. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2, 3})
  void findsWhatDoesNotWait(long order) {
    EmulatedSubject.openPlain().close();
    EmulatorControl.computeCapability(9, 0);
    try (CudaBackend backend = (CudaBackend) EmulatedSubject.openPlain();
        CudaStream stream = backend.own(backend.newStream());
        Tensor x = backend.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR);
        Tensor y = backend.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR);
        Tensor z = backend.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR)) {
      backend.fill(stream, x, 1);
      EmulatorControl.delay(order);
      rectify(backend, stream, x, y);
      try {
        rectify(backend, stream, y, z);
        stream.synchronize();
      } catch (CudaException consequence) {
        assertTrue(EmulatorControl.errors() > 0, consequence.getMessage());
      }
      String report = EmulatorControl.report();
      assertTrue(report.contains("grid_dependency in rectify_forward_f32"), report);
      EmulatorControl.clear();
    }
  }

  private static void rectify(CudaBackend backend, CudaStream stream, Tensor src, Tensor dst) {
    stream
        .arguments()
        .pointer(src)
        .pointer(0)
        .pointer(dst)
        .i64(LENGTH)
        .rectifier(Rectifier.IDENTITY)
        .flag(false);
    Kernel kernel = backend.kernel("rectify_forward", DataType.F32);
    stream.launchWaiting(kernel, Elementwise.blocks(LENGTH, DataType.F32));
  }

  /** Drivers that cannot record such launches are not asked for one. */
  @Test
  void oldDriversLaunchAsBefore() {
    EmulatedSubject.openPlain().close();
    EmulatorControl.driverVersion(12020);
    chain("_128x64", true, 1, 0);
  }
}
