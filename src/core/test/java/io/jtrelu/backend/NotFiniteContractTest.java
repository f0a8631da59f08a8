package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntPredicate;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * What is not a number stays none: a NaN that goes into an operation comes out of it, wherever it
 * has a share in the result, so that a network that broke says so. And what derivatives are where
 * functions have a kink. (Optimisers and the gradient's norm have their own rule: see their tests.)
 */
class NotFiniteContractTest extends Contract {
  private static final float NAN = Float.NaN;
  private static final float INFINITY = Float.POSITIVE_INFINITY;

  /** With ReLU, whose slope of 0 could swallow what is below zero. */
  private static final List<Rectifier> RECTIFIERS =
      List.of(Rectifier.IDENTITY, new Rectifier(0.5f, 2), new Rectifier(0, 1));

  private interface Body {
    void run(DataType type, Rectifier phi);
  }

  private Stream<DynamicTest> perTypeAndRectifier(String family, Body body) {
    List<Case> cases = new ArrayList<>();
    for (DataType type : types()) {
      for (Rectifier phi : RECTIFIERS) {
        String id = family + " " + type + " slope " + phi.slope();
        cases.add(new Case(id, () -> body.run(type, phi)));
      }
    }
    return tests(cases.stream());
  }

  private static void requireNan(Trial trial, String what, float[] values, IntPredicate where) {
    for (int i = 0; i < values.length; i++) {
      if (where.test(i) && !Float.isNaN(values[i])) {
        trial.fail(what + ": element " + i + " depends on a NaN and is " + values[i]);
      }
    }
  }

  /** As {@link #requireNan}, and nothing else is NaN. */
  private static void requireNanJust(Trial trial, String what, float[] values, IntPredicate where) {
    requireNan(trial, what, values, where);
    for (int i = 0; i < values.length; i++) {
      if (!where.test(i) && Float.isNaN(values[i])) {
        trial.fail(what + ": element " + i + " is NaN without depending on one");
      }
    }
  }

  @TestFactory
  Stream<DynamicTest> rectify() {
    return perTypeAndRectifier(
        "rectify, not finite",
        (type, phi) -> {
          try (Trial trial = new Trial(backend, "rectify " + phi + " " + type);
              Rectify rectify = backend.rectify(19, type, phi)) {
            float[] x = new float[19];
            for (int i = 0; i < x.length; i++) {
              x[i] = i - 9;
            }
            x[3] = NAN;
            x[5] = INFINITY;
            x[17] = -INFINITY;
            float[] dy = new float[19];
            Arrays.fill(dy, 1);
            dy[2] = NAN; // where x is negative: times a slope of 0 it is NaN still
            dy[16] = NAN;
            var src = trial.input("src", type, x);
            var dst = trial.output("dst", type, 19);
            var diffDst = trial.input("diff_dst", type, dy);
            var diffSrc = trial.output("diff_src", type, 19);
            trial.run(
                stream -> {
                  rectify.forward(stream, src.tensor(), dst.tensor());
                  rectify.backward(
                      stream, dst.tensor(), diffDst.tensor(), diffSrc.tensor(), Write.OVERWRITE);
                });
            float[] y = dst.values();
            assertEquals(INFINITY, y[5]);
            if (phi.slope() > 0) {
              assertEquals(-INFINITY, y[17]);
            } else if (y[17] != 0 && !Float.isNaN(y[17])) { // 0 * infinity
              trial.fail("of -infinity it makes " + y[17]);
            }
            y[17] = 0;
            requireNanJust(trial, "dst", y, i -> i == 3);
            requireNanJust(trial, "diff_src", diffSrc.values(), i -> i == 2 || i == 16);
          }
        });
  }

  @TestFactory
  Stream<DynamicTest> pointwise() {
    List<Case> cases = new ArrayList<>();
    for (DataType type : types()) {
      for (Activation function : Activation.values()) {
        cases.add(
            new Case(
                "pointwise, not finite " + function + " " + type, () -> check(function, type)));
      }
    }
    return tests(cases.stream());
  }

  private void check(Activation function, DataType type) {
    TransformedActivation phi =
        new TransformedActivation(function, 1, 0, 0.5, 0.25, slope(function));
    float[] x = {1, NAN, -1, INFINITY, -INFINITY, NAN, 2};
    float[] dy = {NAN, 1, 1, 1, 1, 1, 1};
    try (Trial trial = new Trial(backend, function + " " + type);
        Pointwise op = backend.pointwise(x.length, type, phi)) {
      var src = trial.input("src", type, x);
      var dst = trial.output("dst", type, x.length);
      var diffDst = trial.input("diff_dst", type, dy);
      var diffSrc = trial.output("diff_src", type, x.length);
      trial.run(
          stream -> {
            op.forward(stream, src.tensor(), dst.tensor());
            op.backward(
                stream,
                (op.savesOutput() ? dst : src).tensor(),
                diffDst.tensor(),
                diffSrc.tensor(),
                Write.OVERWRITE);
          });
      float[] y = dst.values();
      requireNan(trial, "dst", y, i -> Float.isNaN(x[i]));
      for (int i : new int[] {3, 4}) {
        double limit = phi.value(x[i]);
        if (!Double.isNaN(limit) && !(Math.abs(y[i] - limit) <= 0.01 || y[i] == limit)) {
          trial.fail("of " + x[i] + " it makes " + y[i] + ", the limit is " + limit);
        }
      }
      requireNan(trial, "diff_src", diffSrc.values(), i -> i == 0);
    }
  }

  private static double slope(Activation function) {
    return function == Activation.LEAKY_RELU ? 0.25 : 0;
  }

  /** At a kink the derivative is that of the negative side, at -0 and at 0, as in PyTorch. */
  @TestFactory
  Stream<DynamicTest> derivativesAtKinks() {
    List<Case> cases = new ArrayList<>();
    double selu = 1.0507009873554805 * 1.6732632423543772;
    for (DataType type : types()) {
      cases.add(kink(Activation.RELU, type, 0));
      cases.add(kink(Activation.LEAKY_RELU, type, 0.25));
      cases.add(kink(Activation.ELU, type, 1));
      cases.add(kink(Activation.SELU, type, selu));
      for (Rectifier phi : RECTIFIERS) {
        cases.add(
            new Case(
                "derivative at the kink, rectify slope " + phi.slope() + " " + type,
                () -> checkKink(phi, type)));
      }
    }
    return tests(cases.stream());
  }

  private Case kink(Activation function, DataType type, double derivative) {
    return new Case(
        "derivative at the kink, " + function + " " + type,
        () -> {
          TransformedActivation phi =
              new TransformedActivation(function, 1, 0, 2, 0, slope(function));
          try (Trial trial = new Trial(backend, "derivative of " + function + " at 0 in " + type);
              Pointwise op = backend.pointwise(2, type, phi)) {
            var src = trial.input("src", type, new float[] {0f, -0f});
            var dst = trial.output("dst", type, 2);
            var diffDst = trial.input("diff_dst", type, new float[] {1, 1});
            var diffSrc = trial.output("diff_src", type, 2);
            trial.run(
                stream -> {
                  op.forward(stream, src.tensor(), dst.tensor());
                  op.backward(
                      stream,
                      (op.savesOutput() ? dst : src).tensor(),
                      diffDst.tensor(),
                      diffSrc.tensor(),
                      Write.OVERWRITE);
                });
            for (float value : diffSrc.values()) {
              assertEquals(2 * derivative, value, 0.01 * derivative);
            }
          }
        });
  }

  private void checkKink(Rectifier phi, DataType type) {
    try (Trial trial = new Trial(backend, "derivative of " + phi + " at 0 in " + type);
        Rectify op = backend.rectify(2, type, phi)) {
      var dst = trial.input("dst", type, new float[] {0f, -0f});
      var diffDst = trial.input("diff_dst", type, new float[] {1, 1});
      var diffSrc = trial.output("diff_src", type, 2);
      trial.run(
          stream ->
              op.backward(
                  stream, dst.tensor(), diffDst.tensor(), diffSrc.tensor(), Write.OVERWRITE));
      for (float value : diffSrc.values()) {
        assertEquals(phi.scale() * phi.slope(), value);
      }
    }
  }

  /** Of every path: direct, 1x1, Winograd, strided, few channels. */
  @TestFactory
  Stream<DynamicTest> conv2d() {
    return perTypeAndRectifier(
        "conv2d, not finite",
        (type, phi) -> {
          check(Conv2dDescriptor.same(2, 9, 9, 3, 8, 3, 1), type, phi);
          check(Conv2dDescriptor.same(2, 8, 8, 16, 16, 3, 1), type, phi);
          check(Conv2dDescriptor.same(1, 8, 8, 16, 24, 1, 1), type, phi);
          check(Conv2dDescriptor.same(1, 9, 9, 8, 8, 3, 2), type, phi);
          check(Conv2dDescriptor.same(3, 13, 12, 16, 32, 3, 2), type, phi);
        });
  }

  private void check(Conv2dDescriptor d, DataType type, Rectifier phi) {
    float[] ones = filled(d.src(), 1);
    float[] weights = filled(d.weights(), 0.125f);
    float[] bias = new float[d.oc()];
    int y = 4; // of image 0, channel 1
    int x = 3;
    float[] src = ones.clone();
    src[(y * d.w() + x) * d.ic() + 1] = NAN;
    String what = d + " " + type + " " + phi;
    IntPredicate seesPixel =
        i -> {
          int image = i / (d.oh() * d.ow() * d.oc());
          int top = i / (d.ow() * d.oc()) % d.oh() * d.strideH() - d.padTop();
          int left = i / d.oc() % d.ow() * d.strideW() - d.padLeft();
          return image == 0 && y >= top && y < top + d.kh() && x >= left && x < left + d.kw();
        };
    forward(what + ", NaN in src", d, type, phi, src, weights, bias, seesPixel);
    float[] badWeights = weights.clone();
    badWeights[3 * d.kh() * d.kw() * d.ic()] = NAN; // channel 3, the first tap
    forward(
        what + ", NaN in weights",
        d,
        type,
        phi,
        ones,
        badWeights,
        bias,
        i -> {
          int top = i / (d.ow() * d.oc()) % d.oh() * d.strideH() - d.padTop();
          int left = i / d.oc() % d.ow() * d.strideW() - d.padLeft();
          return i % d.oc() == 3 && top >= 0 && left >= 0;
        });
    float[] badBias = bias.clone();
    badBias[5] = NAN;
    forward(what + ", NaN in bias", d, type, phi, ones, weights, badBias, i -> i % d.oc() == 5);
    backward(what + ", NaN in diff_dst", d, type, phi);
  }

  private static float[] filled(Shape shape, float value) {
    float[] values = new float[(int) shape.elements()];
    Arrays.fill(values, value);
    return values;
  }

  private void forward(
      String what,
      Conv2dDescriptor d,
      DataType type,
      Rectifier phi,
      float[] src,
      float[] weights,
      float[] bias,
      IntPredicate where) {
    try (Trial trial = new Trial(backend, what);
        Conv2d op = backend.conv2d(d, type, phi, Rectifier.IDENTITY);
        PackedWeights packed = op.newPackedWeights()) {
      var x = trial.input("src", type, d.src(), Layout.NHWC, src);
      var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
      var b = trial.input("bias", DataType.F32, bias);
      var y = trial.output("dst", type, d.dst(), Layout.NHWC);
      trial.run(
          stream -> {
            op.pack(stream, w.tensor(), packed);
            op.forward(stream, x.tensor(), packed, b.tensor(), y.tensor());
          });
      requireNan(trial, "dst", y.values(), where);
    }
  }

  private void backward(String what, Conv2dDescriptor d, DataType type, Rectifier psi) {
    float[] src = filled(d.src(), -1); // where ReLU's derivative is 0
    float[] diff = filled(d.dst(), 1);
    int oy = d.oh() / 2;
    int ox = d.ow() / 2;
    diff[(oy * d.ow() + ox) * d.oc() + 2] = NAN;
    int top = oy * d.strideH() - d.padTop();
    int left = ox * d.strideW() - d.padLeft();
    try (Trial trial = new Trial(backend, what);
        Conv2d op = backend.conv2d(d, type, Rectifier.IDENTITY, psi);
        PackedWeights packed = op.newPackedWeights()) {
      var x = trial.input("src", type, d.src(), Layout.NHWC, src);
      var w =
          trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, filled(d.weights(), 1));
      var dy = trial.input("diff_dst", type, d.dst(), Layout.NHWC, diff);
      var dx = trial.output("diff_src", type, d.src(), Layout.NHWC);
      var dw = trial.output("diff_weights", DataType.F32, d.weights(), Layout.KRSC);
      var db = trial.output("diff_bias", DataType.F32, d.oc());
      trial.run(
          stream -> {
            op.pack(stream, w.tensor(), packed);
            op.backwardData(stream, dy.tensor(), packed, x.tensor(), dx.tensor(), Write.OVERWRITE);
            op.backwardWeights(
                stream, x.tensor(), dy.tensor(), dw.tensor(), db.tensor(), Write.OVERWRITE);
          });
      requireNan(
          trial,
          "diff_src",
          dx.values(),
          i -> {
            int image = i / (d.h() * d.w() * d.ic());
            int row = i / (d.w() * d.ic()) % d.h();
            int column = i / d.ic() % d.w();
            return image == 0
                && row >= top
                && row < top + d.kh()
                && column >= left
                && column < left + d.kw();
          });
      int perChannel = d.kh() * d.kw() * d.ic();
      requireNan(trial, "diff_weights", dw.values(), i -> i / perChannel == 2);
      requireNan(trial, "diff_bias", db.values(), i -> i == 2);
    }
  }

  @TestFactory
  Stream<DynamicTest> weightedSum() {
    return perTypeAndRectifier(
        "weighted sum, not finite",
        (type, phi) -> {
          try (Trial trial = new Trial(backend, "weighted sum " + phi + " " + type);
              WeightedSum op = backend.weightedSum(11, type, 0.6f, 0.8f, phi)) {
            float[] a = filled(Shape.of(11), -1);
            float[] b = filled(Shape.of(11), -1);
            a[4] = NAN;
            b[9] = NAN;
            var x = trial.input("a", type, a);
            var y = trial.input("b", type, b);
            var dst = trial.output("dst", type, 11);
            trial.run(stream -> op.forward(stream, x.tensor(), y.tensor(), dst.tensor()));
            requireNanJust(trial, "dst", dst.values(), i -> i == 4 || i == 9);
          }
        });
  }

  @TestFactory
  Stream<DynamicTest> pooling() {
    return perTypeAndRectifier(
        "pooling, not finite",
        (type, psi) -> {
          Shape shape = Shape.of(1, 6, 6, 8);
          float[] values = filled(shape, 1);
          values[(2 * 6 + 3) * 8 + 1] = NAN; // row 2, column 3, channel 1
          var d = MaxPool2dDescriptor.same(1, 6, 6, 8, 3, 2);
          try (Trial trial = new Trial(backend, "pooling " + psi + " " + type);
              MaxPool2d max = backend.maxPool2d(d, type, psi);
              GlobalMeanPool mean = backend.globalMeanPool(shape, type, psi)) {
            var src = trial.input("src", type, shape, Layout.NHWC, values);
            var maximum = trial.output("maximum", type, d.dst(), Layout.NHWC);
            var argmax = trial.output("argmax", DataType.U8, d.dst(), Layout.NHWC);
            var average = trial.output("mean", type, Shape.of(1, 1, 1, 8), Layout.NHWC);
            trial.run(
                stream -> {
                  max.forward(stream, src.tensor(), maximum.tensor(), argmax.tensor());
                  mean.forward(stream, src.tensor(), average.tensor());
                });
            requireNanJust(
                trial,
                "maximum",
                maximum.values(),
                i -> {
                  int top = i / (d.ow() * 8) * 2 - d.padBegin();
                  int left = i / 8 % d.ow() * 2 - d.padBegin();
                  return i % 8 == 1 && 2 >= top && 2 < top + 3 && 3 >= left && 3 < left + 3;
                });
            requireNanJust(trial, "mean", average.values(), i -> i == 1);
          }
        });
  }

  @TestFactory
  Stream<DynamicTest> softmaxCrossEntropy() {
    return tests(
        types().stream()
            .map(
                type ->
                    new Case(
                        "softmax, not finite " + type,
                        () -> {
                          try (Trial trial = new Trial(backend, "softmax " + type);
                              var op = backend.softmaxCrossEntropy(3, 5, type, 0.1f)) {
                            float[] x = filled(Shape.of(3, 5), 1);
                            x[7] = NAN; // of the second of three samples
                            Shape shape = Shape.of(3, 1, 1, 5);
                            var logits = trial.input("logits", type, shape, Layout.NHWC, x);
                            var labels = trial.input("labels", new int[] {0, 1, 2});
                            var diff = trial.output("diff_logits", type, shape, Layout.NHWC);
                            var losses = trial.output("losses", DataType.F32, 3);
                            var correct = trial.output("correct", DataType.I32, 3);
                            trial.run(
                                stream ->
                                    op.run(
                                        stream,
                                        logits.tensor(),
                                        labels.tensor(),
                                        1,
                                        diff.tensor(),
                                        losses.tensor(),
                                        correct.tensor()));
                            requireNanJust(trial, "losses", losses.values(), i -> i == 1);
                            requireNanJust(trial, "diff_logits", diff.values(), i -> i / 5 == 1);
                          }
                        })));
  }
}
