package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Drawn labels against the definition, worked out in binary64. */
class LabelDrawContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> theFirstClassThatReachesTheRandomNumber() {
    return tests(
        Stream.of(1, 2, 10, 32, 33, 100)
            .flatMap(
                classes ->
                    types().stream()
                        .map(
                            type ->
                                new Case(
                                    "label draw of " + classes + " " + type,
                                    () -> check(classes, type)))));
  }

  private void check(int classes, DataType type) {
    int n = 21;
    int first = 40;
    long seed = 0x123456789abcL;
    long sequence = 5_000_000_123L;
    SplittableRandom random = new SplittableRandom(classes);
    float[] logits = Data.normals(random, (long) n * classes, 2, type);
    int[] given = new int[n];
    given[4] = -1;
    try (Trial trial = new Trial(backend, classes + " " + type);
        LabelDraw draw = backend.labelDraw(n, classes, type)) {
      var x = trial.input("logits", type, Shape.of(n, 1, 1, classes), Layout.NHWC, logits);
      var g = trial.input("given", given);
      var number = trial.input("sequence", new int[] {(int) sequence, (int) (sequence >>> 32)});
      var labels = trial.output("labels", DataType.I32, n);
      trial.run(
          stream ->
              draw.run(
                  stream, x.tensor(), g.tensor(), seed, number.tensor(), first, labels.tensor()));
      int[] words = new int[4];
      for (int i = 0; i < n; i++) {
        int label = (int) labels.values()[i];
        if (given[i] == -1) {
          assertEquals(-1, label);
          continue;
        }
        assertTrue(label >= 0 && label < classes, "label " + label);
        double sum = 0;
        for (int c = 0; c < classes; c++) {
          sum += Math.exp(logits[i * classes + c]);
        }
        double before = 0;
        for (int c = 0; c < label; c++) {
          before += Math.exp(logits[i * classes + c]) / sum;
        }
        double reached = before + Math.exp(logits[i * classes + label]) / sum;
        Philox.block(seed, sequence, first + i, words);
        double u = Philox.uniform(words[0]);
        // Within the roundings of sums in binary64.
        assertTrue(before - 1e-12 <= u && u <= reached + 1e-12, before + ", " + u + ", " + reached);
      }
    }
  }

  @Test
  void logitsThatAreNotFiniteGiveSomeClass() {
    float[] logits = {
      Float.NaN, 1, 2, Float.POSITIVE_INFINITY, 0, 0, Float.NEGATIVE_INFINITY, 0, 0
    };
    try (Trial trial = new Trial(backend, "not finite");
        LabelDraw draw = backend.labelDraw(3, 3, DataType.F32)) {
      var x = trial.input("logits", DataType.F32, Shape.of(3, 1, 1, 3), Layout.NHWC, logits);
      var g = trial.input("given", new int[3]);
      var number = trial.input("sequence", new int[2]);
      var labels = trial.output("labels", DataType.I32, 3);
      trial.run(
          stream ->
              draw.run(stream, x.tensor(), g.tensor(), 1, number.tensor(), 0, labels.tensor()));
      for (float label : labels.values()) {
        assertTrue(label >= 0 && label < 3, "label " + label);
      }
      assertTrue(labels.values()[2] > 0, "a class of probability 0");
    }
  }

  @Test
  void unsuitableOperands() {
    assertThrows(
        IllegalArgumentException.class, () -> backend.labelDraw(2, 0, DataType.F32).close());
    Refusals refusals = new Refusals(backend);
    try (LabelDraw draw = backend.labelDraw(2, 3, DataType.F32);
        var stream = backend.newStream();
        Tensor x = backend.allocate(Shape.of(2, 1, 1, 3), DataType.F32, Layout.NHWC);
        Tensor given = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Tensor number = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Tensor labels = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR)) {
      refusals.require("logits", x, t -> draw.run(stream, t, given, 1, number, 0, labels));
      refusals.require("given", given, t -> draw.run(stream, x, t, 1, number, 0, labels));
      refusals.require("labels", labels, t -> draw.run(stream, x, given, 1, number, 0, t));
      refusals.requireElements(
          "sequence", number, t -> draw.run(stream, x, given, 1, t, 0, labels));
      Refusals.requireMessage(
          OperandException.class,
          () -> draw.run(stream, x, given, 1, labels, 0, labels),
          "overlap");
      Refusals.requireClosing(draw, () -> draw.run(stream, x, given, 1, number, 0, labels));
    }
  }
}
