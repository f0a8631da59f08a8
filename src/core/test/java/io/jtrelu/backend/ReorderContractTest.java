package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

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

/** Changes of layout: every bit arrives where index arithmetic says, in all types. */
class ReorderContractTest extends Contract {
  /** A pair of layouts. */
  private record Way(Layout from, Layout to) {
    boolean channelsFirst() {
      return from == Layout.NCHW || from == Layout.KCRS;
    }
  }

  private static final List<Way> WAYS =
      List.of(
          new Way(Layout.NCHW, Layout.NHWC),
          new Way(Layout.NHWC, Layout.NCHW),
          new Way(Layout.KCRS, Layout.KRSC),
          new Way(Layout.KRSC, Layout.KCRS));

  /** Batch, channels, height, width, each with the edge it hits. */
  private static final List<Shape> EDGES =
      List.of(
          Shape.of(1, 1, 1, 1), // one element
          Shape.of(0, 3, 5, 7), // empty batch
          Shape.of(2, 0, 5, 7), // no channels
          Shape.of(2, 3, 0, 7), // no rows
          Shape.of(3, 1, 5, 7), // one channel: a copy
          Shape.of(3, 5, 1, 1), // one location: a copy
          Shape.of(1, 2, 1, 2), // the smallest that moves anything
          Shape.of(2, 3, 1, 31), // tails before and behind 32 and 64 of either side
          Shape.of(2, 31, 1, 3),
          Shape.of(1, 32, 4, 8),
          Shape.of(1, 33, 3, 11),
          Shape.of(1, 63, 7, 9),
          Shape.of(2, 64, 8, 8),
          Shape.of(1, 65, 5, 13),
          Shape.of(1, 127, 1, 2),
          Shape.of(1, 2, 3, 43), // 129 locations
          Shape.of(1, 128, 2, 64), // whole tiles, several each way
          Shape.of(1, 129, 1, 129), // and a row and a column more
          Shape.of(2, 3, 28, 28), // images
          Shape.of(16, 8, 3, 3), // weights
          Shape.of(70, 2, 2, 2)); // many small matrices

  @TestFactory
  Stream<DynamicTest> shapes() {
    List<Case> cases = new ArrayList<>();
    for (Shape shape : EDGES) {
      for (DataType type : DataType.values()) {
        for (Way way : WAYS) {
          String id = "reorder " + shape + " " + type + " " + way.from + " " + way.to;
          cases.add(new Case(id, () -> check(shape, type, way, new SplittableRandom(1))));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "reorder",
            0.2,
            random ->
                check(
                    Shape.of(
                        random.nextInt(1, 4),
                        random.nextInt(1, 140),
                        random.nextInt(1, 12),
                        random.nextInt(1, 12)),
                    pick(random, DataType.values()),
                    pick(random, WAYS),
                    random)));
  }

  /**
   * @param extents batch, channels, height, width
   */
  private void check(Shape extents, DataType type, Way way, SplittableRandom random) {
    int n = extents.dim(0);
    int channels = extents.dim(1);
    int height = extents.dim(2);
    int width = extents.dim(3);
    Shape last = Shape.of(n, height, width, channels);
    Shape src = way.channelsFirst() ? extents : last;
    Shape dst = way.channelsFirst() ? last : extents;
    int bytes = type.bytes();
    byte[] from = new byte[Math.toIntExact(src.elements() * bytes)];
    random.nextBytes(from); // every bit pattern, NaNs of all kinds among them
    byte[] expected = new byte[from.length];
    for (int i = 0; i < n; i++) {
      for (int c = 0; c < channels; c++) {
        for (int h = 0; h < height; h++) {
          for (int w = 0; w < width; w++) {
            int first = ((i * channels + c) * height + h) * width + w;
            int behind = ((i * height + h) * width + w) * channels + c;
            int read = (way.channelsFirst() ? first : behind) * bytes;
            int written = (way.channelsFirst() ? behind : first) * bytes;
            System.arraycopy(from, read, expected, written, bytes);
          }
        }
      }
    }
    String description = "reorder " + src + " " + type + " from " + way.from + " to " + way.to;
    try (Trial trial = new Trial(backend, description);
        Reorder reorder = backend.reorder(src, type, way.from, way.to)) {
      var x = trial.input("src", type, src, way.from, from);
      var y = trial.output("dst", type, dst, way.to);
      trial.run(stream -> reorder.run(stream, x.tensor(), y.tensor()));
      trial.expectBytes(y, expected);
      assertEquals(dst, reorder.dst());
      assertEquals(src, reorder.src());
    }
  }

  /** There and back again. */
  @Test
  void twoReordersCancel() {
    Shape shape = Shape.of(3, 10, 6, 7);
    float[] values = Data.integers(new SplittableRandom(3), shape.elements(), 1000);
    try (var stream = backend.newStream();
        Tensor host = Tensor.allocate(shape, DataType.F32, Layout.NCHW).set(values);
        Tensor x = backend.allocate(shape, DataType.F32, Layout.NCHW);
        Tensor y = backend.allocate(Shape.of(3, 6, 7, 10), DataType.F32, Layout.NHWC);
        Reorder there = backend.reorder(shape, DataType.F32, Layout.NCHW, Layout.NHWC);
        Reorder back = backend.reorder(y.shape(), DataType.F32, Layout.NHWC, Layout.NCHW)) {
      backend.copy(stream, host, x);
      there.run(stream, x, y);
      backend.fill(stream, x, -1);
      back.run(stream, y, x);
      backend.copy(stream, x, host);
      stream.synchronize();
      assertArrayEquals(values, host.toFloatArray());
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(2, 3, 4, 5);
    try (Reorder reorder = backend.reorder(shape, DataType.F32, Layout.NCHW, Layout.NHWC);
        var stream = backend.newStream();
        Tensor src = backend.allocate(shape, DataType.F32, Layout.NCHW);
        Tensor dst = backend.allocate(Shape.of(2, 4, 5, 3), DataType.F32, Layout.NHWC)) {
      refusals.require("src", src, t -> reorder.run(stream, t, dst));
      refusals.require("dst", dst, t -> reorder.run(stream, src, t));
      Tensor inPlace = src.slice(0, dst.shape(), Layout.NHWC);
      Refusals.requireMessage(
          OperandException.class, () -> reorder.run(stream, src, inPlace), "src", "dst", "overlap");
      Refusals.requireClosing(reorder, () -> reorder.run(stream, src, dst));
    }
  }

  @Test
  void unsuitableLayouts() {
    Shape shape = Shape.of(2, 3, 4, 5);
    for (Layout from : Layout.values()) {
      for (Layout to : Layout.values()) {
        if (!WAYS.contains(new Way(from, to))) {
          Refusals.requireMessage(
              IllegalArgumentException.class,
              () -> backend.reorder(shape, DataType.F32, from, to).close(),
              from + " to " + to);
        }
      }
    }
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> backend.reorder(Shape.of(3, 4), DataType.U8, Layout.NCHW, Layout.NHWC).close(),
        "four",
        "[3, 4]");
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> backend.allocate(Shape.of(3, 4), DataType.F32, Layout.KCRS).close(),
        "KCRS");
  }
}
