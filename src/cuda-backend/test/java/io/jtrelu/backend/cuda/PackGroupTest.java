package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.OperandException;
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
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Weights packed together: by few launches, and as if each had been packed alone. */
class PackGroupTest {
  private static final int COUNT = 67; // more than one launch takes

  private final List<AutoCloseable> owned = new ArrayList<>();
  private Backend backend;
  private Stream stream;

  @BeforeEach
  void open() {
    backend = EmulatedSubject.openPlain();
    EmulatorControl.clear();
    stream = own(backend.newStream());
  }

  @AfterEach
  void close() throws Exception {
    for (AutoCloseable each : owned.reversed()) {
      each.close();
    }
    if (backend != null) {
      backend.close();
      assertEquals(0, EmulatorControl.errors(), EmulatorControl::report);
    }
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.add(resource);
    return resource;
  }

  private Tensor random(Shape shape, DataType type, Layout layout, Random random) {
    float[] values = new float[(int) shape.elements()];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextInt(-8, 9);
    }
    Tensor result = own(backend.allocate(shape, type, layout));
    try (Tensor onHost = Tensor.allocate(shape, DataType.F32, layout)) {
      backend.copy(stream, onHost.set(values), result);
      stream.synchronize();
    }
    return result;
  }

  @Test
  void asEachAlone() {
    Random random = new Random(1);
    List<Conv2d.Packing> together = new ArrayList<>();
    List<PackedWeights> alone = new ArrayList<>();
    for (int i = 0; i < COUNT; i++) {
      Conv2dDescriptor d =
          Conv2dDescriptor.same(1, 2, 3, 1 + random.nextInt(40), 1 + random.nextInt(40), 3, 1);
      Conv2d conv = own(backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY));
      Tensor weights = random(d.weights(), DataType.F32, Layout.KRSC, random);
      together.add(new Conv2d.Packing(conv, weights, own(conv.newPackedWeights())));
      alone.add(own(conv.newPackedWeights()));
      conv.pack(stream, weights, alone.getLast());
    }
    stream.synchronize();
    EmulatorControl.clearCounters();
    backend.pack(stream, together);
    stream.synchronize();
    assertEquals(2, EmulatorControl.counters().size(), "launches");
    for (int i = 0; i < COUNT; i++) {
      Conv2d.Packing packing = together.get(i);
      assertArrayEquals(
          results(packing.operation(), alone.get(i), i),
          results(packing.operation(), packing.packed(), i),
          packing.operation().descriptor()::toString);
    }
  }

  /** What both forms of packed weights are read for. */
  private float[][] results(Conv2d conv, PackedWeights packed, int seed) {
    Conv2dDescriptor d = conv.descriptor();
    Random random = new Random(seed);
    Tensor src = random(d.src(), DataType.BF16, Layout.NHWC, random);
    Tensor bias = random(d.bias(), DataType.F32, Layout.ROW_MAJOR, random);
    Tensor diffDst = random(d.dst(), DataType.BF16, Layout.NHWC, random);
    Tensor dst = own(backend.allocate(d.dst(), DataType.BF16, Layout.NHWC));
    Tensor diffSrc = own(backend.allocate(d.src(), DataType.BF16, Layout.NHWC));
    conv.forward(stream, src, packed, bias, dst);
    conv.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE);
    try (Tensor values = Tensor.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor gradients = Tensor.allocate(d.src(), DataType.F32, Layout.NHWC)) {
      backend.copy(stream, dst, values);
      backend.copy(stream, diffSrc, gradients);
      stream.synchronize();
      return new float[][] {values.toFloatArray(), gradients.toFloatArray()};
    }
  }

  @Test
  void whatDoesNotFitIsRefusedAndTheOthersArePacked() {
    Random random = new Random(2);
    Conv2dDescriptor d = Conv2dDescriptor.same(1, 2, 2, 8, 8, 1, 1);
    Conv2d conv = own(backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY));
    Tensor weights = random(d.weights(), DataType.F32, Layout.KRSC, random);
    PackedWeights first = own(conv.newPackedWeights());
    PackedWeights alone = own(conv.newPackedWeights());
    conv.pack(stream, weights, alone);
    List<Conv2d.Packing> packings =
        List.of(
            new Conv2d.Packing(conv, weights, first),
            new Conv2d.Packing(
                conv, random(d.bias(), DataType.F32, Layout.ROW_MAJOR, random), first));
    assertThrows(OperandException.class, () -> backend.pack(stream, packings));
    assertArrayEquals(results(conv, alone, 1), results(conv, first, 1));
  }
}
