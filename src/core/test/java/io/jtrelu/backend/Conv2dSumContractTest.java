package io.jtrelu.backend;

import io.jtrelu.backend.NaiveConv2d.Sums;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** The convolution with a normalised sum behind it, as whole numbers and as reals. */
class Conv2dSumContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> edgeShapes() {
    List<Case> cases = new ArrayList<>();
    for (ShapeFile shape : ShapeFile.read("edges")) {
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = "sum " + shape.name() + " " + type + (exact ? " exact" : " real");
          cases.add(
              new Case(
                  id,
                  () ->
                      check(shape.descriptor(), type, exact, new SplittableRandom(id.hashCode()))));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "conv2d sum",
            0.5,
            random ->
                check(
                    Conv2dContractTest.randomDescriptor(random, subject.largestConvolution()),
                    pick(random, types()),
                    random.nextBoolean(),
                    random)));
  }

  private void check(Conv2dDescriptor d, DataType type, boolean exact, SplittableRandom random) {
    if (subject.declines(d, type)) {
      return; // the convolution is refused: Conv2dContractTest
    }
    Rectifier phi = pick(random, exact ? Data.EXACT : Data.REAL);
    float shortcutWeight = exact ? pick(random, 2f, -1f) : (float) random.nextDouble(0.1, 1);
    float branchWeight = exact ? pick(random, 0.5f, 1f) : (float) random.nextDouble(-1, 1);
    double terms = (double) d.kh() * d.kw() * d.ic() / d.groups();
    float[] src =
        exact
            ? Data.integers(random, d.src().elements(), 2)
            : Data.normals(random, d.src().elements(), 1, type);
    float[] bias =
        exact ? Data.integers(random, d.oc(), 4) : Data.normals(random, d.oc(), 0.5, DataType.F32);
    float[] shortcut =
        exact
            ? Data.integers(random, d.dst().elements(), 4)
            : Data.normals(random, d.dst().elements(), 1, type);
    // Whole numbers up to a quarter of what is exact: a half and a slope of a half follow.
    double limit = Data.largestExact(type) / 4.0;
    double density = Math.min(1, limit / terms);
    float[] weights;
    Sums sums;
    do {
      weights =
          exact
              ? Data.withZeros(
                  random, Data.integers(random, d.weights().elements(), 1), 1 - density)
              : Data.normals(random, d.weights().elements(), 1 / Math.sqrt(terms), type);
      sums = new NaiveConv2d(d).forward(src, weights, bias);
      density /= 2;
    } while (exact && Arrays.stream(sums.magnitude()).max().orElse(0) > limit);
    double[] expected = new double[shortcut.length];
    double[] magnitude = new double[shortcut.length];
    double[] bound = new double[shortcut.length];
    double[] transforms =
        subject.roundsTransforms(backend, d, type)
            ? new RoundedTransforms(d).forward(src, weights)
            : new double[shortcut.length];
    for (int i = 0; i < expected.length; i++) {
      double branch = branchWeight * sums.value()[i];
      double sum = branch + (double) shortcutWeight * shortcut[i];
      expected[i] = Data.phi(phi, sum);
      boolean dead = expected[i] == 0 && phi.slope() == 0;
      magnitude[i] =
          dead && exact ? 0 : sums.magnitude()[i] + Math.abs(shortcutWeight * shortcut[i]);
      double arithmetic =
          4 * Data.epsilon(DataType.F32) * (sums.magnitude()[i] + Math.abs(shortcut[i]));
      // The convolution's result may be rounded to the type, and the sum is.
      double storage = Data.epsilon(type) * (Math.abs(branch) + 1.5 * Math.abs(sum));
      double rounding = Math.abs(branchWeight) * transforms[i];
      bound[i] = (arithmetic + storage + rounding) * phi.scale() + Data.tiny(type);
    }
    String description =
        String.format(
            "conv2d sum %s %s %s, phi %s, weights %s and %s",
            d, type, exact ? "exact" : "real", phi, branchWeight, shortcutWeight);
    Rectifier none = Rectifier.IDENTITY;
    try (Trial trial = new Trial(backend, description);
        Conv2d conv = backend.conv2d(d, type, none, none);
        PackedWeights packed = conv.newPackedWeights();
        Conv2dSum op = backend.conv2dSum(conv, shortcutWeight, branchWeight, phi)) {
      var x = trial.input("src", type, d.src(), Layout.NHWC, src);
      var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
      var b = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, bias);
      var s = trial.input("shortcut", type, d.dst(), Layout.NHWC, shortcut);
      var y = trial.output("dst", type, d.dst(), Layout.NHWC);
      trial.run(
          stream -> {
            conv.pack(stream, w.tensor(), packed);
            op.forward(stream, x.tensor(), packed, b.tensor(), s.tensor(), y.tensor());
          });
      if (exact) {
        trial.expectExactly(y, expected, magnitude);
      } else {
        trial.expectWithin(y, expected, bound);
      }
    }
  }

  @Test
  void refusals() {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 4, 4, 3, 3, 3, 1, 1);
    Refusals refusals = new Refusals(backend);
    Rectifier none = Rectifier.IDENTITY;
    try (Conv2d conv = backend.conv2d(d, DataType.F32, none, none);
        Conv2d active = backend.conv2d(d, DataType.F32, Rectifier.tailored(0.3), none);
        PackedWeights packed = conv.newPackedWeights();
        var stream = backend.newStream();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor shortcut = backend.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC)) {
      Conv2dSum op = backend.conv2dSum(conv, 0.6f, 0.8f, none);
      conv.pack(stream, weights, packed);
      refusals.require("src", src, t -> op.forward(stream, t, packed, bias, shortcut, dst));
      refusals.require("bias", bias, t -> op.forward(stream, src, packed, t, shortcut, dst));
      refusals.require("shortcut", shortcut, t -> op.forward(stream, src, packed, bias, t, dst));
      refusals.require("dst", dst, t -> op.forward(stream, src, packed, bias, shortcut, t));
      for (Tensor overlapping : List.of(src, shortcut)) {
        Refusals.requireMessage(
            OperandException.class,
            () -> op.forward(stream, src, packed, bias, shortcut, overlapping),
            "overlap");
      }
      Refusals.requireClosing(op, () -> op.forward(stream, src, packed, bias, shortcut, dst));
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.conv2dSum(active, 0.6f, 0.8f, none).close(),
          "activation");
    }
  }
}
