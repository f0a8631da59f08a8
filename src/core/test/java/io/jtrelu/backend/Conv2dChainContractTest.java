package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

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

/**
 * Two convolutions as one operation against their definitions one after the other, as whole numbers
 * (bit-exact) and as reals (bounded).
 */
class Conv2dChainContractTest extends Contract {
  /**
   * Sizes of a case.
   *
   * @param first reads src
   * @param second reads what the first writes
   */
  private record Pair(Conv2dDescriptor first, Conv2dDescriptor second) {
    static Pair pointwise(int n, int h, int w, int ic, int mid, int oc) {
      return new Pair(
          Conv2dDescriptor.of(n, h, w, ic, mid, 1, 1, 0),
          Conv2dDescriptor.of(n, h, w, mid, oc, 1, 1, 0));
    }
  }

  /** The sizes of a bottleneck network's first stage, around tiles of pixels; others. */
  private static final List<Pair> PAIRS =
      List.of(
          Pair.pointwise(1, 1, 1, 64, 256, 64),
          Pair.pointwise(0, 5, 6, 64, 256, 64),
          Pair.pointwise(2, 8, 8, 64, 256, 64), // a tile of 128 pixels
          Pair.pointwise(3, 7, 9, 64, 256, 64), // a tail
          Pair.pointwise(1, 33, 37, 64, 256, 64), // more tiles than multiprocessors
          Pair.pointwise(2, 3, 5, 8, 24, 16),
          Pair.pointwise(1, 4, 4, 5, 11, 3),
          new Pair(
              Conv2dDescriptor.of(2, 7, 6, 8, 12, 3, 2, 1),
              Conv2dDescriptor.of(2, 4, 3, 12, 8, 3, 1, 1)));

