package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.Consumer;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * Holds the memory-bound kernels to the bytes that their operation needs, by the emulated device's
 * counters: every operand once, in whole sectors, nothing in local memory.
 */
class CudaTrafficTest {
  private static final int ELEMENTS = 40_000; // several blocks and a partial one; whole sectors
  private static final List<DataType> TYPES = List.of(DataType.F32, DataType.BF16, DataType.F16);

  /** A backend with a stream and tensors that live as long as a test. */
  private static final class Bench implements AutoCloseable {
    final Backend backend = EmulatedSubject.openPlain();
    final Stream stream = backend.newStream();
    private final List<AutoCloseable> owned = new ArrayList<>();

    Tensor tensor(DataType type, int... dims) {
      return own(
          backend.allocate(
              Shape.of(dims), type, dims.length == 4 ? Layout.NHWC : Layout.ROW_MAJOR));
    }

    <T extends AutoCloseable> T own(T resource) {
      owned.add(resource);
      return resource;
    }

    @Override
    public void close() {
      try {
        for (AutoCloseable resource : owned) {
          resource.close();
        }
      } catch (Exception impossible) {
        throw new AssertionError(impossible);
      }
      stream.close();
      backend.close();
    }
  }

  /**
   * Requires one launch to read and write so many bytes, in no more sectors than they fill.
   *
   * @param scalars sectors read for single values on the device besides
   */
  private static void expect(Bench bench, Runnable work, long read, long written, long scalars) {
    work.run();
    bench.stream.synchronize(); // modules are loaded, caches are filled
    EmulatorControl.clearCounters();
    work.run();
    bench.stream.synchronize();
    List<JsonNode> launches = EmulatorControl.counters();
    assertEquals(1, launches.size(), "launches");
    JsonNode counters = launches.getFirst();
    String kernel = counters.get("kernel").asText();
    if (scalars == 0) {
      assertEquals(read, counters.get("globalLoadBytes").asLong(), kernel + ": bytes read");
      assertEquals(
          read / 32, counters.get("globalLoadSectors").asLong(), kernel + ": sectors read");
    } else {
      long sectors = counters.get("globalLoadSectors").asLong();
      assertEquals(read / 32 + scalars, sectors, kernel + ": sectors read");
    }
    assertEquals(written, counters.get("globalStoreBytes").asLong(), kernel + ": bytes written");
    assertEquals(
        written / 32, counters.get("globalStoreSectors").asLong(), kernel + ": sectors written");
    assertEquals(0, counters.get("localLoadBytes").asLong(), kernel + ": local memory");
    assertEquals(
        0,
        counters.get("sharedLoadBankConflicts").asLong()
            + counters.get("sharedStoreBankConflicts").asLong(),
        kernel + ": bank conflicts");
    assertEquals(0, counters.get("atomics").asLong(), kernel + ": atomics");
  }

  private static DynamicTest test(String name, Consumer<Bench> body) {
    return DynamicTest.dynamicTest(
        name,
        () -> {
          try (Bench bench = new Bench()) {
            body.accept(bench);
          }
        });
  }

