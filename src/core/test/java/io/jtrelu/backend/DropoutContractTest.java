package io.jtrelu.backend;

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

/** Dropout: the mask of the generator, both directions, in place and not. */
class DropoutContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> namedLengths() {
    return tests(
        perLength("dropout", (length, type, random) -> check(length, type, true, 0.5f, random)));
  }

  @TestFactory
  Stream<DynamicTest> randomReals() {
    return tests(
        random(
            "dropout",
            0.2,
            random ->
                check(
                    randomLength(random),
                    pick(random, types()),
                    false,
                    pick(random, 0f, 0.1f, 0.25f, 0.9f),
                    random)));
  }

  private void check(
      int length, DataType type, boolean exact, float rate, SplittableRandom random) {
    long seed = random.nextLong();
    // Streams beyond 2^32 use the upper word of the counter.
    long sequence = random.nextBoolean() ? random.nextInt(10) : random.nextLong();
    Write write = pick(random, Write.values());
    boolean inPlace = random.nextBoolean();
    float[] src = values(random, length, type, exact);
    float[] diffDst = values(random, length, type, exact);
    float[] old = values(random, length, type, exact);
    double[] y = new double[length];
    double[] magnitude = new double[length];
    double[] gradient = new double[length];
    double[] gradientMagnitude = new double[length];
    int[] words = new int[4];
    for (int i = 0; i < length; i++) {
      Philox.block(seed, sequence, i >> 2, words);
      double factor = Philox.uniform(words[i & 3]) >= rate ? 1 / (1 - (double) rate) : 0;
      double before = write == Write.ACCUMULATE ? old[i] : 0;
      y[i] = src[i] * factor;
      magnitude[i] = Math.abs(y[i]);
      gradient[i] = before + diffDst[i] * factor;
      gradientMagnitude[i] = Math.abs(before) + Math.abs(diffDst[i] * factor);
    }
    String description =
        String.format(
            "dropout %d %s rate %s seed %d sequence %d %s%s",
            length, type, rate, seed, sequence, write, inPlace ? " in place" : "");
    try (Trial trial = new Trial(backend, description);
        Dropout dropout = backend.dropout(length, type, rate)) {
      var x = inPlace ? trial.inout("src", type, src) : trial.input("src", type, src);
      var dst = inPlace ? x : trial.output("dst", type, length);
      boolean gradientInPlace = inPlace && write == Write.OVERWRITE;
      var dy =
          gradientInPlace
              ? trial.inout("diff_dst", type, diffDst)
              : trial.input("diff_dst", type, diffDst);
      var dx = gradientInPlace ? dy : trial.result("diff_src", type, write, old);
      var number = number(trial, sequence);
      trial.run(
          stream -> {
            dropout.forward(stream, x.tensor(), dst.tensor(), seed, number.tensor());
            dropout.backward(stream, dy.tensor(), dx.tensor(), seed, number.tensor(), write);
          });
      if (exact) {
        trial.expectExactly(dst, y, magnitude);
        trial.expectExactly(dx, gradient, gradientMagnitude);
      } else {
        trial.expectRounded(dst, y, magnitude);
        trial.expectRounded(dx, gradient, gradientMagnitude);
      }
    }
  }

  /** A sequence number on the device: low word first. */
  private static Trial.Operand number(Trial trial, long sequence) {
    return trial.input("sequence", new int[] {(int) sequence, (int) (sequence >>> 32)});
  }

  private static float[] values(SplittableRandom random, int length, DataType type, boolean exact) {
    return exact ? Data.integers(random, length, 32) : Data.normals(random, length, 1, type);
  }

  /** The kept share is binomial, and another seed or sequence gives another mask. */
  @Test
  void shareAndIndependence() {
    int length = Math.min(20_000, subject.largestVector());
    float rate = 0.3f;
    float[] ones = new float[length];
    java.util.Arrays.fill(ones, 1);
    try (Trial trial = new Trial(backend, "dropout of ones");
        Dropout dropout = backend.dropout(length, DataType.F32, rate)) {
      var x = trial.input("src", DataType.F32, ones);
      var a = trial.output("dst", DataType.F32, length);
      var b = trial.output("dst of another seed", DataType.F32, length);
      var c = trial.output("dst of another sequence", DataType.F32, length);
      Tensor zero = number(trial, 0).tensor();
      Tensor one = number(trial, 1).tensor();
      trial.run(
          stream -> {
            dropout.forward(stream, x.tensor(), a.tensor(), 1, zero);
            dropout.forward(stream, x.tensor(), b.tensor(), 2, zero);
            dropout.forward(stream, x.tensor(), c.tensor(), 1, one);
          });
      float[][] masks = {a.values(), b.values(), c.values()};
      double deviation = Math.sqrt(length * rate * (1.0 - rate));
      for (float[] mask : masks) {
        int dropped = 0;
        for (float value : mask) {
          dropped += value == 0 ? 1 : 0;
        }
        assertTrue(
            Math.abs(dropped - length * (double) rate) < 5 * deviation,
            dropped + " of " + length + " dropped");
      }
      // Two independent masks agree on p^2 + (1-p)^2 of the elements.
      double share = rate * rate + (1.0 - rate) * (1.0 - rate);
      for (int other = 1; other < 3; other++) {
        int agree = 0;
        for (int i = 0; i < length; i++) {
          agree += (masks[0][i] == 0) == (masks[other][i] == 0) ? 1 : 0;
        }
        assertTrue(
            Math.abs(agree - length * share) < 5 * Math.sqrt(length * share * (1 - share)),
            agree + " of " + length + " agree");
      }
    }
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    try (Dropout dropout = backend.dropout(12, DataType.F32, 0.5f);
        var stream = backend.newStream();
        Tensor x = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor n = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR)) {
      Write write = Write.OVERWRITE;
      refusals.requireElements("src", x, t -> dropout.forward(stream, t, x, 1, n));
      refusals.requireElements("dst", x, t -> dropout.forward(stream, x, t, 1, n));
      refusals.requireElements("diff_dst", x, t -> dropout.backward(stream, t, x, 1, n, write));
      refusals.requireElements("diff_src", x, t -> dropout.backward(stream, x, t, 1, n, write));
      refusals.requireElements("sequence", n, t -> dropout.forward(stream, x, x, 1, t));
      refusals.requireElements("sequence", n, t -> dropout.backward(stream, x, x, 1, t, write));
      for (float rate : new float[] {1, -0.1f, Float.NaN}) {
        Refusals.requireMessage(
            IllegalArgumentException.class,
            () -> backend.dropout(12, DataType.F32, rate).close(),
            "rate",
            Float.toString(rate));
      }
      Refusals.requireClosing(dropout, () -> dropout.forward(stream, x, x, 1, n));
    }
  }
}
