package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.NaiveConv2d.Sums;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Convolution against the definition, as whole numbers (bit-exact) and as reals (bounded). */
class Conv2dContractTest extends Contract {
  /** Rounding errors of a sum, in units of the binary32 epsilon times the sum of its |terms|. */
  private static final double SUM = 4;

  /** Roundings of a stored value (sum, accumulated value, gated value), in units of epsilon. */
  private static final double STORE = 1.5;

  /** Everything that a case depends on. */
  record Setting(
      Conv2dDescriptor descriptor,
      DataType type,
      boolean exact,
      Rectifier activation,
      Rectifier srcActivation,
      Write write,
      boolean inPlace,
      boolean positive,
      long seed) {
    @Override
    public String toString() {
      return String.format(
          Locale.ROOT,
          "conv2d %s %s %s, activation %s, source's %s, %s%s",
          descriptor,
          type,
          exact ? "exact" : positive ? "positive" : "real",
          activation,
          srcActivation,
          write,
          inPlace ? ", diff_src is src" : "");
    }
  }

  @TestFactory
  Stream<DynamicTest> edgeShapes() {
    return tests(shapes("edges", ShapeFile.read("edges")));
  }

  @TestFactory
  Stream<DynamicTest> plain50Shapes() {
    return tests(
        shapes(
            "plain50",
            ShapeFile.read("plain50").stream()
                .map(shape -> new ShapeFile(shape.name(), shape.descriptor().withBatch(1)))
                .filter(
                    shape -> shape.descriptor().multiplyAdds() <= 4 * subject.largestConvolution())
                .toList()));
  }

  /** ResNet-50's convolutions at a seventh of the image's extent. */
  @TestFactory
  Stream<DynamicTest> resnet50Shapes() {
    return tests(
        shapes(
            "resnet50",
            ShapeFile.read("resnet50").stream()
                .map(shape -> new ShapeFile(shape.name(), seventh(shape.descriptor())))
                .filter(shape -> shape.descriptor().multiplyAdds() <= subject.largestConvolution())
                .toList()));
  }

  private static Conv2dDescriptor seventh(Conv2dDescriptor d) {
    return new Conv2dDescriptor(
        1,
        Math.ceilDiv(d.h(), 7),
        Math.ceilDiv(d.w(), 7),
        d.ic(),
        d.oc(),
        d.kh(),
        d.kw(),
        d.strideH(),
        d.strideW(),
        d.padTop(),
        d.padLeft(),
        d.padBottom(),
        d.padRight(),
        d.dilationH(),
        d.dilationW(),
        d.groups());
  }