  @TestFactory
  List<DynamicTest> elementwise() {
    List<DynamicTest> tests = new ArrayList<>();
    Rectifier phi = Rectifier.tailored(0.3);
    for (DataType type : TYPES) {
      long pass = (long) ELEMENTS * type.bytes();
      tests.add(
          test(
              "rectify " + type,
              b -> {
                Tensor x = b.tensor(type, ELEMENTS);
                Tensor y = b.tensor(type, ELEMENTS);
                Tensor z = b.tensor(type, ELEMENTS);
                var op = b.own(b.backend.rectify(ELEMENTS, type, phi));
                expect(b, () -> op.forward(b.stream, x, y), pass, pass, 0);
                expect(b, () -> op.backward(b.stream, x, y, z, Write.OVERWRITE), 2 * pass, pass, 0);
                expect(
                    b, () -> op.backward(b.stream, x, y, z, Write.ACCUMULATE), 3 * pass, pass, 0);
              }));
      tests.add(
          test(
              "weighted sum " + type,
              b -> {
                Tensor x = b.tensor(type, ELEMENTS);
                Tensor y = b.tensor(type, ELEMENTS);
                Tensor z = b.tensor(type, ELEMENTS);
                var op = b.own(b.backend.weightedSum(ELEMENTS, type, 0.6f, 0.8f, phi));
                Rectifier id = Rectifier.IDENTITY;
                expect(b, () -> op.forward(b.stream, x, y, z), 2 * pass, pass, 0);
                expect(
                    b, () -> op.backwardA(b.stream, x, id, y, z, Write.OVERWRITE), pass, pass, 0);
                expect(
                    b,
                    () -> op.backwardA(b.stream, x, phi, y, z, Write.OVERWRITE),
                    2 * pass,
                    pass,
                    0);
                expect(
                    b,
                    () -> op.backwardB(b.stream, x, id, y, z, Write.ACCUMULATE),
                    2 * pass,
                    pass,
                    0);
                expect(
                    b,
                    () -> op.backwardB(b.stream, x, phi, y, z, Write.ACCUMULATE),
                    3 * pass,
                    pass,
                    0);
              }));
      tests.add(
          test(
              "dropout " + type,
              b -> {
                Tensor x = b.tensor(type, ELEMENTS);
                Tensor y = b.tensor(type, ELEMENTS);
                Tensor sequence = b.tensor(DataType.I32, 2);
                var op = b.own(b.backend.dropout(ELEMENTS, type, 0.2f));
                // Each of a block's 8 warps reads the two words of the sequence number, from the
                // cache; a block covers 256 * 4 packs of 16 bytes.
                long scalars = 2 * 8 * Math.ceilDiv(pass, 256 * 4 * 16);
                expect(b, () -> op.forward(b.stream, x, y, 1, sequence), pass, pass, scalars);
                expect(
                    b,
                    () -> op.backward(b.stream, x, y, 1, sequence, Write.ACCUMULATE),
                    2 * pass,
                    pass,
                    scalars);
              }));
      for (Activation activation : List.of(Activation.TANH, Activation.GELU)) {
        tests.add(
            test(
                activation + " " + type,
                b -> {
                  Tensor x = b.tensor(type, ELEMENTS);
                  Tensor y = b.tensor(type, ELEMENTS);
                  Tensor z = b.tensor(type, ELEMENTS);
                  var op =
                      b.own(
                          b.backend.pointwise(
                              ELEMENTS, type, TransformedActivation.unchanged(activation)));
                  expect(b, () -> op.forward(b.stream, x, y), pass, pass, 0);
                  expect(
                      b, () -> op.backward(b.stream, x, y, z, Write.OVERWRITE), 2 * pass, pass, 0);
                }));
      }
      for (DataType other : TYPES) {
        if (other != type) {
          tests.add(
              test(
                  "convert " + type + " to " + other,
                  b -> {
                    Tensor x = b.tensor(type, ELEMENTS);
                    Tensor y = b.tensor(other, ELEMENTS);
                    long out = (long) ELEMENTS * other.bytes();
                    expect(b, () -> b.backend.copy(b.stream, x, y), pass, out, 0);
                  }));
        }
      }
    }
    return tests;
  }

