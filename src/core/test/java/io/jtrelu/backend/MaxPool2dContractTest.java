package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Max-pooling: values, winners (data full of ties), and the way back. */
class MaxPool2dContractTest extends Contract {
  /** The shapes; each with the edge it hits. */
  private static final List<MaxPool2dDescriptor> SHAPES =
      List.of(
          new MaxPool2dDescriptor(1, 1, 1, 1, 1, 1, 0, 0), // one element
          new MaxPool2dDescriptor(0, 4, 4, 3, 2, 2, 0, 0), // empty batch
          new MaxPool2dDescriptor(2, 4, 4, 3, 2, 2, 0, 0), // windows side by side
          new MaxPool2dDescriptor(1, 5, 5, 3, 2, 2, 0, 0), // last row and column in no window
          new MaxPool2dDescriptor(1, 5, 5, 3, 2, 2, 0, 1), // last window half in the padding
          new MaxPool2dDescriptor(1, 9, 9, 4, 3, 2, 1, 1), // the ImageNet stem's pooling
          MaxPool2dDescriptor.same(1, 8, 8, 5, 3, 2), // uneven padding
          new MaxPool2dDescriptor(1, 6, 6, 2, 3, 1, 1, 1), // overlapping windows
          new MaxPool2dDescriptor(1, 7, 7, 2, 2, 3, 0, 0), // stride larger than the kernel
          new MaxPool2dDescriptor(1, 3, 3, 2, 3, 1, 2, 2), // corner windows hold one element
          new MaxPool2dDescriptor(1, 2, 3, 2, 4, 1, 3, 3), // kernel larger than the image
          new MaxPool2dDescriptor(1, 15, 16, 1, 15, 1, 0, 0), // the largest kernel
          new MaxPool2dDescriptor(1, 12, 13, 2, 11, 1, 0, 0), // the largest that leaves a bit
          new MaxPool2dDescriptor(1, 12, 13, 2, 12, 1, 0, 0), // the smallest that does not
          new MaxPool2dDescriptor(1, 1, 9, 3, 1, 2, 0, 0), // one row, kernel 1
          new MaxPool2dDescriptor(3, 5, 4, 17, 3, 2, 1, 1), // tails of channel vectors
          new MaxPool2dDescriptor(1, 5, 4, 64, 2, 1, 0, 0),
          new MaxPool2dDescriptor(1, 4, 5, 65, 2, 2, 1, 1),
          new MaxPool2dDescriptor(2, 4, 4, 129, 3, 2, 1, 1));

