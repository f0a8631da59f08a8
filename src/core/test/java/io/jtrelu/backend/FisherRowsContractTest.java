package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/**
 * Rows of Fisher factors against what they are by another name: the sum of patches is the gradient
 * of a filter whose result has the gradient 1 everywhere, and the sum of gradients is the bias's. A
 * place's patch is that of a result with a gradient there alone.
 */
class FisherRowsContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> randomConvolutions() {
    return tests(random("fisher rows", 0.5, this::check));
  }

  private void check(SplittableRandom random) {
    int kh = random.nextInt(1, 4);
    int kw = random.nextInt(1, 4);
    int dh = random.nextInt(1, 3);
    int dw = random.nextInt(1, 3);
    int h = random.nextInt(dh * (kh - 1) + 1, dh * (kh - 1) + 9);
    int w = random.nextInt(dw * (kw - 1) + 1, dw * (kw - 1) + 9);
    int n = random.nextInt(1, 4);
    Conv2dDescriptor d =
        new Conv2dDescriptor(
            n,
            h,
            w,
            random.nextInt(1, 20),
            random.nextInt(1, 20),
            kh,
            kw,
            random.nextInt(1, 4),
            random.nextInt(1, 4),
            random.nextInt(3),
            random.nextInt(3),
            random.nextInt(3),
            random.nextInt(3),
            dh,
            dw,
            1);
    DataType type = pick(random, types());
    FisherRows.Form form = pick(random, List.of(FisherRows.Form.values()));
    int rowsEach = form == FisherRows.Form.REDUCE ? 1 : d.oh() * d.ow();
    float[] src = Data.normals(random, d.src().elements(), 1, type);
    float[] diffDst = Data.normals(random, d.dst().elements(), 1, type);
    int width = FisherRows.inputs(d);
    double places = (double) d.oh() * d.ow();
    double divisor = form == FisherRows.Form.REDUCE ? places : Math.sqrt(places);
    double[] inputs = new double[n * rowsEach * width];
    double[] inputBound = new double[inputs.length];
    double[] gradients = new double[n * rowsEach * d.oc()];
    double[] gradientBound = new double[gradients.length];
    for (int i = 0; i < n; i++) {
      Conv2dDescriptor one = d.withBatch(1);
      Conv2dDescriptor filter =
          new Conv2dDescriptor(
              1,
              h,
              w,
              d.ic(),
              1,
              kh,
              kw,
              d.strideH(),
              d.strideW(),
              d.padTop(),
              d.padLeft(),
              d.padBottom(),
              d.padRight(),
              dh,
              dw,
              1);
      float[] image = row(src, i, n);
      float[] error = row(diffDst, i, n);
      for (int t = 0; t < rowsEach; t++) {
        float[] seen = new float[(int) places];
        float[] told = new float[error.length];
        int first = rowsEach == 1 ? 0 : t;
        int end = rowsEach == 1 ? seen.length : t + 1;
        Arrays.fill(seen, first, end, 1);
        System.arraycopy(error, first * d.oc(), told, first * d.oc(), (end - first) * d.oc());
        int row = i * rowsEach + t;
        NaiveConv2d.Sums patches = new NaiveConv2d(filter).backwardWeights(image, seen);
        for (int j = 0; j < width - 1; j++) {
          inputs[row * width + j] = patches.value()[j] / divisor;
          inputBound[row * width + j] = bound(end - first, patches.magnitude()[j] / divisor);
        }
        inputs[row * width + width - 1] = form == FisherRows.Form.REDUCE ? 1 : 1 / divisor;
        inputBound[row * width + width - 1] = bound(0, 1 / divisor);
        NaiveConv2d.Sums sums = new NaiveConv2d(one).backwardBias(told);
        for (int k = 0; k < d.oc(); k++) {
          gradients[row * d.oc() + k] = sums.value()[k];
          gradientBound[row * d.oc() + k] = bound(end - first, sums.magnitude()[k]);
        }
      }
    }
    try (Trial trial = new Trial(backend, d + " " + type + " " + form);
        FisherRows rows = backend.fisherRows(d, type, form)) {
      var x = trial.input("src", type, d.src(), Layout.NHWC, src);
      var e = trial.input("diff_dst", type, d.dst(), Layout.NHWC, diffDst);
      var a = trial.output("inputs", DataType.F32, Shape.of(n * rowsEach, width), Layout.ROW_MAJOR);
      var g =
          trial.output("gradients", DataType.F32, Shape.of(n * rowsEach, d.oc()), Layout.ROW_MAJOR);
      trial.run(stream -> rows.run(stream, x.tensor(), e.tensor(), a.tensor(), g.tensor()));
      trial.expectWithin(a, inputs, inputBound);
      trial.expectWithin(g, gradients, gradientBound);
    }
  }

  /** One rounding for each term, one for the mean's factor and one for its product. */
  private static double bound(double terms, double magnitude) {
    return (terms + 2) * 0x1p-24 * magnitude;
  }

  private static float[] row(float[] of, int index, int rows) {
    int width = of.length / rows;
    return Arrays.copyOfRange(of, index * width, (index + 1) * width);
  }

  @Test
  void unsuitableOperands() {
    Conv2dDescriptor groups = new Conv2dDescriptor(1, 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2);
    assertThrows(UnsupportedException.class, () -> backend.fisherRows(groups, DataType.F32));
    Refusals refusals = new Refusals(backend);
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 4, 4, 3, 5, 3, 1, 1);
    try (FisherRows rows = backend.fisherRows(d, DataType.F32);
        var stream = backend.newStream();
        Tensor x = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor e = backend.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor a = backend.allocate(Shape.of(2, 28), DataType.F32, Layout.ROW_MAJOR);
        Tensor g = backend.allocate(Shape.of(2, 5), DataType.F32, Layout.ROW_MAJOR)) {
      refusals.require("src", x, t -> rows.run(stream, t, e, a, g));
      refusals.require("diff_dst", e, t -> rows.run(stream, x, t, a, g));
      refusals.require("inputs", a, t -> rows.run(stream, x, e, t, g));
      refusals.require("gradients", g, t -> rows.run(stream, x, e, a, t));
      Refusals.requireClosing(rows, () -> rows.run(stream, x, e, a, g));
    }
  }
}