  @TestFactory
  List<DynamicTest> reorders() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : DataType.values()) {
      tests.add(
          test(
              "reorder " + type,
              b -> {
                // 160 locations and 96 channels: one and a half tiles of channels, whole sectors.
                Tensor src = b.own(b.backend.allocate(Shape.of(2, 96, 10, 16), type, Layout.NCHW));
                Tensor dst = b.tensor(type, 2, 10, 16, 96);
                var op = b.own(b.backend.reorder(src.shape(), type, Layout.NCHW, Layout.NHWC));
                expect(b, () -> op.run(b.stream, src, dst), src.bytes(), dst.bytes(), 0);
              }));
    }
    return tests;
  }

  @TestFactory
  List<DynamicTest> poolings() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : TYPES) {
      tests.add(
          test(
              "max-pool without overlap " + type,
              b -> {
                MaxPool2dDescriptor d = new MaxPool2dDescriptor(2, 8, 8, 64, 2, 2, 0, 0);
                Tensor src = b.tensor(type, 2, 8, 8, 64);
                Tensor dst = b.tensor(type, 2, 4, 4, 64);
                Tensor argmax = b.tensor(DataType.U8, 2, 4, 4, 64);
                var op = b.own(b.backend.maxPool2d(d, type, Rectifier.IDENTITY));
                long out = dst.shape().elements();
                expect(
                    b,
                    () -> op.forward(b.stream, src, dst, argmax),
                    src.bytes(),
                    dst.bytes() + out,
                    0);
              }));
      tests.add(
          test(
              "max-pool backward, the rectifier's derivative from argmax " + type,
              b -> {
                MaxPool2dDescriptor d = new MaxPool2dDescriptor(2, 8, 8, 64, 2, 2, 0, 0);
                Tensor src = b.tensor(type, 2, 8, 8, 64);
                Tensor diffSrc = b.tensor(type, 2, 8, 8, 64);
                Tensor diffDst = b.tensor(type, 2, 4, 4, 64);
                Tensor argmax = b.tensor(DataType.U8, 2, 4, 4, 64);
                var op = b.own(b.backend.maxPool2d(d, type, Rectifier.tailored(0.3)));
                // Each window is read by its two rows of locations, and src not at all.
                long windows = diffDst.bytes() + argmax.bytes();
                expect(
                    b,
                    () -> op.backward(b.stream, diffDst, argmax, src, diffSrc, Write.OVERWRITE),
                    0,
                    diffSrc.bytes(),
                    2 * windows / 32);
              }));
      tests.add(
          test(
              "global mean-pool backward " + type,
              b -> {
                Tensor src = b.tensor(type, 3, 8, 8, 64);
                Tensor diffSrc = b.tensor(type, 3, 8, 8, 64);
                Tensor diffDst = b.tensor(type, 3, 1, 1, 64);
                var op =
                    b.own(b.backend.globalMeanPool(src.shape(), type, Rectifier.tailored(0.3)));
                // Each warp reads its image's gradient, from the cache but for the first.
                long warps = src.bytes() / 512;
                expect(
                    b,
                    () -> op.backward(b.stream, diffDst, src, diffSrc, Write.OVERWRITE),
                    src.bytes(),
                    src.bytes(),
                    warps * 64 * type.bytes() / 32);
              }));
      tests.add(
          test(
              "global mean-pool " + type,
              b -> {
                Tensor src = b.tensor(type, 3, 7, 7, 64);
                Tensor dst = b.tensor(type, 3, 1, 1, 64);
                var op = b.own(b.backend.globalMeanPool(src.shape(), type, Rectifier.IDENTITY));
                expect(b, () -> op.forward(b.stream, src, dst), src.bytes(), dst.bytes(), 0);
              }));
    }
    return tests;
  }

  @TestFactory
  List<DynamicTest> inputs() {
    List<DynamicTest> tests = new ArrayList<>();
    for (DataType type : TYPES) {
      for (int channels : new int[] {1, 3}) {
        tests.add(
            test(
                "location norm of " + channels + " channels " + type,
                b -> {
                  Tensor src = b.tensor(DataType.U8, 2, 32, 32, channels);
                  Tensor dst = b.tensor(type, 2, 32, 32, channels + 1);
                  var op =
                      b.own(
                          b.backend.locationNorm(
                              src.shape(),
                              DataType.U8,
                              type,
                              new LocationNorm.Settings(
                                  Collections.nCopies(channels, 0.0),
                                  Collections.nCopies(channels, 1.0),
                                  LocationNorm.Homogeneous.ONE,
                                  1)));
                  long warps = src.shape().elements() / channels / 32;
                  // A warp reads its sectors once per channel, all but the first time from the
                  // cache, and the value of a black byte of each channel.
                  long again = (channels - 1) * src.bytes() / 32 + channels * warps;
                  expect(b, () -> op.forward(b.stream, src, dst), src.bytes(), dst.bytes(), again);
                }));
      }
    }
    return tests;
  }

  @TestFactory
  List<DynamicTest> matrices() {
    List<DynamicTest> tests = new ArrayList<>();
    for (boolean transposed : new boolean[] {false, true}) {
      tests.add(
          test(
              transposed ? "matrix product, transposed" : "matrix product",
              b -> {
                Tensor x = b.tensor(DataType.F32, 64, 64);
                Tensor y = b.tensor(DataType.F32, 64, 64);
                Tensor z = b.tensor(DataType.F32, 64, 64);
                var sizes = MatrixProduct.Sizes.dense(64, 64, 64, transposed, transposed);
                var op = b.own(b.backend.matrixProduct(sizes));
                // Each of the tiles of 32x32 reads its rows and columns, half of them anew.
                long read = 2 * (x.bytes() + y.bytes());
                expect(b, () -> op.run(b.stream, 1, x, y, 0, z), read, z.bytes(), 0);
              }));
    }
    tests.add(
        test(
            "fisher rows",
            b -> {
              Conv2dDescriptor d = Conv2dDescriptor.of(2, 4, 4, 64, 64, 3, 1, 1);
              Tensor src = b.tensor(DataType.F32, 2, 4, 4, 64);
              Tensor diffDst = b.tensor(DataType.F32, 2, 4, 4, 64);
              Tensor inputs = b.tensor(DataType.F32, 2, 9 * 64 + 1);
              Tensor gradients = b.tensor(DataType.F32, 2, 64);
              var op = b.own(b.backend.fisherRows(d, DataType.F32));
              expectNoConflicts(b, () -> op.run(b.stream, src, diffDst, inputs, gradients));
            }));
    tests.add(
        test(
            "symmetric inverse",
            b -> {
              Tensor f = b.tensor(DataType.F32, 97, 97);
              Tensor x = b.tensor(DataType.F32, 97, 97);
              Tensor residual = b.tensor(DataType.F32, 1);
              var op = b.own(b.backend.symmetricInverse(97));
              expectNoConflicts(b, () -> op.run(b.stream, f, 1, x, residual));
            }));
    return tests;
  }

  private static void expectNoConflicts(Bench bench, Runnable work) {
    EmulatorControl.clearCounters();
    work.run();
    bench.stream.synchronize();
    for (JsonNode counters : EmulatorControl.counters()) {
      String kernel = counters.get("kernel").asText();
      assertEquals(0, counters.get("sharedLoadBankConflicts").asLong(), kernel + ": loads");
      assertEquals(0, counters.get("sharedStoreBankConflicts").asLong(), kernel + ": stores");
      assertEquals(0, counters.get("localLoadBytes").asLong(), kernel + ": local memory");
    }
  }

  @TestFactory
  List<DynamicTest> optimisers() {
    long pass = 4L * ELEMENTS;
    long warps = Math.ceilDiv(ELEMENTS / 4, 32);
    return List.of(
        test(
            "sgd",
            b -> {
              Tensor w = b.tensor(DataType.F32, ELEMENTS);
              Tensor g = b.tensor(DataType.F32, ELEMENTS);
              Tensor v = b.tensor(DataType.F32, ELEMENTS);
              Tensor rate = b.tensor(DataType.F32, 1);
              Tensor scale = b.tensor(DataType.F32, 1);
              var op = b.own(b.backend.sgd(ELEMENTS, 0.9f, true, 1e-4f));
              // Each warp reads rate and scale, from the cache.
              expect(
                  b, () -> op.step(b.stream, w, g, v, rate, scale), 3 * pass, 2 * pass, 2 * warps);
            }),
        test(
            "adam",
            b -> {
              Tensor w = b.tensor(DataType.F32, ELEMENTS);
              Tensor g = b.tensor(DataType.F32, ELEMENTS);
              Tensor m = b.tensor(DataType.F32, ELEMENTS);
              Tensor v = b.tensor(DataType.F32, ELEMENTS);
              Tensor scalars = b.tensor(DataType.F32, 2);
              b.backend.fill(b.stream, scalars, 1);
              Tensor scale = b.tensor(DataType.F32, 1);
              var op = b.own(b.backend.adam(ELEMENTS, 0.9f, 0.999f, 1e-8f, 0));
              long blocks = Math.ceilDiv(ELEMENTS / 4, 256);
              expect(
                  b,
                  () -> op.step(b.stream, w, g, m, v, scalars, scale),
                  4 * pass,
                  3 * pass,
                  2 * warps + blocks);
            }));
  }
}
