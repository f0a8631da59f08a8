package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Copies between host and device, conversions between types, and fill. */
class CopyContractTest extends Contract {
  /** Where a tensor of a copy lies. */
  private enum Place {
    HOST,
    DEVICE
  }

  @TestFactory
  Stream<DynamicTest> conversions() {
    List<DataType> floating = List.of(DataType.F32, DataType.BF16, DataType.F16);
    List<Case> cases = new ArrayList<>();
    for (int length : lengths()) {
      for (DataType from : floating) {
        for (DataType to : floating) {
          for (Place source : Place.values()) {
            for (Place target : Place.values()) {
              String id = String.format("copy %d %s %s to %s %s", length, source, from, target, to);
              SplittableRandom random = new SplittableRandom(id.hashCode());
              cases.add(new Case(id, () -> check(id, length, from, source, to, target, random)));
            }
          }
        }
      }
    }
    return tests(cases.stream());
  }

  private void check(
      String id,
      int length,
      DataType from,
      Place source,
      DataType to,
      Place target,
      SplittableRandom random) {
    float[] values = Data.normals(random, length, 1, from);
    double[] expected = new double[length];
    for (int i = 0; i < length; i++) {
      if (i % 5 == 0) { // a tie of the narrower type, where the wider one holds it
        values[i] = Data.round(from, 1 + (i + 0.5) * Data.epsilon(to));
      }
      expected[i] = nearestEven(to, values[i]);
    }
    Shape shape = Shape.of(length);
    try (Trial trial = new Trial(backend, id);
        Tensor hostSrc = Tensor.allocate(shape, from, Layout.ROW_MAJOR).set(values);
        Tensor hostDst = Tensor.allocate(shape, to, Layout.ROW_MAJOR)) {
      var src = trial.input("src", from, values);
      var dst = trial.output("dst", to, length);
      trial.run(
          stream -> {
            Tensor first = source == Place.HOST ? hostSrc : src.tensor();
            if (target == Place.HOST) {
              backend.copy(stream, first, hostDst);
              stream.synchronize();
              backend.copy(stream, hostDst, dst.tensor());
            } else {
              backend.copy(stream, first, dst.tensor());
            }
          });
      trial.expectExactly(dst, expected);
    }
  }

  private static double nearestEven(DataType type, double value) {
    int smallest = type == DataType.F16 ? -14 : -126;
    double spacing =
        Data.epsilon(type) * Math.scalb(1.0, Math.max(smallest, Math.getExponent(value)));
    return Math.rint(value / spacing) * spacing;
  }

  /** A copy within a type keeps every bit: integers, bytes, NaN payloads, minus zero. */
  @Test
  void sameTypeKeepsBits() {
    for (DataType type : DataType.values()) {
      Shape shape = Shape.of(257);
      try (var stream = backend.newStream();
          Tensor src = Tensor.allocate(shape, type, Layout.ROW_MAJOR);
          Tensor device = backend.allocate(shape, type, Layout.ROW_MAJOR);
          Tensor again = backend.allocate(shape, type, Layout.ROW_MAJOR);
          Tensor dst = Tensor.allocate(shape, type, Layout.ROW_MAJOR)) {
        byte[] bytes = new byte[(int) src.bytes()];
        new SplittableRandom(11).nextBytes(bytes);
        src.segment().copyFrom(java.lang.foreign.MemorySegment.ofArray(bytes));
        backend.copy(stream, src, device);
        backend.copy(stream, device, again);
        backend.copy(stream, again, dst);
        stream.synchronize();
        assertTrue(src.segment().mismatch(dst.segment()) == -1, type + " changed on the way");
      }
    }
  }

  /** Too large for binary16, infinite, not a number. */
  @Test
  void conversionsThatAreNotFinite() {
    float infinity = Float.POSITIVE_INFINITY;
    float[] values = {1e30f, -1e30f, 65_519, 65_520, infinity, Float.NaN, 1e-30f};
    try (Trial trial = new Trial(backend, "copy, not finite")) {
      var src = trial.input("src", DataType.F32, values);
      var half = trial.output("dst", DataType.F16, values.length);
      var brain = trial.output("dst", DataType.BF16, values.length);
      trial.run(
          stream -> {
            backend.copy(stream, src.tensor(), half.tensor());
            backend.copy(stream, src.tensor(), brain.tensor());
          });
      float[] h = half.values();
      float[] expected = {infinity, -infinity, 65_504, infinity, infinity, Float.NaN, 0};
      for (int i = 0; i < expected.length; i++) {
        assertTrue(
            Float.compare(h[i], expected[i]) == 0, values[i] + " became " + h[i] + " in F16");
      }
      float[] b = brain.values();
      assertTrue(
          b[4] == infinity && Float.isNaN(b[5]) && b[0] > 9.9e29f && b[6] > 0,
          "F32 to BF16: " + java.util.Arrays.toString(b));
    }
  }

  @TestFactory
  Stream<DynamicTest> fill() {
    List<Case> cases = new ArrayList<>();
    for (int length : lengths()) {
      for (DataType type : DataType.values()) {
        String id = "fill " + length + " " + type;
        float value = type == DataType.U8 ? 200 : type == DataType.I32 ? -3 : 1.3f;
        cases.add(
            new Case(
                id,
                () -> {
                  try (Trial trial = new Trial(backend, id)) {
                    var dst = trial.output("dst", type, length);
                    trial.run(stream -> backend.fill(stream, dst.tensor(), value));
                    double[] expected = new double[length];
                    boolean whole = type == DataType.I32 || type == DataType.U8;
                    java.util.Arrays.fill(expected, whole ? value : nearestEven(type, value));
                    trial.expectExactly(dst, expected);
                  }
                }));
      }
    }
    return tests(cases.stream());
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (var stream = backend.newStream();
        Tensor twelve = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor thirteen = backend.allocate(Shape.of(13), DataType.F32, Layout.ROW_MAJOR);
        Tensor whole = backend.allocate(Shape.of(12), DataType.I32, Layout.ROW_MAJOR)) {
      Refusals.requireMessage(
          OperandException.class, () -> backend.copy(stream, twelve, thirteen), "12", "13");
      Refusals.requireMessage(
          OperandException.class, () -> backend.copy(stream, twelve, whole), "F32", "I32");
      Refusals.requireMessage(
          OperandException.class, () -> backend.copy(stream, whole, twelve), "F32", "I32");
      refusals.requirePlaced(twelve, t -> backend.copy(stream, t, twelve));
      refusals.requirePlaced(twelve, t -> backend.copy(stream, twelve, t));
      refusals.requirePlaced(twelve, t -> backend.fill(stream, t, 1));
    }
  }
}