  private Stream<Case> shapes(String set, List<ShapeFile> shapes) {
    List<Case> cases = new ArrayList<>();
    for (ShapeFile shape : shapes) {
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = set + " " + shape.name() + " " + type + (exact ? " exact" : " real");
          SplittableRandom random = new SplittableRandom(id.hashCode());
          Setting setting = setting(shape.descriptor(), type, exact, random);
          cases.add(new Case(id, () -> check(setting)));
        }
      }
    }
    return cases.stream();
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "conv2d",
            1,
            random -> {
              Conv2dDescriptor d = randomDescriptor(random, subject.largestConvolution());
              check(setting(d, pick(random, types()), random.nextBoolean(), random));
            }));
  }

  /** A convolution that leaves and reads signs gives what it gives without, bit for bit. */
  @TestFactory
  Stream<DynamicTest> signs() {
    return tests(random("signs", 0.3, this::checkSigns));
  }

  private void checkSigns(SplittableRandom random) {
    Conv2dDescriptor any = randomDescriptor(random, subject.largestConvolution() / 16);
    int ic = 32 * random.nextInt(1, 4);
    int oc = 32 * random.nextInt(1, 4);
    Conv2dDescriptor d =
        new Conv2dDescriptor(
            any.n(),
            any.h(),
            any.w(),
            ic,
            oc,
            any.kh(),
            any.kw(),
            any.strideH(),
            any.strideW(),
            any.padTop(),
            any.padLeft(),
            any.padBottom(),
            any.padRight(),
            any.dilationH(),
            any.dilationW(),
            1);
    DataType type = pick(random, types());
    if (subject.declines(d, type) || d.multiplyAdds() > subject.largestConvolution()) {
      return;
    }
    Rectifier phi = pick(random, Data.REAL);
    Rectifier psi = pick(random, Data.REAL);
    Write write = pick(random, Write.values());
    float[] x = Data.withZeros(random, Data.normals(random, d.src().elements(), 1, type), 0.1);
    if (x.length > 2) {
      x[0] = -0f;
      x[1] = Float.NaN;
      x[2] = Float.POSITIVE_INFINITY;
    }
    try (Trial trial = new Trial(backend, "signs " + d + " " + type + " " + write);
        Conv2d conv = backend.conv2d(d, type, phi, psi);
        PackedWeights packed = conv.newPackedWeights()) {
      if (!conv.keepsSigns()) {
        assertFalse(backend.keepsSigns(d, type), "the backend says otherwise");
        return;
      }
      float[] w = Data.normals(random, d.weights().elements(), 0.1, type);
      float[] b = Data.normals(random, d.oc(), 0.5, DataType.F32);
      float[] dy = Data.normals(random, d.dst().elements(), 1, type);
      float[] old = Data.normals(random, d.src().elements(), 1, type);
      var src = trial.input("src", type, d.src(), Layout.NHWC, x);
      var weights = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, w);
      var bias = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, b);
      var diffDst = trial.input("diff_dst", type, d.dst(), Layout.NHWC, dy);
      Shape signShape = Conv2d.signs(d.src());
      var signs = trial.input("signs", DataType.U8, signShape, Layout.ROW_MAJOR, bits(x, ic));
      var dst = trial.output("dst", type, d.dst(), Layout.NHWC);
      var dst2 = trial.output("dst with signs", type, d.dst(), Layout.NHWC);
      var left = trial.output("signs left", DataType.U8, Conv2d.signs(d.dst()), Layout.ROW_MAJOR);
      var diffSrc = trial.result("diff_src", type, d.src(), Layout.NHWC, write, old);
      var diffSrc2 = trial.result("diff_src by signs", type, d.src(), Layout.NHWC, write, old);
      trial.run(
          on -> {
            conv.pack(on, weights.tensor(), packed);
            conv.forward(on, src.tensor(), packed, bias.tensor(), dst.tensor());
            conv.forwardWithSigns(
                on, src.tensor(), packed, bias.tensor(), dst2.tensor(), left.tensor());
            conv.backwardData(on, diffDst.tensor(), packed, src.tensor(), diffSrc.tensor(), write);
            conv.backwardDataBySigns(
                on, diffDst.tensor(), packed, signs.tensor(), diffSrc2.tensor(), write);
          });
      assertArrayEquals(dst.values(), dst2.values());
      assertArrayEquals(diffSrc.values(), diffSrc2.values());
      byte[] expected = bits(dst.values(), oc);
      float[] actual = left.values();
      for (int i = 0; i < expected.length; i++) {
        assertEquals(Byte.toUnsignedInt(expected[i]), actual[i], d + ": signs, byte " + i);
      }
    }
  }

  /** Bits as {@link Conv2d} lays them out. */
  private static byte[] bits(float[] values, int channels) {
    int pixels = values.length / channels;
    byte[] bytes = new byte[values.length / 8];
    for (int pixel = 0; pixel < pixels; pixel++) {
      for (int c = 0; c < channels; c++) {
        if (values[pixel * channels + c] > 0) {
          int block = c / 32;
          bytes[(block * pixels + pixel) * 4 + c % 32 / 8] |= (byte) (1 << c % 8);
        }
      }
    }
    return bytes;
  }

  /** Every combination of rectifiers, write and aliasing on one small shape. */
  @TestFactory
  Stream<DynamicTest> gating() {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 5, 6, 8, 9, 3, 1, 1);
    List<Case> cases = new ArrayList<>();
    for (DataType type : types()) {
      for (Rectifier activation : Data.EXACT) {
        for (Rectifier srcActivation : Data.EXACT) {
          for (Write write : Write.values()) {
            for (boolean inPlace : new boolean[] {false, true}) {
              Setting setting =
                  new Setting(d, type, true, activation, srcActivation, write, inPlace, false, 1);
              if (!(inPlace && write == Write.ACCUMULATE)) {
                cases.add(new Case("gating " + cases.size(), () -> check(setting)));
              }
            }
          }
        }
      }
    }
    return tests(cases.stream());
  }

  private static Setting setting(
      Conv2dDescriptor descriptor, DataType type, boolean exact, SplittableRandom random) {
    Rectifier[] choice = exact ? Data.EXACT : Data.REAL;
    Write write = pick(random, Write.values());
    return new Setting(
        descriptor,
        type,
        exact,
        pick(random, choice),
        pick(random, choice),
        write,
        write == Write.OVERWRITE && random.nextInt(4) == 0,
        false,
        random.nextLong());
  }

  /**
   * Sums of 4608 terms of one sign, over taps and channels forward, over channels backward, over
   * pixels in the gradients of weights and bias: errors that all cut off add up there.
   */
  @TestFactory
  Stream<DynamicTest> positiveSums() {
    List<Case> cases = new ArrayList<>();
    for (Conv2dDescriptor d :
        List.of(
            Conv2dDescriptor.of(1, 3, 3, 512, 8, 3, 1, 0),
            Conv2dDescriptor.linear(2, 4608, 8),
            Conv2dDescriptor.linear(2, 8, 4608),
            Conv2dDescriptor.linear(4608, 8, 8))) {
      for (DataType type : types()) {
        for (Write write : Write.values()) {
          Rectifier none = Rectifier.IDENTITY;
          Setting setting =
              new Setting(d, type, false, none, none, write, false, true, cases.size());
          cases.add(new Case("positive " + d + " " + type + " " + write, () -> check(setting)));
        }
      }
    }
    return tests(cases.stream());
  }

  /** Sizes are drawn each side of powers of two; too large ones are drawn again. */
  static Conv2dDescriptor randomDescriptor(SplittableRandom random, long largest) {
    while (true) {
      int groups = random.nextInt(4) > 0 ? 1 : pick(random, 2, 3, 4, 8, 17);
      boolean depthwise = groups > 1 && random.nextBoolean();
      int kh = pick(random, 1, 1, 2, 3, 3, 3, 4, 5, 7);
      int kw = random.nextInt(4) > 0 ? kh : pick(random, 1, 2, 3, 5);
      int dilationH = random.nextInt(5) > 0 ? 1 : random.nextInt(2, 4);
      int dilationW = random.nextInt(3) > 0 ? dilationH : random.nextInt(1, 4);
      int strideH = pick(random, 1, 1, 1, 2, 2, 3, 4);
      int strideW = random.nextInt(4) > 0 ? strideH : random.nextInt(1, 5);
      int padH = dilationH * (kh - 1) + (random.nextInt(20) == 0 ? 2 : 0);
      int padW = dilationW * (kw - 1) + (random.nextInt(20) == 0 ? 2 : 0);
      boolean centred = random.nextBoolean();
      int padTop = centred ? dilationH * (kh - 1) / 2 : random.nextInt(padH + 1);
      int padLeft = centred ? dilationW * (kw - 1) / 2 : random.nextInt(padW + 1);
      int padBottom = centred ? padTop : random.nextInt(padH + 1);
      int padRight = centred ? padLeft : random.nextInt(padW + 1);
      int h = randomExtent(random);
      int w = random.nextBoolean() ? h : randomExtent(random);
      if (dilationH * (kh - 1) >= h + padTop + padBottom
          || dilationW * (kw - 1) >= w + padLeft + padRight) {
        continue;
      }
      Conv2dDescriptor d =
          new Conv2dDescriptor(
              random.nextInt(40) == 0 ? 0 : random.nextInt(1, 5),
              h,
              w,
              groups * (depthwise ? 1 : randomChannels(random)),
              groups * (depthwise ? random.nextInt(1, 3) : randomChannels(random)),
              kh,
              kw,
              strideH,
              strideW,
              padTop,
              padLeft,
              padBottom,
              padRight,
              dilationH,
              dilationW,
              groups);
      if (d.multiplyAdds() <= largest && d.src().elements() <= largest / 4) {
        return d;
      }
    }
  }

  private static int randomExtent(SplittableRandom random) {
    return random.nextInt(3) > 0 ? random.nextInt(1, 12) : random.nextInt(1, 40);
  }

  private static int randomChannels(SplittableRandom random) {
    if (random.nextBoolean()) {
      return random.nextInt(1, 20);
    }
    return (1 << random.nextInt(1, 8)) + random.nextInt(-1, 2);
  }

  private void check(Setting setting) {
    Conv2dDescriptor d = setting.descriptor;
    if (subject.declines(d, setting.type)) {
      assertThrows(
          UnsupportedException.class,
          () -> backend.conv2d(d, setting.type, setting.activation, setting.srcActivation).close());
      return;
    }
    SplittableRandom random = new SplittableRandom(setting.seed);
    check(setting, setting.exact ? exactArrays(setting, random) : realArrays(setting, random));
  }

  /** The values of all operands, and the sums expected from them. */
  private static final class Numbers {
    final float[] src;
    final float[] weights;
    final float[] bias;
    final float[] diffDst;
    final float[] oldSrc;
    final float[] oldWeights;
    final float[] oldBias;
    final Sums forward;
    final Sums data;
    final Sums gradient;
    final Sums biasGradient;

    Numbers(
        Conv2dDescriptor d,
        Write write,
        float[] src,
        float[] weights,
        float[] bias,
        float[] diffDst,
        float[] oldSrc,
        float[] oldWeights,
        float[] oldBias) {
      this.src = src;
      this.weights = weights;
      this.bias = bias;
      this.diffDst = diffDst;
      this.oldSrc = oldSrc;
      this.oldWeights = oldWeights;
      this.oldBias = oldBias;
      NaiveConv2d naive = new NaiveConv2d(d);
      forward = naive.forward(src, weights, bias);
      data = naive.backwardData(diffDst, weights);
      gradient = naive.backwardWeights(src, diffDst);
      biasGradient = naive.backwardBias(diffDst);
      if (write == Write.ACCUMULATE) {
        accumulate(data, oldSrc);
        accumulate(gradient, oldWeights);
        accumulate(biasGradient, oldBias);
      }
    }

    private static void accumulate(Sums sums, float[] old) {
      for (int i = 0; i < old.length; i++) {
        sums.value()[i] += old[i];
        sums.magnitude()[i] += Math.abs(old[i]);
      }
    }
  }

  private static Numbers realArrays(Setting setting, SplittableRandom random) {
    Conv2dDescriptor d = setting.descriptor;
    DataType type = setting.type;
    double terms = (double) d.kh() * d.kw() * d.ic() / d.groups();
    return new Numbers(
        d,
        setting.write,
        normals(setting, random, d.src().elements(), 1, type),
        // Rounded to the type, so that a backend may round them without an error.
        normals(setting, random, d.weights().elements(), 1 / Math.sqrt(terms), type),
        normals(setting, random, d.oc(), 0.5, DataType.F32),
        normals(setting, random, d.dst().elements(), 1, type),
        normals(setting, random, d.src().elements(), 1, type),
        normals(setting, random, d.weights().elements(), 1, DataType.F32),
        normals(setting, random, d.oc(), 1, DataType.F32));
  }

  private static float[] normals(
      Setting setting, SplittableRandom random, long count, double factor, DataType type) {
    float[] values = Data.normals(random, count, factor, type);
    for (int i = 0; setting.positive && i < values.length; i++) {
      values[i] = Math.abs(values[i]);
    }
    return values;
  }

  /** Whole numbers, so few of them that every partial sum is exact in the storage type. */
  private static Numbers exactArrays(Setting setting, SplittableRandom random) {
    Conv2dDescriptor d = setting.descriptor;
    int largest = Data.largestExact(setting.type);
    int srcRange = setting.type == DataType.F32 ? 8 : setting.type == DataType.F16 ? 4 : 2;
    int weightRange = setting.type == DataType.F32 ? 8 : setting.type == DataType.F16 ? 2 : 1;
    long terms = (long) d.kh() * d.kw() * Math.max(d.ic(), d.oc()) / d.groups();
    double density = Math.min(1, 0.5 * largest / ((double) srcRange * weightRange * terms));
    while (true) {
      float[] weights = Data.integers(random, d.weights().elements(), weightRange);
      Numbers arrays =
          new Numbers(
              d,
              setting.write,
              // Some zeros: at the kink of the source's activation the negative side counts.
              Data.withZeros(random, Data.integers(random, d.src().elements(), srcRange), 0.1),
              Data.withZeros(random, weights, 1 - density),
              Data.integers(random, d.oc(), 4),
              Data.integers(random, d.dst().elements(), srcRange),
              Data.integers(random, d.src().elements(), 4),
              Data.integers(random, d.weights().elements(), 4),
              Data.integers(random, d.oc(), 4));
      if (largest(arrays.forward) <= largest
          && largest(arrays.data) <= largest
          && largest(arrays.gradient) <= 1 << 23
          && largest(arrays.biasGradient) <= 1 << 23) {
        return arrays;
      }
      density /= 2;
    }
  }

  private static double largest(Sums sums) {
    return Arrays.stream(sums.magnitude()).max().orElse(0);
  }

  private void check(Setting setting, Numbers arrays) {
    Conv2dDescriptor d = setting.descriptor;
    DataType type = setting.type;
    Write write = setting.write;
    try (Trial trial = new Trial(backend, setting);
        Conv2d conv = backend.conv2d(d, type, setting.activation, setting.srcActivation);
        PackedWeights packed = conv.newPackedWeights()) {
      var src =
          setting.inPlace
              ? trial.inout("src", type, d.src(), Layout.NHWC, arrays.src)
              : trial.input("src", type, d.src(), Layout.NHWC, arrays.src);
      var weights = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, arrays.weights);
      var bias = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, arrays.bias);
      var diffDst = trial.input("diff_dst", type, d.dst(), Layout.NHWC, arrays.diffDst);
      var dst = trial.output("dst", type, d.dst(), Layout.NHWC);
      var diffSrc =
          setting.inPlace
              ? src
              : trial.result("diff_src", type, d.src(), Layout.NHWC, write, arrays.oldSrc);
      var diffWeights =
          trial.result(
              "diff_weights", DataType.F32, d.weights(), Layout.KRSC, write, arrays.oldWeights);
      var diffBias =
          trial.result(
              "diff_bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, write, arrays.oldBias);
      trial.run(
          stream -> {
            conv.pack(stream, weights.tensor(), packed);
            conv.forward(stream, src.tensor(), packed, bias.tensor(), dst.tensor());
            conv.backwardWeights(
                stream,
                src.tensor(),
                diffDst.tensor(),
                diffWeights.tensor(),
                diffBias.tensor(),
                write);
            conv.backwardData(
                stream, diffDst.tensor(), packed, src.tensor(), diffSrc.tensor(), write);
          });

      long taps = (long) d.kh() * d.kw();
      double overChannels = error(setting, taps, d.ic() / d.groups());
      double overOutputs = error(setting, taps, d.oc() / d.groups());
      double overPixels = error(setting, 1, (long) d.n() * d.oh() * d.ow());
      Expected ofDst = outputs(setting, arrays, overChannels);
      Expected ofSrc = sourceGradients(setting, arrays, overOutputs);
      Expected ofWeights = plain(arrays.gradient, overPixels);
      if (subject.roundsTransforms(backend, d, type)) {
        RoundedTransforms rounded = new RoundedTransforms(d);
        float phi = setting.activation.scale();
        float psi = setting.srcActivation.scale();
        ofDst.allow(phi, rounded.forward(arrays.src, arrays.weights));
        ofSrc.allow(psi, rounded.backwardData(arrays.diffDst, arrays.weights));
        ofWeights.allow(1, rounded.backwardWeights(arrays.src, arrays.diffDst));
      }
      expect(trial, setting, dst, ofDst);
      expect(trial, setting, diffSrc, ofSrc);
      expect(trial, setting, diffWeights, ofWeights);
      expect(trial, setting, diffBias, plain(arrays.biasGradient, overPixels));
    }
  }

  /**
   * Rounding errors of a sum over runs of neighbouring products, relative to the sum S of its
   * |terms|. Errors of random signs are a few; but where all terms have one sign, so may all
   * errors, and they add up. In binary32 each addition, in whatever order, is rounded by at most
   * half an epsilon of S.
   *
   * <p>A tensor core (native/README.md has the sources) adds an accumulator c and L products p at
   * once: it cuts each of them off at 2^-F of the power of two below the largest, then the sum at
   * 24 bits. S is no less than |c|, |p| and |the sum|, so that is an error of less than ((L + 1)
   * 2^-F + 2^-23) S. Ampere has L = 8, F = 24: 5.5 * 2^-23 S; Hopper L = 16, F = 25: 5.25 * 2^-23 S
   * in half as many steps. There are two steps at most for each 16 products of a run, the last of
   * which may be zeros. What is added in binary32 afterwards (bias, parts of a sum, old values) is
   * among the few.
   *
   * @param runs how many runs, such as taps of a filter
   * @param length products of each, such as channels
   */
  private double error(Setting setting, long runs, long length) {
    double epsilons = SUM;
    if (setting.positive) {
      epsilons +=
          subject.addsInTensorCores(setting.type)
              ? 5.5 * 2 * runs * Math.ceilDiv(length, 16L)
              : 0.5 * runs * length;
    }
    return epsilons * Data.epsilon(DataType.F32);
  }

  /**
   * What an operand must hold.
   *
   * @param value expected values
   * @param magnitude 0 where an element is zero whatever the data
   * @param bound largest error
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Expected(double[] value, double[] magnitude, double[] bound) {
    void allow(double factor, double[] more) {
      for (int i = 0; i < bound.length; i++) {
        bound[i] += factor * more[i];
      }
    }
  }

  private static void expect(
      Trial trial, Setting setting, Trial.Operand operand, Expected expected) {
    if (setting.exact) {
      trial.expectExactly(operand, expected.value, expected.magnitude);
    } else {
      trial.requireTrustworthy(operand, expected.value, expected.magnitude);
      trial.expectWithin(operand, expected.value, expected.bound);
    }
  }

  private static Expected plain(Sums sums, double error) {
    double[] factor = new double[sums.value().length];
    Arrays.fill(factor, 1);
    return scaled(sums, factor, DataType.F32, error);
  }

  private static Expected outputs(Setting setting, Numbers arrays, double error) {
    double[] factor = new double[arrays.forward.value().length];
    for (int i = 0; i < factor.length; i++) {
      factor[i] = Data.slopeAt(setting.activation, arrays.forward.value()[i]);
    }
    Expected expected = scaled(arrays.forward, factor, setting.type, error);
    for (int i = 0; i < factor.length; i++) {
      // An error may carry a sum across the kink, so the steeper side bounds it.
      expected.bound[i] =
          bound(arrays.forward, i, setting.type, error) * setting.activation.scale()
              + Data.tiny(setting.type);
    }
    return expected;
  }

  private static Expected sourceGradients(Setting setting, Numbers arrays, double error) {
    double[] factor = new double[arrays.src.length];
    for (int i = 0; i < factor.length; i++) {
      factor[i] =
          setting.srcActivation.isIdentity()
              ? 1
              : Data.slopeAt(setting.srcActivation, arrays.src[i]);
    }
    return scaled(arrays.data, factor, setting.type, error);
  }

  private static Expected scaled(Sums sums, double[] factor, DataType type, double error) {
    double[] value = new double[factor.length];
    double[] magnitude = new double[factor.length];
    double[] bound = new double[factor.length];
    for (int i = 0; i < factor.length; i++) {
      value[i] = sums.value()[i] * factor[i];
      magnitude[i] = sums.magnitude()[i] * factor[i];
      bound[i] = magnitude[i] == 0 ? 0 : bound(sums, i, type, error) * factor[i] + Data.tiny(type);
    }
    return new Expected(value, magnitude, bound);
  }

  private static double bound(Sums sums, int i, DataType type, double error) {
    return error * sums.magnitude()[i] + STORE * Data.epsilon(type) * Math.abs(sums.value()[i]);
  }

  /**
   * The gradients of L = sum g * phi(conv(psi(z), w) + b) by central differences of the formula in
   * binary64. L is piecewise linear in each variable, so the differences are exact unless they
   * straddle a kink; those are left out.
   */
  @TestFactory
  Stream<DynamicTest> centralDifferences() {
    return tests(random("differences", 0.1, this::checkDifferences));
  }

  private void checkDifferences(SplittableRandom random) {
    Conv2dDescriptor d = randomDescriptor(random, Math.min(10_000, subject.largestConvolution()));
    Rectifier phi = pick(random, Data.REAL);
    Rectifier psi = pick(random, Data.REAL);
    NaiveConv2d naive = new NaiveConv2d(d);
    float[] z = Data.normals(random, d.src().elements(), 1, DataType.F32);
    for (int i = 0; i < z.length; i++) {
      z[i] += Math.copySign(0.1f, z[i]); // away from psi's kink
    }
    float[] src = new float[z.length];
    for (int i = 0; i < z.length; i++) {
      src[i] = (float) Data.phi(psi, z[i]);
    }
    float[] weights = Data.normals(random, d.weights().elements(), 1, DataType.F32);
    float[] bias = Data.normals(random, d.oc(), 1, DataType.F32);
    float[] gradient = Data.normals(random, d.dst().elements(), 1, DataType.F32);
    String description = "differences " + d + " phi " + phi + " psi " + psi;
    try (Trial trial = new Trial(backend, description);
        Conv2d conv = backend.conv2d(d, DataType.F32, phi, psi);
        PackedWeights packed = conv.newPackedWeights()) {
      // dst first: diff_dst follows from it.
      float[] dst = forward(conv, packed, src, weights, bias);
      float[] cut = new float[dst.length];
      for (int i = 0; i < cut.length; i++) {
        cut[i] = (float) (gradient[i] * (phi.isIdentity() ? 1 : Data.slopeAt(phi, dst[i])));
      }
      var x = trial.input("src", DataType.F32, d.src(), Layout.NHWC, src);
      var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
      var dy = trial.input("diff_dst", DataType.F32, d.dst(), Layout.NHWC, cut);
      var dx = trial.output("diff_src", DataType.F32, d.src(), Layout.NHWC);
      var dw = trial.output("diff_weights", DataType.F32, d.weights(), Layout.KRSC);
      var db = trial.output("diff_bias", DataType.F32, d.bias(), Layout.ROW_MAJOR);
      trial.run(
          stream -> {
            conv.pack(stream, w.tensor(), packed);
            conv.backwardData(
                stream, dy.tensor(), packed, x.tensor(), dx.tensor(), Write.OVERWRITE);
            conv.backwardWeights(
                stream, x.tensor(), dy.tensor(), dw.tensor(), db.tensor(), Write.OVERWRITE);
          });
      Loss loss = new Loss(naive, phi, psi, z, weights, bias, gradient);
      compare(trial, "diff_src", loss, z, dx.values(), random);
      compare(trial, "diff_weights", loss, weights, dw.values(), random);
      compare(trial, "diff_bias", loss, bias, db.values(), random);
    }
  }

  private float[] forward(
      Conv2d conv, PackedWeights packed, float[] src, float[] weights, float[] bias) {
    Conv2dDescriptor d = conv.descriptor();
    try (Trial trial = new Trial(backend, "forward " + d)) {
      var x = trial.input("src", conv.type(), d.src(), Layout.NHWC, src);
      var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
      var b = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, bias);
      var y = trial.output("dst", conv.type(), d.dst(), Layout.NHWC);
      trial.run(
          stream -> {
            conv.pack(stream, w.tensor(), packed);
            conv.forward(stream, x.tensor(), packed, b.tensor(), y.tensor());
          });
      return y.values();
    }
  }

  /** The formula as a function of all its variables. */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Loss(
      NaiveConv2d naive,
      Rectifier phi,
      Rectifier psi,
      float[] z,
      float[] weights,
      float[] bias,
      float[] gradient) {
    double[] before() {
      float[] src = new float[z.length];
      for (int i = 0; i < z.length; i++) {
        src[i] = (float) Data.phi(psi, z[i]);
      }
      return naive.forward(src, weights, bias).value();
    }

    double of(double[] before) {
      double sum = 0;
      for (int i = 0; i < before.length; i++) {
        sum += gradient[i] * Data.phi(phi, before[i]);
      }
      return sum;
    }
  }

  /** Compares some partial derivatives with differences in one array of variables. */
  private static void compare(
      Trial trial,
      String name,
      Loss loss,
      float[] variables,
      float[] derivatives,
      SplittableRandom random) {
    for (int trials = 0; trials < 6 && variables.length > 0; trials++) {
      int i = random.nextInt(variables.length);
      float value = variables[i];
      variables[i] = value + 0x1p-7f;
      double up = variables[i];
      double[] plus = loss.before();
      variables[i] = value - 0x1p-7f;
      double down = variables[i];
      double[] minus = loss.before();
      variables[i] = value;
      boolean straddles = false;
      double scale = 1;
      for (int o = 0; o < plus.length; o++) {
        straddles |= Math.signum(plus[o]) != Math.signum(minus[o]);
        scale += Math.abs(loss.gradient[o] * (plus[o] - minus[o])) / (up - down);
      }
      if (straddles) {
        continue;
      }
      double difference = (loss.of(plus) - loss.of(minus)) / (up - down);
      // src is rounded to binary32 within the differences: 2^-24 relative, over a step of 2^-7.
      double tolerance = 1e-4 * scale * loss.phi.scale() * loss.psi.scale();
      if (!(Math.abs(derivatives[i] - difference) <= tolerance)) {
        trial.fail(
            String.format(
                "%s[%d] is %s, central differences give %s", name, i, derivatives[i], difference));
      }
    }
  }

  /** The identities (conv(x), y) = (x, conv^T(y)) = (w, gradient of w from x and y). */
  @TestFactory
  Stream<DynamicTest> adjoints() {
    return tests(
        random(
            "adjoint",
            0.1,
            random -> {
              Conv2dDescriptor d = randomDescriptor(random, subject.largestConvolution());
              float[] src = Data.normals(random, d.src().elements(), 1, DataType.F32);
              float[] weights = Data.normals(random, d.weights().elements(), 1, DataType.F32);
              float[] cut = Data.normals(random, d.dst().elements(), 1, DataType.F32);
              Rectifier none = Rectifier.IDENTITY;
              try (Trial trial = new Trial(backend, "adjoint " + d);
                  Conv2d conv = backend.conv2d(d, DataType.F32, none, none);
                  PackedWeights packed = conv.newPackedWeights()) {
                float[] dst = forward(conv, packed, src, weights, new float[d.oc()]);
                var x = trial.input("src", DataType.F32, d.src(), Layout.NHWC, src);
                var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
                var dy = trial.input("diff_dst", DataType.F32, d.dst(), Layout.NHWC, cut);
                var dx = trial.output("diff_src", DataType.F32, d.src(), Layout.NHWC);
                var dw = trial.output("diff_weights", DataType.F32, d.weights(), Layout.KRSC);
                var db = trial.output("diff_bias", DataType.F32, d.bias(), Layout.ROW_MAJOR);
                trial.run(
                    stream -> {
                      conv.pack(stream, w.tensor(), packed);
                      conv.backwardData(
                          stream, dy.tensor(), packed, x.tensor(), dx.tensor(), Write.OVERWRITE);
                      conv.backwardWeights(
                          stream,
                          x.tensor(),
                          dy.tensor(),
                          dw.tensor(),
                          db.tensor(),
                          Write.OVERWRITE);
                    });
                double[] products =
                    d.n() == 0
                        ? new double[3]
                        : new double[] {
                          dot(dst, cut), dot(src, dx.values()), dot(weights, dw.values())
                        };
                double scale =
                    Math.sqrt(dot(dst, dst) * dot(cut, cut))
                        + Math.sqrt(dot(src, src) * dot(dx.values(), dx.values()));
                double tolerance = 1e-5 * scale;
                if (d.n() > 0
                    && !(Math.abs(products[0] - products[1]) <= tolerance
                        && Math.abs(products[0] - products[2]) <= tolerance)) {
                  trial.fail("three equal inner products are " + Arrays.toString(products));
                }
              }
            }));
  }

  private static double dot(float[] a, float[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += (double) a[i] * b[i];
    }
    return sum;
  }

  /** A 1x1 convolution of 1 with one weight stores that weight, rounded to nearest even. */
  @Test
  void storesRoundedToNearestEven() {
    int weights = 1000;
    Conv2dDescriptor d = Conv2dDescriptor.linear(1, 1, weights);
    for (DataType type : types()) {
      float[] values = new float[weights];
      SplittableRandom random = new SplittableRandom(3);
      for (int i = 0; i < weights; i++) {
        double ulp = Data.epsilon(type);
        // Random numbers, ties between two numbers of the type, and those just beside ties.
        int step = i / 4;
        double tie = 1 + step * ulp + ulp / 2;
        values[i] =
            (float)
                switch (i % 4) {
                  case 0 -> random.nextGaussian();
                  case 1 -> tie;
                  case 2 -> tie + 0x1p-20;
                  default -> tie - 0x1p-20;
                };
      }
      double[] expected = new double[weights];
      for (int i = 0; i < weights; i++) {
        expected[i] = nearestEven(type, values[i]);
      }
      try (Trial trial = new Trial(backend, "rounding to " + type);
          Conv2d conv = backend.conv2d(d, type, Rectifier.IDENTITY, Rectifier.IDENTITY);
          PackedWeights packed = conv.newPackedWeights()) {
        var x = trial.input("src", type, d.src(), Layout.NHWC, new float[] {1});
        var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, values);
        var b = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, new float[weights]);
        var y = trial.output("dst", type, d.dst(), Layout.NHWC);
        trial.run(
            stream -> {
              conv.pack(stream, w.tensor(), packed);
              conv.forward(stream, x.tensor(), packed, b.tensor(), y.tensor());
            });
        trial.expectExactly(y, expected);
      }
    }
  }

  /** Rounding by arithmetic: to a multiple of the spacing at that size. */
  private static double nearestEven(DataType type, double value) {
    double spacing = Data.epsilon(type) * Math.scalb(1.0, Math.getExponent(value));
    return Math.rint(value / spacing) * spacing;
  }

  @Test
  void packingAgainTakesTheNewWeights() {
    Conv2dDescriptor d = Conv2dDescriptor.linear(1, 1, 1);
    try (Conv2d conv = backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights()) {
      for (float weight : new float[] {3, 5}) {
        float[] dst = forward(conv, packed, new float[] {2}, new float[] {weight}, new float[] {1});
        assertTrue(dst[0] == 2 * weight + 1, "dst is " + dst[0] + " under weight " + weight);
      }
    }
  }

  /** One prepared operation and one packed form, used by several threads at once. */
  @Test
  void sharedByThreads() throws Exception {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 9, 9, 16, 17, 3, 1, 1);
    SplittableRandom random = new SplittableRandom(7);
    float[] weights = Data.normals(random, d.weights().elements(), 1, DataType.F32);
    float[] bias = Data.normals(random, d.oc(), 1, DataType.F32);
    float[] src = Data.normals(random, d.src().elements(), 1, DataType.F32);
    try (Conv2d conv =
            backend.conv2d(d, DataType.F32, Rectifier.tailored(0.5), Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        Trial trial = new Trial(backend, "threads " + d);
        ExecutorService threads = Executors.newFixedThreadPool(4)) {
      float[] alone = forward(conv, packed, src, weights, bias);
      var x = trial.input("src", DataType.F32, d.src(), Layout.NHWC, src);
      var w = trial.input("weights", DataType.F32, d.weights(), Layout.KRSC, weights);
      var b = trial.input("bias", DataType.F32, d.bias(), Layout.ROW_MAJOR, bias);
      List<Trial.Operand> outputs = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        outputs.add(trial.output("dst " + i, DataType.F32, d.dst(), Layout.NHWC));
      }
      trial.run(
          main -> {
            conv.pack(main, w.tensor(), packed);
            main.synchronize();
            List<Future<?>> running = new ArrayList<>();
            for (Trial.Operand y : outputs) {
              running.add(
                  threads.submit(
                      () -> {
                        try (var stream = backend.newStream()) {
                          for (int i = 0; i < 20; i++) {
                            conv.forward(stream, x.tensor(), packed, b.tensor(), y.tensor());
                          }
                          stream.synchronize();
                        }
                      }));
            }
            for (Future<?> thread : running) {
              try {
                thread.get();
              } catch (Exception failure) {
                throw new AssertionError(failure);
              }
            }
          });
      for (Trial.Operand y : outputs) {
        trial.expectExactly(y, Data.wide(alone));
      }
    }
  }

  @Test
  void unsuitableOperands() {
    Conv2dDescriptor d = Conv2dDescriptor.of(2, 4, 5, 3, 6, 3, 1, 1);
    Refusals refusals = new Refusals(backend);
    try (Conv2d conv = backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        var stream = backend.newStream();
        Tensor src = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor diffSrc = backend.allocate(d.src(), DataType.F32, Layout.NHWC)) {
      refusals.require("weights", weights, t -> conv.pack(stream, t, packed));
      conv.pack(stream, weights, packed);
      refusals.require("src", src, t -> conv.forward(stream, t, packed, bias, dst));
      refusals.require("bias", bias, t -> conv.forward(stream, src, packed, t, dst));
      refusals.require("dst", dst, t -> conv.forward(stream, src, packed, bias, t));
      Write write = Write.OVERWRITE;
      refusals.require(
          "diff_dst", dst, t -> conv.backwardData(stream, t, packed, src, diffSrc, write));
      refusals.require("diff_src", src, t -> conv.backwardData(stream, dst, packed, src, t, write));
      refusals.require(
          "diff_dst", dst, t -> conv.backwardWeights(stream, src, t, weights, bias, write));
      refusals.require(
          "diff_weights", weights, t -> conv.backwardWeights(stream, src, dst, t, bias, write));
      refusals.require(
          "diff_bias", bias, t -> conv.backwardWeights(stream, src, dst, weights, t, write));
      stream.synchronize();
    }
  }

  /** dst over src, and diff_src over diff_dst, in part or wholly. */
  @Test
  void overlappingOperands() {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 4, 4, 3, 3, 3, 1, 1);
    try (Conv2d conv = backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        var stream = backend.newStream();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor both = backend.allocate(Shape.of(100), DataType.F32, Layout.ROW_MAJOR)) {
      conv.pack(stream, weights, packed);
      Tensor first = both.slice(0, d.src(), Layout.NHWC);
      for (int start : new int[] {0, 47}) {
        Tensor second = both.slice(start, d.src(), Layout.NHWC);
        Refusals.requireMessage(
            OperandException.class,
            () -> conv.forward(stream, first, packed, bias, second),
            "src",
            "dst",
            "overlap");
        Refusals.requireMessage(
            OperandException.class,
            () -> conv.backwardData(stream, first, packed, second, second, Write.OVERWRITE),
            "diff_dst",
            "diff_src",
            "overlap");
      }
      Tensor beside = both.slice(48, d.src(), Layout.NHWC);
      conv.forward(stream, first, packed, bias, beside); // adjacent is not overlapping
      stream.synchronize();
    }
  }

  @Test
  void useAfterClose() {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 4, 4, 3, 3, 3, 1, 1);
    try (var stream = backend.newStream();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC)) {
      Conv2d conv = backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
      PackedWeights packed = conv.newPackedWeights();
      conv.pack(stream, weights, packed);
      conv.forward(stream, src, packed, bias, dst);
      stream.synchronize();
      packed.close();
      packed.close();
      Refusals.requireMessage(
          IllegalStateException.class, () -> conv.forward(stream, src, packed, bias, dst), "close");
      conv.close();
      conv.close();
      Refusals.requireMessage(IllegalStateException.class, conv::newPackedWeights, "close");
      Refusals.requireMessage(
          IllegalStateException.class, () -> conv.forward(stream, src, packed, bias, dst), "close");
      Refusals.requireMessage(
          IllegalStateException.class,
          () -> conv.backwardWeights(stream, src, dst, weights, bias, Write.OVERWRITE),
          "close");
    }
  }
}
