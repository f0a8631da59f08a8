package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** The stand-alone rectifier: forward, backward, in place and not. */
class RectifyContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> lengthsExact() {
    return tests(
        perLength(
            "rectify exact",
            (length, type, random) -> {
              for (Rectifier rectifier : Data.EXACT) {
                check(length, type, true, rectifier, random);
              }
            }));
  }

  @TestFactory
  Stream<DynamicTest> randomReals() {
    return tests(
        random(
            "rectify",
            0.2,
            random ->
                check(
                    randomLength(random),
                    pick(random, types()),
                    false,
                    pick(random, Data.REAL),
                    random)));
  }

  private void check(
      int length, DataType type, boolean exact, Rectifier rectifier, SplittableRandom random) {
    String description = "rectify " + length + " " + type + " " + rectifier;
    // Some zeros: the derivative at the kink is that of the negative side.
    float[] src = Data.withZeros(random, values(random, length, type, exact), 0.1);
    float[] diffDst = values(random, length, type, exact);
    float[] old = values(random, length, type, exact);
    Write write = pick(random, Write.values());
    boolean inPlace = random.nextBoolean();
    double[] forward = new double[length];
    double[] backward = new double[length];
    double[] magnitude = new double[length];
    for (int i = 0; i < length; i++) {
      forward[i] = Data.phi(rectifier, src[i]);
      double term = diffDst[i] * Data.slopeAt(rectifier, src[i]);
      double before = write == Write.ACCUMULATE ? old[i] : 0;
      backward[i] = before + term;
      magnitude[i] = Math.abs(before) + Math.abs(term);
    }
    try (Trial trial = new Trial(backend, description + (inPlace ? " in place " : " ") + write);
        Rectify rectify = backend.rectify(length, type, rectifier)) {
      var x = inPlace ? trial.inout("src", type, src) : trial.input("src", type, src);
      var y = inPlace ? x : trial.output("dst", type, length);
      boolean gradientInPlace = inPlace && write == Write.OVERWRITE;
      var dy =
          gradientInPlace
              ? trial.inout("diff_dst", type, diffDst)
              : trial.input("diff_dst", type, diffDst);
      var dx = gradientInPlace ? dy : trial.result("diff_src", type, write, old);
      trial.run(
          stream -> {
            rectify.forward(stream, x.tensor(), y.tensor());
            rectify.backward(stream, y.tensor(), dy.tensor(), dx.tensor(), write);
          });
      // A zero source gives zero whatever the rectifier: it proves nothing about the others.
      double[] forwardMagnitude = new double[length];
      for (int i = 0; i < length; i++) {
        forwardMagnitude[i] = Math.abs(forward[i]);
      }
      if (exact) {
        trial.expectExactly(y, forward, forwardMagnitude);
        trial.expectExactly(dx, backward, magnitude);
      } else {
        trial.expectRounded(y, forward, forwardMagnitude);
        trial.expectRounded(dx, backward, magnitude);
      }
    }
  }

  private static float[] values(SplittableRandom random, int length, DataType type, boolean exact) {
    return exact ? Data.integers(random, length, 64) : Data.normals(random, length, 1, type);
  }

  /** The derivative is that of the function: differences across +-1/4 of a piecewise line. */
  @Test
  void derivativeIsThatOfTheFunction() {
    for (Rectifier rectifier : Data.REAL) {
      float[] x = {-8, -1, -0.5f, 0.5f, 1, 8};
      double[] expected = new double[x.length];
      for (int i = 0; i < x.length; i++) {
        expected[i] = (Data.phi(rectifier, x[i] + 0.25) - Data.phi(rectifier, x[i] - 0.25)) / 0.5;
      }
      try (Trial trial = new Trial(backend, "rectify " + rectifier);
          Rectify rectify = backend.rectify(x.length, DataType.F32, rectifier)) {
        var src = trial.input("src", DataType.F32, x);
        var dst = trial.output("dst", DataType.F32, x.length);
        var one = trial.input("diff_dst", DataType.F32, new float[] {1, 1, 1, 1, 1, 1});
        var dx = trial.output("diff_src", DataType.F32, x.length);
        trial.run(
            stream -> {
              rectify.forward(stream, src.tensor(), dst.tensor());
              rectify.backward(stream, dst.tensor(), one.tensor(), dx.tensor(), Write.OVERWRITE);
            });
        trial.expectRounded(dx, expected, expected.clone());
      }
    }
  }

  /** Infinity and NaN pass through, the sign of infinity with them. */
  @Test
  void notFinite() {
    float infinity = Float.POSITIVE_INFINITY;
    for (DataType type : types()) {
      try (Trial trial = new Trial(backend, "rectify, not finite " + type);
          Rectify rectify = backend.rectify(3, type, new Rectifier(0.5f, 2))) {
        var x = trial.input("src", type, new float[] {infinity, -infinity, Float.NaN});
        var y = trial.output("dst", type, 3);
        trial.run(stream -> rectify.forward(stream, x.tensor(), y.tensor()));
        float[] values = y.values();
        if (values[0] != infinity || values[1] != -infinity || !Float.isNaN(values[2])) {
          trial.fail("dst is " + java.util.Arrays.toString(values));
        }
      }
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(12);
    try (Rectify rectify = backend.rectify(12, DataType.F32, new Rectifier(0.5f, 1));
        var stream = backend.newStream();
        Tensor a = backend.allocate(shape, DataType.F32, Layout.ROW_MAJOR);
        Tensor b = backend.allocate(shape, DataType.F32, Layout.ROW_MAJOR)) {
      refusals.requireElements("src", a, t -> rectify.forward(stream, t, b));
      refusals.requireElements("dst", a, t -> rectify.forward(stream, b, t));
      Write write = Write.OVERWRITE;
      refusals.requireElements("dst", a, t -> rectify.backward(stream, t, b, b, write));
      refusals.requireElements("diff_dst", a, t -> rectify.backward(stream, b, t, b, write));
      refusals.requireElements("diff_src", a, t -> rectify.backward(stream, b, b, t, write));
      // Another shape of as many elements will do.
      rectify.forward(stream, a.slice(0, Shape.of(3, 4), Layout.ROW_MAJOR), b);
      stream.synchronize();
      Refusals.requireClosing(rectify, () -> rectify.forward(stream, a, b));
    }
  }
}
