package io.jtrelu.backend;

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

/** The mean over locations and its gradient. */
class GlobalMeanPoolContractTest extends Contract {
  /** A power of two of locations, so that the mean is exact; each with the edge it hits. */
  private static final List<Shape> EXACT =
      List.of(
          Shape.of(1, 1, 1, 1), // one element
          Shape.of(0, 2, 2, 3), // empty batch
          Shape.of(3, 1, 1, 7), // nothing to average
          Shape.of(1, 1, 2, 5), // one row
          Shape.of(1, 4, 1, 5), // one column
          Shape.of(2, 4, 4, 15), // tails of channel vectors
          Shape.of(2, 4, 4, 16),
          Shape.of(2, 2, 4, 17),
          Shape.of(1, 8, 4, 33),
          Shape.of(1, 8, 8, 64), // the end of plain50 is 7x7x64; a power of two beside it
          Shape.of(5, 2, 2, 65),
          Shape.of(2, 2, 2, 257));

  @TestFactory
  Stream<DynamicTest> shapes() {
    List<Case> cases = new ArrayList<>();
    for (Shape shape : EXACT) {
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = "mean-pool " + shape + " " + type + (exact ? " exact" : " real");
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(new Case(id, () -> check(shape, type, exact, random)));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "mean-pool",
            0.2,
            random -> {
              Shape shape =
                  Shape.of(
                      random.nextInt(1, 4),
                      random.nextInt(1, 15),
                      random.nextInt(1, 15),
                      random.nextInt(1, 70));
              check(shape, pick(random, types()), false, random);
            }));
  }

  private void check(Shape shape, DataType type, boolean exact, SplittableRandom random) {
    int n = shape.dim(0);
    int locations = shape.dim(1) * shape.dim(2);
    int channels = shape.dim(3);
    Rectifier psi = exact ? pick(random, Data.EXACT) : pick(random, Data.REAL);
    Write write = pick(random, Write.values());
    int range = Math.max(1, Math.min(16, Data.largestExact(type) / (4 * locations)));
    float[] src = values(random, shape.elements(), type, exact, range);
    Data.withZeros(random, src, 0.1);
    float[] diffDst = values(random, (long) n * channels, type, exact, range);
    float[] old = values(random, shape.elements(), type, exact, 1);
    double[] mean = new double[n * channels];
    double[] magnitude = new double[n * channels];
    double[] gradient = new double[src.length];
    double[] gradientMagnitude = new double[src.length];
    for (int i = 0; i < n; i++) {
      for (int c = 0; c < channels; c++) {
        for (int location = 0; location < locations; location++) {
          int at = (i * locations + location) * channels + c;
          mean[i * channels + c] += src[at] / (double) locations;
          magnitude[i * channels + c] += Math.abs(src[at]) / (double) locations;
          double before = write == Write.ACCUMULATE ? old[at] : 0;
          double term = diffDst[i * channels + c] / (double) locations;
          double slope = psi.isIdentity() ? 1 : Data.slopeAt(psi, src[at]);
          gradient[at] = (before + term) * slope;
          gradientMagnitude[at] = (Math.abs(before) + Math.abs(term)) * slope;
        }
      }
    }
    String description = String.format("mean-pool %s %s psi %s %s", shape, type, psi, write);
    try (Trial trial = new Trial(backend, description);
        GlobalMeanPool pool = backend.globalMeanPool(shape, type, psi)) {
      Shape pooled = Shape.of(n, 1, 1, channels);
      var x = trial.input("src", type, shape, Layout.NHWC, src);
      var y = trial.output("dst", type, pooled, Layout.NHWC);
      var dy = trial.input("diff_dst", type, pooled, Layout.NHWC, diffDst);
      var dx = trial.result("diff_src", type, shape, Layout.NHWC, write, old);
      trial.run(
          stream -> {
            pool.forward(stream, x.tensor(), y.tensor());
            pool.backward(stream, dy.tensor(), x.tensor(), dx.tensor(), write);
          });
      if (exact) {
        trial.expectExactly(y, mean, magnitude);
        trial.expectExactly(dx, gradient, gradientMagnitude);
      } else {
        double[] bound = new double[mean.length];
        for (int i = 0; i < bound.length; i++) {
          bound[i] =
              4 * Data.epsilon(DataType.F32) * magnitude[i]
                  + 1.5 * Data.epsilon(type) * Math.abs(mean[i])
                  + Data.tiny(type);
        }
        trial.requireTrustworthy(y, mean, magnitude);
        trial.expectWithin(y, mean, bound);
        trial.expectRounded(dx, gradient, gradientMagnitude);
      }
    }
  }

  private static float[] values(
      SplittableRandom random, long count, DataType type, boolean exact, int range) {
    return exact ? Data.integers(random, count, range) : Data.normals(random, count, 1, type);
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(2, 3, 4, 5);
    try (GlobalMeanPool pool = backend.globalMeanPool(shape, DataType.F32, Rectifier.IDENTITY);
        var stream = backend.newStream();
        Tensor src = backend.allocate(shape, DataType.F32, Layout.NHWC);
        Tensor diffSrc = backend.allocate(shape, DataType.F32, Layout.NHWC);
        Tensor dst = backend.allocate(Shape.of(2, 1, 1, 5), DataType.F32, Layout.NHWC)) {
      Write write = Write.OVERWRITE;
      refusals.require("src", src, t -> pool.forward(stream, t, dst));
      refusals.require("dst", dst, t -> pool.forward(stream, src, t));
      refusals.require("diff_dst", dst, t -> pool.backward(stream, t, src, diffSrc, write));
      refusals.require("diff_src", src, t -> pool.backward(stream, dst, src, t, write));
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.globalMeanPool(Shape.of(3, 4), DataType.F32, Rectifier.IDENTITY).close(),
          "NHWC");
      Refusals.requireClosing(pool, () -> pool.forward(stream, src, dst));
    }
  }
}
