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

/** The weighted sum with its rectifier, and the gradients of both sources. */
class WeightedSumContractTest extends Contract {
  @TestFactory
  Stream<DynamicTest> lengthsExact() {
    return tests(
        perLength(
            "weighted sum exact",
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
            "weighted sum",
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
      int length, DataType type, boolean exact, Rectifier phi, SplittableRandom random) {
    float weightA = exact ? pick(random, 0.5f, -0.25f, 1f) : (float) random.nextDouble(-1, 1);
    float weightB = exact ? pick(random, 0.5f, 2f) : (float) Math.sqrt(1 - weightA * weightA);
    Rectifier psi = exact ? pick(random, Data.EXACT) : pick(random, Data.REAL);
    Write write = pick(random, Write.values());
    int alias = random.nextInt(3); // dst is a tensor of its own, a, or b
    float[] a = Data.withZeros(random, values(random, length, type, exact), 0.1);
    float[] b = values(random, length, type, exact);
    float[] diffDst = values(random, length, type, exact);
    float[] oldA = values(random, length, type, exact);
    float[] oldB = values(random, length, type, exact);
    String description =
        String.format(
            "weighted sum %d %s %s*a + %s*b, phi %s, psi %s, %s, dst is %s",
            length, type, weightA, weightB, phi, psi, write, new String[] {"new", "a", "b"}[alias]);
    double[] y = new double[length];
    double[] magnitude = new double[length];
    for (int i = 0; i < length; i++) {
      double sum = (double) weightA * a[i] + (double) weightB * b[i];
      y[i] = Data.phi(phi, sum);
      double terms = Math.abs((double) weightA * a[i]) + Math.abs((double) weightB * b[i]);
      boolean dead = phi.slope() == 0 && sum <= 0 && exact;
      magnitude[i] = dead ? 0 : terms * phi.scale();
    }
    try (Trial trial = new Trial(backend, description);
        WeightedSum sum = backend.weightedSum(length, type, weightA, weightB, phi)) {
      var first = alias == 1 ? trial.inout("a", type, a) : trial.input("a", type, a);
      var second = alias == 2 ? trial.inout("b", type, b) : trial.input("b", type, b);
      var dst = alias == 1 ? first : alias == 2 ? second : trial.output("dst", type, length);
      trial.run(stream -> sum.forward(stream, first.tensor(), second.tensor(), dst.tensor()));
      if (exact) {
        trial.expectExactly(dst, y, magnitude);
      } else {
        // The sum's rounding in binary32 is relative to its terms.
        double[] bound = new double[length];
        for (int i = 0; i < length; i++) {
          bound[i] =
              1.5 * Data.epsilon(type) * Math.abs(y[i])
                  + 2 * Data.epsilon(DataType.F32) * magnitude[i]
                  + Data.epsilon(type) * Math.abs(y[i])
                  + Data.tiny(type);
        }
        trial.expectWithin(dst, y, bound);
      }
    }
    try (Trial trial = new Trial(backend, description + ", backward");
        WeightedSum sum = backend.weightedSum(length, type, weightA, weightB, phi)) {
      boolean inPlace = write == Write.OVERWRITE && random.nextBoolean();
      var first = trial.input("a", type, a);
      var second = trial.input("b", type, b);
      var dy =
          inPlace ? trial.inout("diff_dst", type, diffDst) : trial.input("diff_dst", type, diffDst);
      var da = trial.result("diff_a", type, write, oldA);
      var db = inPlace ? dy : trial.result("diff_b", type, write, oldB);
      trial.run(
          stream -> {
            sum.backwardA(stream, dy.tensor(), psi, first.tensor(), da.tensor(), write);
            sum.backwardB(stream, dy.tensor(), psi, second.tensor(), db.tensor(), write);
          });
      expectGradient(trial, da, weightA, diffDst, psi, a, oldA, write, exact);
      expectGradient(trial, db, weightB, diffDst, psi, b, oldB, write, exact);
    }
  }

  private static void expectGradient(
      Trial trial,
      Trial.Operand operand,
      float weight,
      float[] diffDst,
      Rectifier psi,
      float[] src,
      float[] old,
      Write write,
      boolean exact) {
    double[] expected = new double[src.length];
    double[] magnitude = new double[src.length];
    for (int i = 0; i < src.length; i++) {
      double slope = psi.isIdentity() ? 1 : Data.slopeAt(psi, src[i]);
      double before = write == Write.ACCUMULATE ? old[i] : 0;
      double term = (double) weight * diffDst[i];
      expected[i] = (before + term) * slope;
      magnitude[i] = (Math.abs(before) + Math.abs(term)) * slope;
    }
    if (exact) {
      trial.expectExactly(operand, expected, magnitude);
    } else {
      trial.expectRounded(operand, expected, magnitude);
    }
  }

  private static float[] values(SplittableRandom random, int length, DataType type, boolean exact) {
    return exact ? Data.integers(random, length, 8) : Data.normals(random, length, 1, type);
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Rectifier none = Rectifier.IDENTITY;
    try (WeightedSum sum = backend.weightedSum(12, DataType.F32, 0.6f, 0.8f, none);
        var stream = backend.newStream();
        Tensor x = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR);
        Tensor y = backend.allocate(Shape.of(12), DataType.F32, Layout.ROW_MAJOR)) {
      Write write = Write.OVERWRITE;
      refusals.requireElements("a", x, t -> sum.forward(stream, t, x, y));
      refusals.requireElements("b", x, t -> sum.forward(stream, x, t, y));
      refusals.requireElements("dst", x, t -> sum.forward(stream, x, x, t));
      refusals.requireElements("diff_dst", x, t -> sum.backwardA(stream, t, none, x, y, write));
      refusals.requireElements("diff_src", x, t -> sum.backwardB(stream, x, none, x, t, write));
      Refusals.requireClosing(sum, () -> sum.forward(stream, x, x, y));
    }
  }
}
