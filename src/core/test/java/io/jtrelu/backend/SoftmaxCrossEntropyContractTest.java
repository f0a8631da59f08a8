package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Loss, gradient and hits of softmax cross-entropy. */
class SoftmaxCrossEntropyContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> sizes() {
    List<Case> cases = new ArrayList<>();
    // Classes each side of a warp, a block and their multiples; 10, 100 and 1000 are real ones.
    for (int classes : new int[] {1, 2, 3, 10, 16, 17, 31, 32, 33, 64, 65, 100, 257, 1000, 1025}) {
      for (int n : new int[] {0, 1, 2, 33}) {
        for (DataType type : types()) {
          String id = "softmax " + n + "x" + classes + " " + type;
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(new Case(id, () -> check(n, classes, type, random)));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomSizes() {
    return tests(
        random(
            "softmax",
            0.2,
            random ->
                check(
                    random.nextInt(1, 40), random.nextInt(1, 200), pick(random, types()), random)));
  }

  private void check(int n, int classes, DataType type, SplittableRandom random) {
    float smoothing = pick(random, 0f, 0.1f, 0.5f);
    float scale = pick(random, 1f, 1f / Math.max(1, n), -2f);
    boolean inPlace = random.nextBoolean();
    float[] logits = Data.normals(random, (long) n * classes, 3, type);
    float[] labels = new float[n];
    for (int i = 0; i < n; i++) {
      labels[i] = random.nextInt(5) == 0 ? -1 : random.nextInt(classes);
    }
    double[] loss = new double[n];
    double[] lossBound = new double[n];
    double[] correct = new double[n];
    double[] gradient = new double[n * classes];
    double[] gradientBound = new double[n * classes];
    for (int i = 0; i < n; i++) {
      int label = (int) labels[i];
      if (label < 0) {
        continue;
      }
      double[] p = probabilities(logits, i, classes);
      double largest = 0;
      int first = 0;
      for (int k = 0; k < classes; k++) {
        float logit = logits[i * classes + k];
        largest = Math.max(largest, Math.abs(logit));
        first = logit > logits[i * classes + first] ? k : first;
        double target = target(k, label, classes, smoothing);
        loss[i] -= target * Math.log(p[k]);
        gradient[i * classes + k] = scale * (p[k] - target);
      }
      // An error of a few roundings in an exponent is a relative error of the exponential.
      double error = 8 * Data.epsilon(DataType.F32) * (1 + largest);
      lossBound[i] = error * (1 + loss[i]);
      correct[i] = first == label ? 1 : 0;
      for (int k = 0; k < classes; k++) {
        double target = target(k, label, classes, smoothing);
        gradientBound[i * classes + k] =
            Math.abs(scale) * error * (p[k] + target)
                + Data.epsilon(type) * Math.abs(gradient[i * classes + k])
                + Data.tiny(type);
      }
    }
    String description =
        String.format(
            "softmax %dx%d %s smoothing %s scale %s%s",
            n, classes, type, smoothing, scale, inPlace ? " in place" : "");
    try (Trial trial = new Trial(backend, description);
        SoftmaxCrossEntropy softmax = backend.softmaxCrossEntropy(n, classes, type, smoothing)) {
      Shape shape = Shape.of(n, 1, 1, classes);
      var x =
          inPlace
              ? trial.inout("logits", type, shape, Layout.NHWC, logits)
              : trial.input("logits", type, shape, Layout.NHWC, logits);
      var dx = inPlace ? x : trial.output("diff_logits", type, shape, Layout.NHWC);
      var label = trial.input("labels", DataType.I32, labels);
      var losses = trial.output("losses", DataType.F32, n);
      var hits = trial.output("correct", DataType.I32, n);
      trial.run(
          stream ->
              softmax.run(
                  stream,
                  x.tensor(),
                  label.tensor(),
                  scale,
                  dx.tensor(),
                  losses.tensor(),
                  hits.tensor()));
      trial.expectWithin(losses, loss, lossBound);
      trial.expectWithin(dx, gradient, gradientBound);
      trial.expectExactly(hits, correct);
    }
  }

  /** exp(x) / sum exp(x), without a shift: the logits of the tests are small. */
  private static double[] probabilities(float[] logits, int row, int classes) {
    double[] p = new double[classes];
    double sum = 0;
    for (int k = 0; k < classes; k++) {
      p[k] = Math.exp(logits[row * classes + k]);
      sum += p[k];
    }
    for (int k = 0; k < classes; k++) {
      p[k] /= sum;
    }
    return p;
  }

  private static double target(int k, int label, int classes, float smoothing) {
    return (k == label ? 1 - (double) smoothing : 0) + (double) smoothing / classes;
  }

  /** What one row gives. */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Row(float[] gradient, float loss, float correct) {}

  private Row row(float[] logits, int label, float smoothing) {
    int classes = logits.length;
    try (Trial trial = new Trial(backend, "softmax of one row");
        SoftmaxCrossEntropy softmax =
            backend.softmaxCrossEntropy(1, classes, DataType.F32, smoothing)) {
      Shape shape = Shape.of(1, 1, 1, classes);
      var x = trial.input("logits", DataType.F32, shape, Layout.NHWC, logits);
      var dx = trial.output("diff_logits", DataType.F32, shape, Layout.NHWC);
      var labels = trial.input("labels", DataType.I32, new float[] {label});
      var losses = trial.output("losses", DataType.F32, 1);
      var hits = trial.output("correct", DataType.I32, 1);
      trial.run(
          stream ->
              softmax.run(
                  stream,
                  x.tensor(),
                  labels.tensor(),
                  1,
                  dx.tensor(),
                  losses.tensor(),
                  hits.tensor()));
      return new Row(dx.values(), losses.values()[0], hits.values()[0]);
    }
  }

  /** The gradient is that of the loss: central differences of the loss in binary64. */
  @Test
  void gradientIsThatOfTheLoss() {
    SplittableRandom random = new SplittableRandom(5);
    for (float smoothing : new float[] {0, 0.1f}) {
      float[] logits = Data.normals(random, 7, 2, DataType.F32);
      Row row = row(logits, 3, smoothing);
      for (int k = 0; k < logits.length; k++) {
        double step = 1e-5;
        double difference =
            (loss(logits, k, step, 3, smoothing) - loss(logits, k, -step, 3, smoothing))
                / (2 * step);
        assertTrue(
            Math.abs(row.gradient[k] - difference) <= 1e-6,
            "d/dx" + k + " is " + row.gradient[k] + ", differences give " + difference);
      }
    }
  }

  private static double loss(float[] logits, int moved, double step, int label, float smoothing) {
    double sum = 0;
    double expected = 0;
    for (int k = 0; k < logits.length; k++) {
      double x = logits[k] + (k == moved ? step : 0);
      sum += Math.exp(x);
      expected += target(k, label, logits.length, smoothing) * x;
    }
    return Math.log(sum) - expected;
  }

  /** Two equal logits: p = 1/2, loss ln 2, and the first of them is the hit. */
  @Test
  void byHand() {
    Row first = row(new float[] {4, 4}, 0, 0);
    assertTrue(Math.abs(first.loss - Math.log(2)) <= 1e-6, "loss is " + first.loss);
    assertArrayEquals(new float[] {-0.5f, 0.5f}, first.gradient, 1e-6f);
    assertTrue(first.correct == 1, "the first largest logit is the label");
    assertTrue(row(new float[] {4, 4}, 1, 0).correct == 0, "the label is not the first largest");
  }

  /** Huge logits neither overflow nor lose the loss. */
  @Test
  void hugeLogits() {
    Row right = row(new float[] {10_000, -10_000, 0}, 0, 0);
    assertTrue(right.loss == 0 && right.correct == 1, "loss is " + right.loss);
    assertArrayEquals(new float[] {0, 0, 0}, right.gradient);
    Row wrong = row(new float[] {10_000, -10_000, 0}, 2, 0);
    assertTrue(wrong.loss == 10_000 && wrong.correct == 0, "loss is " + wrong.loss);
    assertArrayEquals(new float[] {1, 0, -1}, wrong.gradient);
  }

  /** A loss that is not finite makes the row's whole gradient NaN; other rows are as ever. */
  @Test
  void lossNotFinite() {
    float infinity = Float.POSITIVE_INFINITY;
    for (DataType type : types()) {
      for (float[] logits :
          new float[][] {
            {-infinity, 1, 2}, // the label is impossible: the loss is infinite, the softmax finite
            {infinity, 1, 2},
            {1, infinity, 2},
            {Float.NaN, 1, 2},
            {1, 2, Float.NaN}
          }) {
        try (Trial trial = new Trial(backend, "softmax of " + Arrays.toString(logits));
            SoftmaxCrossEntropy softmax = backend.softmaxCrossEntropy(2, 3, type, 0)) {
          float[] rows = Arrays.copyOf(logits, 6); // and a row of zeros
          var x = trial.inout("logits", type, Shape.of(2, 1, 1, 3), Layout.NHWC, rows);
          var labels = trial.input("labels", DataType.I32, new float[] {0, 1});
          var losses = trial.output("losses", DataType.F32, 2);
          var hits = trial.output("correct", DataType.I32, 2);
          trial.run(
              stream ->
                  softmax.run(
                      stream,
                      x.tensor(),
                      labels.tensor(),
                      3,
                      x.tensor(),
                      losses.tensor(),
                      hits.tensor()));
          assertTrue(!Float.isFinite(losses.values()[0]), "loss is " + losses.values()[0]);
          float[] gradient = x.values();
          for (int k = 0; k < 3; k++) {
            assertTrue(Float.isNaN(gradient[k]), "gradient " + Arrays.toString(gradient));
          }
          float[] other = Arrays.copyOfRange(gradient, 3, 6);
          assertArrayEquals(new float[] {1, -2, 1}, other, 0.01f);
        }
      }
    }
  }

  /** A label that is no class gives a loss of NaN, which the training loop notices. */
  @Test
  void labelOutOfRange() {
    for (int label : new int[] {3, 1_000_000, -2, Integer.MIN_VALUE}) {
      Row row = row(new float[] {1, 2, 3}, label, 0.1f);
      assertTrue(Float.isNaN(row.loss), "loss of label " + label + " is " + row.loss);
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(2, 1, 1, 3);
    try (SoftmaxCrossEntropy softmax = backend.softmaxCrossEntropy(2, 3, DataType.F32, 0.1f);
        var stream = backend.newStream();
        Tensor x = backend.allocate(shape, DataType.F32, Layout.NHWC);
        Tensor labels = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Tensor losses = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor hits = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR)) {
      refusals.require("logits", x, t -> softmax.run(stream, t, labels, 1, x, losses, hits));
      refusals.require("labels", labels, t -> softmax.run(stream, x, t, 1, x, losses, hits));
      refusals.require("diff_logits", x, t -> softmax.run(stream, x, labels, 1, t, losses, hits));
      refusals.require("losses", losses, t -> softmax.run(stream, x, labels, 1, x, t, hits));
      refusals.require("correct", hits, t -> softmax.run(stream, x, labels, 1, x, losses, t));
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.softmaxCrossEntropy(2, 3, DataType.F32, 1).close(),
          "smoothing");
      Refusals.requireClosing(softmax, () -> softmax.run(stream, x, labels, 1, x, losses, hits));
    }
  }
}