  @TestFactory
  Stream<DynamicTest> sizes() {
    List<Case> cases = new ArrayList<>();
    for (Pair pair : PAIRS) {
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = "chain " + pair.first() + " " + type + (exact ? " exact" : " real");
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(new Case(id, () -> check(pair, type, exact, random)));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomSizes() {
    return tests(
        random(
            "chain",
            0.3,
            random -> {
              int n = random.nextInt(1, 4);
              int h = random.nextInt(1, 12);
              int w = random.nextInt(1, 12);
              Pair pair =
                  random.nextBoolean()
                      ? Pair.pointwise(n, h, w, 64, 256, 64)
                      : Pair.pointwise(
                          n,
                          h,
                          w,
                          random.nextInt(1, 40),
                          random.nextInt(1, 60),
                          random.nextInt(1, 40));
              check(pair, pick(random, types()), random.nextBoolean(), random);
            }));
  }

  /** Values of a case, and what follows from them by the definition. */
  private static final class Numbers {
    final Pair pair;
    final DataType type;
    final Rectifier psi;
    final Rectifier phi;
    final Rectifier chi;
    final float[] src;
    final float[] weights1;
    final float[] bias1;
    final float[] weights2;
    final float[] bias2;
    final float[] diffDst;
    final Sums mid;
    final Sums dst;
    final Sums diffMid;
    final Sums diffSrc;
    final float[] midStored;
    final float[] diffMidStored;

    Numbers(Pair pair, DataType type, boolean exact, double density, SplittableRandom random) {
      this.pair = pair;
      this.type = type;
      Rectifier[] choice = exact ? Data.EXACT : Data.REAL;
      psi = pick(random, choice);
      phi = pick(random, choice);
      chi = pick(random, choice);
      Conv2dDescriptor d1 = pair.first();
      Conv2dDescriptor d2 = pair.second();
      src = values(random, exact, density, d1.src().elements(), 1, type);
      weights1 = values(random, exact, density, d1.weights().elements(), scale(d1), type);
      bias1 = values(random, exact, 1, d1.oc(), 0.5, DataType.F32);
      weights2 = values(random, exact, density, d2.weights().elements(), scale(d2), type);
      bias2 = values(random, exact, 1, d2.oc(), 0.5, DataType.F32);
      diffDst = values(random, exact, density, d2.dst().elements(), 1, type);
      mid = new NaiveConv2d(d1).forward(src, weights1, bias1);
      midStored = new float[mid.value().length];
      for (int i = 0; i < midStored.length; i++) {
        midStored[i] = Data.round(type, Data.phi(phi, mid.value()[i]));
      }
      dst = new NaiveConv2d(d2).forward(midStored, weights2, bias2);
      diffMid = new NaiveConv2d(d2).backwardData(diffDst, weights2);
      diffMidStored = new float[midStored.length];
      for (int i = 0; i < midStored.length; i++) {
        diffMidStored[i] = Data.round(type, diffMid.value()[i] * Data.slopeAt(phi, midStored[i]));
      }
      diffSrc = new NaiveConv2d(d1).backwardData(diffMidStored, weights1);
    }

    private static double scale(Conv2dDescriptor d) {
      return 1 / Math.sqrt((double) d.kh() * d.kw() * d.ic());
    }

    private static float[] values(
        SplittableRandom random,
        boolean exact,
        double density,
        long count,
        double factor,
        DataType type) {
      return exact
          ? Data.withZeros(random, Data.integers(random, count, 1), 1 - density)
          : Data.normals(random, count, factor, type);
    }

    /** Whether halves of halves of all that is stored are exact. */
    boolean isExact() {
      return largest(mid) <= Data.largestExact(type) / 8.0
          && largest(diffMid) <= Data.largestExact(type) / 8.0
          && largest(dst) <= Data.largestExact(type) / 8.0
          && largest(diffSrc) <= Data.largestExact(type) / 16.0;
    }

    private static double largest(Sums sums) {
      return Arrays.stream(sums.magnitude()).max().orElse(0);
    }

    /** What mid may be wrong by: its sum's error, and two roundings. */
    double[] midError() {
      double[] error = new double[midStored.length];
      for (int i = 0; i < error.length; i++) {
        error[i] =
            phi.scale() * Trial.SUM * Data.epsilon(DataType.F32) * mid.magnitude()[i]
                + Data.epsilon(type) * Math.abs(midStored[i])
                + Data.tiny(type);
      }
      return error;
    }

    /** The same of its gradient; where mid is next to zero, its sign may be the other one. */
    double[] diffMidError() {
      double[] error = new double[midStored.length];
      double[] midError = midError();
      for (int i = 0; i < error.length; i++) {
        double kink =
            Math.abs(midStored[i]) <= midError[i]
                ? phi.scale() * (1 + phi.slope()) * Math.abs(diffMid.value()[i])
                : 0;
        error[i] =
            kink
                + phi.scale() * Trial.SUM * Data.epsilon(DataType.F32) * diffMid.magnitude()[i]
                + Data.epsilon(type) * Math.abs(diffMidStored[i])
                + Data.tiny(type);
      }
      return error;
    }
  }

  /** As floats, not below. */
  private static float[] above(double[] values) {
    float[] above = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      above[i] = Math.nextUp((float) values[i]);
    }
    return above;
  }

  private void check(Pair pair, DataType type, boolean exact, SplittableRandom random) {
    if (!isThere(pair, type)) {
      assertFalse(backend.chains(pair.first(), pair.second(), type), "the backend says otherwise");
      return;
    }
    double density = exact ? 0.5 : 1;
    Numbers numbers = new Numbers(pair, type, exact, density, random);
    while (exact && !numbers.isExact()) {
      density *= 0.7;
      numbers = new Numbers(pair, type, true, density, random);
    }
    Write write = pick(random, Write.values());
    Write writeWeights = pick(random, Write.values());
    String description =
        String.format(
            "conv2d chain %s %s %s %s, psi %s, phi %s, chi %s, %s, %s",
            pair.first(),
            pair.second(),
            type,
            exact ? "exact" : "real",
            numbers.psi,
            numbers.phi,
            numbers.chi,
            write,
            writeWeights);
    try (Conv2d first = backend.conv2d(pair.first(), type, numbers.phi, numbers.psi);
        Conv2d second = backend.conv2d(pair.second(), type, numbers.chi, numbers.phi);
        PackedWeights packed1 = first.newPackedWeights();
        PackedWeights packed2 = second.newPackedWeights();
        Conv2dChain op = backend.conv2dChain(first, second);
        Trial trial = new Trial(backend, description)) {
      run(trial, op, packed1, packed2, numbers, exact, write, writeWeights, random);
    }
  }

  private boolean isThere(Pair pair, DataType type) {
    Rectifier none = Rectifier.IDENTITY;
    try (Conv2d first = backend.conv2d(pair.first(), type, none, none);
        Conv2d second = backend.conv2d(pair.second(), type, none, none)) {
      backend.conv2dChain(first, second).close();
      return true;
    } catch (UnsupportedException declined) {
      return false;
    }
  }

  private void run(
      Trial trial,
      Conv2dChain op,
      PackedWeights packed1,
      PackedWeights packed2,
      Numbers v,
      boolean exact,
      Write write,
      Write writeWeights,
      SplittableRandom random) {
    Conv2dDescriptor d1 = v.pair.first();
    Conv2dDescriptor d2 = v.pair.second();
    DataType type = v.type;
    var src = trial.input("src", type, d1.src(), Layout.NHWC, v.src);
    var w1 = trial.input("weights1", DataType.F32, d1.weights(), Layout.KRSC, v.weights1);
    var b1 = trial.input("bias1", DataType.F32, d1.bias(), Layout.ROW_MAJOR, v.bias1);
    var w2 = trial.input("weights2", DataType.F32, d2.weights(), Layout.KRSC, v.weights2);
    var b2 = trial.input("bias2", DataType.F32, d2.bias(), Layout.ROW_MAJOR, v.bias2);
    var diffDst = trial.input("diff_dst", type, d2.dst(), Layout.NHWC, v.diffDst);
    var dst = trial.output("dst", type, d2.dst(), Layout.NHWC);
    float[] oldSrc = Numbers.values(random, exact, 1, d1.src().elements(), 1, type);
    var diffSrc = trial.result("diff_src", type, d1.src(), Layout.NHWC, write, oldSrc);
    float[] old1 = Numbers.values(random, exact, 1, v.weights1.length, 1, DataType.F32);
    float[] old2 = Numbers.values(random, exact, 1, v.weights2.length, 1, DataType.F32);
    float[] oldBias1 = Numbers.values(random, exact, 1, d1.oc(), 1, DataType.F32);
    float[] oldBias2 = Numbers.values(random, exact, 1, d2.oc(), 1, DataType.F32);
    DataType f32 = DataType.F32;
    var diffW1 = trial.result("dw1", f32, d1.weights(), Layout.KRSC, writeWeights, old1);
    var diffB1 = trial.result("db1", f32, d1.bias(), Layout.ROW_MAJOR, writeWeights, oldBias1);
    var diffW2 = trial.result("dw2", f32, d2.weights(), Layout.KRSC, writeWeights, old2);
    var diffB2 = trial.result("db2", f32, d2.bias(), Layout.ROW_MAJOR, writeWeights, oldBias2);
    trial.run(
        stream -> {
          op.first().pack(stream, w1.tensor(), packed1);
          op.second().pack(stream, w2.tensor(), packed2);
          Conv2dChain.Weights ofFirst = new Conv2dChain.Weights(packed1, b1.tensor());
          op.forward(
              stream,
              src.tensor(),
              ofFirst,
              new Conv2dChain.Weights(packed2, b2.tensor()),
              dst.tensor());
          op.backward(
              stream,
              src.tensor(),
              diffDst.tensor(),
              ofFirst,
              packed2,
              diffSrc.tensor(),
              write,
              new Conv2dChain.Gradients(diffW1.tensor(), diffB1.tensor()),
              new Conv2dChain.Gradients(diffW2.tensor(), diffB2.tensor()),
              writeWeights);
        });
    double[] midError = v.midError();
    double[] diffMidError = v.diffMidError();
    NaiveConv2d naive1 = new NaiveConv2d(d1);
    NaiveConv2d naive2 = new NaiveConv2d(d2);
    double[] dstError =
        naive2.forward(above(midError), Data.absolute(v.weights2), new float[d2.oc()]).value();
    double[] expectedDst = new double[v.dst.value().length];
    for (int i = 0; i < expectedDst.length; i++) {
      expectedDst[i] = Data.phi(v.chi, v.dst.value()[i]);
      dstError[i] =
          v.chi.scale() * (dstError[i] + Trial.SUM * Data.epsilon(f32) * v.dst.magnitude()[i])
              + Data.epsilon(type) * Math.abs(expectedDst[i])
              + Data.tiny(type);
    }
    expect(trial, dst, exact, expectedDst, dstError);
    double[] srcError = naive1.backwardData(above(diffMidError), Data.absolute(v.weights1)).value();
    double[] expectedSrc = new double[v.src.length];
    for (int i = 0; i < expectedSrc.length; i++) {
      double old = write == Write.ACCUMULATE ? oldSrc[i] : 0;
      expectedSrc[i] = (v.diffSrc.value()[i] + old) * Data.slopeAt(v.psi, v.src[i]);
      srcError[i] =
          v.psi.scale()
                  * Math.max(1, v.psi.slope())
                  * (srcError[i] + Trial.SUM * Data.epsilon(f32) * (v.diffSrc.magnitude()[i] + 1))
              + 2 * Data.epsilon(type) * Math.abs(expectedSrc[i])
              + Data.tiny(type);
    }
    expect(trial, diffSrc, exact, expectedSrc, srcError);
    boolean adds = writeWeights == Write.ACCUMULATE;
    trial.expectSums(
        diffW1,
        exact,
        naive1.backwardWeights(v.src, v.diffMidStored),
        naive1.backwardWeights(Data.absolute(v.src), above(diffMidError)),
        adds ? old1 : null);
    trial.expectSums(
        diffB1,
        exact,
        naive1.backwardBias(v.diffMidStored),
        naive1.backwardBias(above(diffMidError)),
        adds ? oldBias1 : null);
    trial.expectSums(
        diffW2,
        exact,
        naive2.backwardWeights(v.midStored, v.diffDst),
        naive2.backwardWeights(above(midError), Data.absolute(v.diffDst)),
        adds ? old2 : null);
    trial.expectSums(
        diffB2, exact, naive2.backwardBias(v.diffDst), new Sums(d2.oc()), adds ? oldBias2 : null);
  }

  private static void expect(
      Trial trial, Trial.Operand operand, boolean exact, double[] expected, double[] bound) {
    if (exact) {
      trial.expectExactly(operand, expected);
    } else {
      trial.expectWithin(operand, expected, bound);
    }
  }

  /** Signs are those of dst, and by the signs of src comes what comes by src, bit for bit. */
  @TestFactory
  Stream<DynamicTest> signs() {
    return tests(random("chain signs", 0.1, this::checkSigns));
  }

  private void checkSigns(SplittableRandom random) {
    Pair pair = Pair.pointwise(2, random.nextInt(1, 12), random.nextInt(1, 12), 64, 256, 64);
    DataType type = pick(random, types());
    Write write = pick(random, Write.values());
    if (!isThere(pair, type)) {
      return;
    }
    Numbers v = new Numbers(pair, type, false, 1, random);
    Conv2dDescriptor d1 = pair.first();
    Conv2dDescriptor d2 = pair.second();
    try (Conv2d first = backend.conv2d(d1, type, v.phi, v.psi);
        Conv2d second = backend.conv2d(d2, type, v.chi, v.phi);
        PackedWeights packed1 = first.newPackedWeights();
        PackedWeights packed2 = second.newPackedWeights();
        Trial trial = new Trial(backend, "chain signs " + d1 + " " + type)) {
      if (!first.keepsSigns() || !second.keepsSigns()) {
        return;
      }
      float[] old = Data.normals(random, v.src.length, 1, type);
      v.src[0] = -0f;
      var src = trial.input("src", type, d1.src(), Layout.NHWC, v.src);
      var w1 = trial.input("weights1", DataType.F32, d1.weights(), Layout.KRSC, v.weights1);
      var b1 = trial.input("bias1", DataType.F32, d1.bias(), Layout.ROW_MAJOR, v.bias1);
      var w2 = trial.input("weights2", DataType.F32, d2.weights(), Layout.KRSC, v.weights2);
      var b2 = trial.input("bias2", DataType.F32, d2.bias(), Layout.ROW_MAJOR, v.bias2);
      var diffDst = trial.input("diff_dst", type, d2.dst(), Layout.NHWC, v.diffDst);
      byte[] bits = bits(v.src, d1.ic());
      var signs = trial.input("signs", DataType.U8, Conv2d.signs(d1.src()), Layout.ROW_MAJOR, bits);
      var dst = trial.output("dst", type, d2.dst(), Layout.NHWC);
      var dst2 = trial.output("dst with signs", type, d2.dst(), Layout.NHWC);
      var left = trial.output("signs left", DataType.U8, Conv2d.signs(d2.dst()), Layout.ROW_MAJOR);
      var diffSrc = trial.result("diff_src", type, d1.src(), Layout.NHWC, write, old);
      var diffSrc2 = trial.result("diff_src by signs", type, d1.src(), Layout.NHWC, write, old);
      DataType f32 = DataType.F32;
      var diffW1 = trial.output("dw1", f32, d1.weights(), Layout.KRSC);
      var diffB1 = trial.output("db1", f32, d1.bias(), Layout.ROW_MAJOR);
      var diffW2 = trial.output("dw2", f32, d2.weights(), Layout.KRSC);
      var diffB2 = trial.output("db2", f32, d2.bias(), Layout.ROW_MAJOR);
      try (Conv2dChain op = backend.conv2dChain(first, second)) {
        trial.run(
            on -> {
              first.pack(on, w1.tensor(), packed1);
              second.pack(on, w2.tensor(), packed2);
              var of1 = new Conv2dChain.Weights(packed1, b1.tensor());
              var of2 = new Conv2dChain.Weights(packed2, b2.tensor());
              var gradients1 = new Conv2dChain.Gradients(diffW1.tensor(), diffB1.tensor());
              var gradients2 = new Conv2dChain.Gradients(diffW2.tensor(), diffB2.tensor());
              op.forward(on, src.tensor(), of1, of2, dst.tensor());
              op.forwardWithSigns(on, src.tensor(), of1, of2, dst2.tensor(), left.tensor());
              op.backward(
                  on,
                  src.tensor(),
                  diffDst.tensor(),
                  of1,
                  packed2,
                  diffSrc.tensor(),
                  write,
                  gradients1,
                  gradients2,
                  Write.OVERWRITE);
              op.backwardBySigns(
                  on,
                  src.tensor(),
                  signs.tensor(),
                  diffDst.tensor(),
                  of1,
                  packed2,
                  diffSrc2.tensor(),
                  write,
                  gradients1,
                  gradients2,
                  Write.OVERWRITE);
            });
      }
      assertArrayEquals(dst.values(), dst2.values());
      assertArrayEquals(diffSrc.values(), diffSrc2.values());
      byte[] expected = bits(dst.values(), d2.oc());
      float[] actual = left.values();
      for (int i = 0; i < expected.length; i++) {
        assertEquals(Byte.toUnsignedInt(expected[i]), actual[i], "signs, byte " + i);
      }
    }
  }

  /** Bits as {@link Conv2d} lays them out. */
  private static byte[] bits(float[] values, int channels) {
    int pixels = values.length / channels;
    byte[] bytes = new byte[values.length / 8];
    for (int i = 0; i < values.length; i++) {
      int c = i % channels;
      if (values[i] > 0) {
        bytes[(c / 32 * pixels + i / channels) * 4 + c % 32 / 8] |= (byte) (1 << c % 8);
      }
    }
    return bytes;
  }

  @Test
  void refusals() {
    Pair pair = Pair.pointwise(2, 4, 4, 64, 256, 64);
    DataType type = types().getLast();
    Conv2dDescriptor d1 = pair.first();
    Conv2dDescriptor d2 = pair.second();
    Rectifier phi = Rectifier.tailored(0.3);
    Rectifier none = Rectifier.IDENTITY;
    Refusals refusals = new Refusals(backend);
    try (Conv2d first = backend.conv2d(d1, type, phi, none);
        Conv2d second = backend.conv2d(d2, type, none, phi);
        Conv2d other = backend.conv2d(d2, type, none, none)) {
      Conv2dChain op;
      try {
        op = backend.conv2dChain(first, second);
      } catch (UnsupportedException declined) {
        return;
      }
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.conv2dChain(first, other).close(),
          "must read what the first writes");
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.conv2dChain(first, first).close(),
          "must read what the first writes");
      try (op;
          PackedWeights packed1 = first.newPackedWeights();
          PackedWeights packed2 = second.newPackedWeights();
          var stream = backend.newStream();
          Tensor weights1 = backend.allocate(d1.weights(), DataType.F32, Layout.KRSC);
          Tensor weights2 = backend.allocate(d2.weights(), DataType.F32, Layout.KRSC);
          Tensor bias1 = backend.allocate(d1.bias(), DataType.F32, Layout.ROW_MAJOR);
          Tensor bias2 = backend.allocate(d2.bias(), DataType.F32, Layout.ROW_MAJOR);
          Tensor diffWeights1 = backend.allocate(d1.weights(), DataType.F32, Layout.KRSC);
          Tensor diffWeights2 = backend.allocate(d2.weights(), DataType.F32, Layout.KRSC);
          Tensor diffBias1 = backend.allocate(d1.bias(), DataType.F32, Layout.ROW_MAJOR);
          Tensor diffBias2 = backend.allocate(d2.bias(), DataType.F32, Layout.ROW_MAJOR);
          Tensor src = backend.allocate(d1.src(), type, Layout.NHWC);
          Tensor dst = backend.allocate(d2.dst(), type, Layout.NHWC);
          Tensor diffDst = backend.allocate(d2.dst(), type, Layout.NHWC);
          Tensor diffSrc = backend.allocate(d1.src(), type, Layout.NHWC)) {
        first.pack(stream, weights1, packed1);
        second.pack(stream, weights2, packed2);
        var of1 = new Conv2dChain.Weights(packed1, bias1);
        var of2 = new Conv2dChain.Weights(packed2, bias2);
        var gradients1 = new Conv2dChain.Gradients(diffWeights1, diffBias1);
        var gradients2 = new Conv2dChain.Gradients(diffWeights2, diffBias2);
        Write write = Write.OVERWRITE;
        refusals.require("src", src, t -> op.forward(stream, t, of1, of2, dst));
        refusals.require("dst", dst, t -> op.forward(stream, src, of1, of2, t));
        refusals.require(
            "bias1",
            bias1,
            t -> op.forward(stream, src, new Conv2dChain.Weights(packed1, t), of2, dst));
        refusals.require(
            "diff_src",
            diffSrc,
            t ->
                op.backward(
                    stream, src, diffDst, of1, packed2, t, write, gradients1, gradients2, write));
        refusals.require(
            "diff_weights2",
            diffWeights2,
            t ->
                op.backward(
                    stream,
                    src,
                    diffDst,
                    of1,
                    packed2,
                    diffSrc,
                    write,
                    gradients1,
                    new Conv2dChain.Gradients(t, diffBias2),
                    write));
        Refusals.requireMessage(
            OperandException.class,
            () ->
                op.backward(
                    stream, src, diffDst, of1, packed2, src, write, gradients1, gradients2, write),
            "overlap");
        Refusals.requireMessage(
            OperandException.class, () -> op.forward(stream, src, of1, of2, src), "overlap");
        Refusals.requireClosing(op, () -> op.forward(stream, src, of1, of2, dst));
      }
    }
  }
}