  @TestFactory
  Stream<DynamicTest> shapes() {
    List<Case> cases = new ArrayList<>();
    for (int i = 0; i < SHAPES.size(); i++) {
      MaxPool2dDescriptor d = SHAPES.get(i);
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = "max-pool " + i + " " + type + (exact ? " exact" : " real");
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(new Case(id, () -> check(d, type, exact, random)));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "max-pool",
            0.3,
            random -> {
              int kernel = random.nextInt(1, 6);
              MaxPool2dDescriptor d =
                  new MaxPool2dDescriptor(
                      random.nextInt(1, 4),
                      random.nextInt(kernel, 14),
                      random.nextInt(kernel, 14),
                      random.nextInt(1, 40),
                      kernel,
                      random.nextInt(1, 5),
                      random.nextInt(kernel),
                      random.nextInt(kernel));
              check(d, pick(random, types()), random.nextBoolean(), random);
            }));
  }

  private void check(MaxPool2dDescriptor d, DataType type, boolean exact, SplittableRandom random) {
    Rectifier psi = exact ? pick(random, Data.EXACT) : pick(random, Data.REAL);
    Write write = pick(random, Write.values());
    long sources = d.src().elements();
    long outputs = d.dst().elements();
    // Few different values: ties everywhere, and zeros for the kink.
    float[] src =
        exact
            ? Data.withZeros(random, Data.integers(random, sources, 2), 0.2)
            : Data.normals(random, sources, 1, type);
    float[] diffDst =
        exact ? Data.integers(random, outputs, 2) : Data.normals(random, outputs, 1, type);
    float[] old =
        exact ? Data.integers(random, sources, 2) : Data.normals(random, sources, 1, type);
    double[] dst = new double[(int) outputs];
    double[] argmax = new double[(int) outputs];
    double[] value = new double[(int) sources];
    double[] magnitude = new double[(int) sources];
    for (int i = 0; i < old.length && write == Write.ACCUMULATE; i++) {
      value[i] = old[i];
      magnitude[i] = Math.abs(old[i]);
    }
    for (int i = 0; i < outputs; i++) {
      int tap = winner(d, src, i);
      int at = source(d, i, tap);
      dst[i] = src[at];
      boolean marked = !psi.isIdentity() && d.kernel() <= 11 && src[at] > 0;
      argmax[i] = tap + (marked ? 128 : 0);
      value[at] += diffDst[i];
      magnitude[at] += Math.abs(diffDst[i]);
    }
    for (int i = 0; i < sources; i++) {
      double slope = psi.isIdentity() ? 1 : Data.slopeAt(psi, src[i]);
      value[i] *= slope;
      magnitude[i] *= slope;
    }
    String description = String.format("%s %s psi %s %s", d, type, psi, write);
    try (Trial trial = new Trial(backend, description);
        MaxPool2d pool = backend.maxPool2d(d, type, psi)) {
      var x = trial.input("src", type, d.src(), Layout.NHWC, src);
      var y = trial.output("dst", type, d.dst(), Layout.NHWC);
      var place = trial.output("argmax", DataType.U8, d.dst(), Layout.NHWC);
      var dy = trial.input("diff_dst", type, d.dst(), Layout.NHWC, diffDst);
      var dx = trial.result("diff_src", type, d.src(), Layout.NHWC, write, old);
      // Where argmax tells all, src may be anything by now.
      boolean marked = !psi.isIdentity() && d.kernel() <= 11;
      float[] other = Data.withZeros(random, Data.integers(random, sources, 2), 0.2);
      boolean gone = marked && write == Write.OVERWRITE;
      var later = trial.input("src later", type, d.src(), Layout.NHWC, gone ? other : src);
      trial.run(
          stream -> {
            pool.forward(stream, x.tensor(), y.tensor(), place.tensor());
            pool.backward(stream, dy.tensor(), place.tensor(), later.tensor(), dx.tensor(), write);
          });
      trial.expectExactly(y, dst);
      trial.expectExactly(place, argmax);
      if (exact) {
        trial.expectExactly(dx, value, magnitude);
      } else {
        trial.expectRounded(dx, value, magnitude);
      }
    }
  }

  /** The winner of a window: going backwards, the last that is no smaller than any after it. */
  private static int winner(MaxPool2dDescriptor d, float[] src, int output) {
    int winner = -1;
    for (int tap = d.kernel() * d.kernel() - 1; tap >= 0; tap--) {
      int at = source(d, output, tap);
      if (at >= 0 && (winner < 0 || src[at] >= src[source(d, output, winner)])) {
        winner = tap;
      }
    }
    return winner;
  }

  /** Index of a window's element, or -1 in the padding. */
  private static int source(MaxPool2dDescriptor d, int output, int tap) {
    int c = output % d.c();
    int q = output / d.c() % d.ow();
    int p = output / d.c() / d.ow() % d.oh();
    int n = output / d.c() / d.ow() / d.oh();
    int y = p * d.stride() + tap / d.kernel() - d.padBegin();
    int x = q * d.stride() + tap % d.kernel() - d.padBegin();
    if (y < 0 || y >= d.h() || x < 0 || x >= d.w()) {
      return -1;
    }
    return c + d.c() * (x + d.w() * (y + d.h() * n));
  }

  /** Minus infinity wins where there is nothing else; the first NaN wins over everything. */
  @Test
  void notFinite() {
    float infinity = Float.POSITIVE_INFINITY;
    MaxPool2dDescriptor d = new MaxPool2dDescriptor(3, 2, 2, 1, 2, 1, 0, 0);
    float[] src = {
      -infinity, -infinity, -infinity, -infinity, 1, Float.NaN, infinity, Float.NaN, -infinity, 5,
      infinity, infinity
    };
    for (DataType type : types()) {
      try (Trial trial = new Trial(backend, "max-pool, not finite " + type);
          MaxPool2d pool = backend.maxPool2d(d, type, Rectifier.IDENTITY)) {
        var x = trial.input("src", type, d.src(), Layout.NHWC, src);
        var y = trial.output("dst", type, d.dst(), Layout.NHWC);
        var place = trial.output("argmax", DataType.U8, d.dst(), Layout.NHWC);
        trial.run(stream -> pool.forward(stream, x.tensor(), y.tensor(), place.tensor()));
        trial.expectExactly(place, new double[] {0, 1, 2});
        float[] values = y.values();
        if (values[0] != -infinity || !Float.isNaN(values[1]) || values[2] != infinity) {
          trial.fail("dst is " + java.util.Arrays.toString(values));
        }
      }
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    MaxPool2dDescriptor d = new MaxPool2dDescriptor(1, 4, 4, 3, 2, 2, 0, 0);
    try (MaxPool2d pool = backend.maxPool2d(d, DataType.F32, Rectifier.IDENTITY);
        var stream = backend.newStream();
        Tensor src = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor diffSrc = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor place = backend.allocate(d.dst(), DataType.U8, Layout.NHWC)) {
      Write write = Write.OVERWRITE;
      refusals.require("src", src, t -> pool.forward(stream, t, dst, place));
      refusals.require("dst", dst, t -> pool.forward(stream, src, t, place));
      refusals.require("argmax", place, t -> pool.forward(stream, src, dst, t));
      refusals.require("diff_dst", dst, t -> pool.backward(stream, t, place, src, diffSrc, write));
      refusals.require("argmax", place, t -> pool.backward(stream, dst, t, src, diffSrc, write));
      refusals.require("diff_src", src, t -> pool.backward(stream, dst, place, src, t, write));
      Refusals.requireMessage(
          OperandException.class,
          () -> pool.forward(stream, src, src.slice(0, d.dst(), Layout.NHWC), place),
          "overlap");
      Refusals.requireClosing(pool, () -> pool.forward(stream, src, dst, place));
    }
  }
}
