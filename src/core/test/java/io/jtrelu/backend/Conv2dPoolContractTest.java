package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertFalse;

import io.jtrelu.backend.NaiveConv2d.Sums;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * A convolution and its pooling as one operation against their definitions one after the other, as
 * whole numbers (bit-exact, full of ties) and as reals (bounded). Where errors of sums may decide
 * which element of a window wins, all that may are within the bound.
 */
class Conv2dPoolContractTest extends Contract {
  /**
   * Sizes of a case.
   *
   * @param convolution reads src
   * @param pooling reads what the convolution writes
   */
  private record Pair(Conv2dDescriptor convolution, MaxPool2dDescriptor pooling) {
    static Pair of(Conv2dDescriptor d, int begin, int end) {
      return new Pair(d, new MaxPool2dDescriptor(d.n(), d.oh(), d.ow(), d.oc(), 3, 2, begin, end));
    }

    /** As PyTorch pads. */
    static Pair stem(int n, int h) {
      return of(Conv2dDescriptor.of(n, h, 224, 4, 64, 7, 2, 3), 1, 1);
    }

    /** Uneven padding, where the height allows. */
    static Pair same(int n, int h) {
      return of(Conv2dDescriptor.same(n, h, 224, 4, 64, 7, 2), 0, 1);
    }
  }

  /** ImageNet's stem, but for the height; others. */
  private static final List<Pair> PAIRS =
      List.of(
          Pair.stem(1, 1),
          Pair.stem(0, 8),
          Pair.same(0, 8),
          Pair.stem(1, 6), // the last window ends below the image
          Pair.stem(1, 7),
          Pair.stem(1, 8),
          Pair.stem(3, 9),
          Pair.stem(1, 30), // rings of rows turn round, more strips than warpgroups
          Pair.same(1, 4),
          Pair.same(1, 5), // a row behind the last window's middle
          Pair.same(2, 8),
          Pair.same(1, 11),
          Pair.same(1, 32),
          Pair.of(Conv2dDescriptor.of(2, 9, 10, 3, 5, 3, 1, 1), 0, 1),
          Pair.of(Conv2dDescriptor.of(1, 8, 11, 4, 8, 5, 2, 2), 1, 1));

  @TestFactory
  Stream<DynamicTest> sizes() {
    List<Case> cases = new ArrayList<>();
    for (Pair pair : PAIRS) {
      for (DataType type : types()) {
        for (boolean exact : new boolean[] {true, false}) {
          String id = "pooled " + pair + " " + type + (exact ? " exact" : " real");
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(new Case(id, () -> check(pair, type, exact, false, random)));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomSizes() {
    return tests(
        random(
            "pooled",
            0.1,
            random -> {
              int n = random.nextInt(1, 3);
              int h = random.nextInt(4, 14);
              Pair pair = random.nextBoolean() ? Pair.stem(n, h) : Pair.same(n, h);
              check(pair, pick(random, types()), random.nextBoolean(), false, random);
            }));
  }

  /** Channels whose bias is not finite: a NaN wins, and infinities as numbers do. */
  @TestFactory
  Stream<DynamicTest> notFinite() {
    List<Case> cases = new ArrayList<>();
    for (Pair pair : List.of(Pair.stem(1, 8), Pair.same(1, 8))) {
      for (DataType type : types()) {
        String id = "pooled, not finite " + pair + " " + type;
        SplittableRandom random = new SplittableRandom(id.hashCode());
        cases.add(new Case(id, () -> check(pair, type, true, true, random)));
      }
    }
    return tests(cases.stream());
  }

  /** Values of a case, and what follows from them by the definition. */
  private static final class Numbers {
    final Conv2dDescriptor d;
    final MaxPool2dDescriptor pooling;
    final DataType type;
    final Rectifier phi;
    final float[] src;
    final float[] weights;
    final float[] bias;
    final float[] diffDst;
    final Sums between;
    final double[] low; // of what is stored between
    final double[] high;
    final double[] stored;
    final double[] dst;
    final double[] dstError;
    final float[] diffBetween;
    final float[] diffError;

    Numbers(
        Pair pair,
        DataType type,
        boolean exact,
        boolean notFinite,
        double density,
        SplittableRandom random) {
      this.d = pair.convolution();
      this.pooling = pair.pooling();
      this.type = type;
      phi = notFinite ? new Rectifier(0.5f, 2) : pick(random, exact ? Data.EXACT : Data.REAL);
      double scale = 1 / Math.sqrt((double) d.kh() * d.kw() * d.ic());
      src = values(random, exact, density, d.src().elements(), 1, type);
      weights = values(random, exact, density, d.weights().elements(), scale, type);
      bias = values(random, exact, 1, d.oc(), 0.5, DataType.F32);
      if (notFinite) {
        bias[3] = Float.NaN;
        bias[12] = Float.POSITIVE_INFINITY;
        bias[21] = Float.NEGATIVE_INFINITY;
      }
      diffDst = values(random, exact, 1, pooling.dst().elements(), 1, type);
      between = new NaiveConv2d(d).forward(src, weights, bias);
      int count = between.value().length;
      stored = new double[count];
      low = new double[count];
      high = new double[count];
      for (int i = 0; i < count; i++) {
        double value = Data.phi(phi, between.value()[i]);
        double error =
            exact
                ? 0
                : phi.scale() * Trial.SUM * Data.epsilon(DataType.F32) * between.magnitude()[i];
        stored[i] = Data.round(type, value);
        low[i] = Data.round(type, value - error);
        high[i] = Data.round(type, value + error);
      }
      dst = new double[Math.toIntExact(pooling.dst().elements())];
      dstError = new double[dst.length];
      double[] sums = new double[count];
      double[] errors = new double[count];
      for (int i = 0; i < dst.length; i++) {
        pool(i, sums, errors);
      }
      diffBetween = new float[count];
      diffError = new float[count];
      for (int i = 0; i < count; i++) {
        double value = sums[i] * Data.slopeAt(phi, stored[i]);
        double kink =
            low[i] <= 0 && high[i] > 0
                ? phi.scale() * (1 - phi.slope()) * (Math.abs(sums[i]) + errors[i])
                : 0;
        diffBetween[i] = (float) value;
        double rounding =
            exact || sums[i] == 0 ? 0 : Data.epsilon(type) * Math.abs(value) + Data.tiny(type);
        diffError[i] = Math.nextUp((float) (errors[i] * phi.scale() + kink + rounding));
      }
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

    /** A window's elements in row-major order. */
    private List<Integer> window(int output) {
      int c = output % d.oc();
      int q = output / d.oc() % pooling.ow();
      int p = output / d.oc() / pooling.ow() % pooling.oh();
      int n = output / d.oc() / pooling.ow() / pooling.oh();
      List<Integer> elements = new ArrayList<>();
      for (int tap = 0; tap < 9; tap++) {
        int y = p * 2 - pooling.padBegin() + tap / 3;
        int x = q * 2 - pooling.padBegin() + tap % 3;
        if (y >= 0 && y < d.oh() && x >= 0 && x < d.ow()) {
          elements.add(((n * d.oh() + y) * d.ow() + x) * d.oc() + c);
        }
      }
      return elements;
    }

    private void pool(int output, double[] sums, double[] errors) {
      List<Integer> window = window(output);
      int winner = window.getFirst();
      double least = Double.NEGATIVE_INFINITY; // what wins is not below
      double most = Double.NEGATIVE_INFINITY;
      for (int i : window) {
        winner = rank(stored[i]) > rank(stored[winner]) ? i : winner;
        least = Math.max(least, rank(low[i]));
        most = Math.max(most, rank(high[i]));
      }
      dst[output] = stored[winner];
      dstError[output] = most == least ? 0 : most - least;
      sums[winner] += diffDst[output];
      for (int i : window) {
        boolean perhaps = rank(high[i]) >= least && (i != winner || most > least);
        // A tie that is one for sure goes to the first.
        boolean certain = rank(high[i]) == least && most == least;
        if (perhaps && !certain) {
          errors[i] += Math.abs(diffDst[output]);
        }
      }
    }

    /** In the order of maxima: a NaN wins. */
    private static double rank(double value) {
      return Double.isNaN(value) ? Double.MAX_VALUE : Math.clamp(value, -1e300, 1e300);
    }

    /** Whether halves of all that is stored are exact. */
    boolean isExact() {
      double largest = Arrays.stream(between.magnitude()).filter(Double::isFinite).max().orElse(0);
      return largest <= Data.largestExact(type) / 8.0;
    }
  }

  private void check(
      Pair pair, DataType type, boolean exact, boolean notFinite, SplittableRandom random) {
    if (!isThere(pair, type)) {
      assertFalse(
          backend.pools(pair.convolution(), pair.pooling(), type), "the backend says otherwise");
      return;
    }
    double density = exact ? 0.5 : 1;
    Numbers numbers = new Numbers(pair, type, exact, notFinite, density, random);
    while (exact && !numbers.isExact()) {
      density *= 0.7;
      numbers = new Numbers(pair, type, true, notFinite, density, random);
    }
    Write write = pick(random, Write.values());
    String description =
        String.format(
            "pooled conv2d %s %s %s, phi %s, %s",
            pair, type, exact ? "exact" : "real", numbers.phi, write);
    try (Conv2d convolution =
            backend.conv2d(pair.convolution(), type, numbers.phi, Rectifier.IDENTITY);
        MaxPool2d pooling = backend.maxPool2d(pair.pooling(), type, numbers.phi);
        PackedWeights packed = convolution.newPackedWeights();
        Conv2dPool op = backend.conv2dPool(convolution, pooling);
        Trial trial = new Trial(backend, description)) {
      run(trial, op, packed, numbers, exact, write, random);
    }
  }

  private boolean isThere(Pair pair, DataType type) {
    Rectifier none = Rectifier.IDENTITY;
    try (Conv2d convolution = backend.conv2d(pair.convolution(), type, none, none);
        MaxPool2d pooling = backend.maxPool2d(pair.pooling(), type, none)) {
      backend.conv2dPool(convolution, pooling).close();
      return true;
    } catch (UnsupportedException declined) {
      return false;
    }
  }

  private void run(
      Trial trial,
      Conv2dPool op,
      PackedWeights packed,
      Numbers v,
      boolean exact,
      Write write,
      SplittableRandom random) {
    DataType f32 = DataType.F32;
    var src = trial.input("src", v.type, v.d.src(), Layout.NHWC, v.src);
    var weights = trial.input("weights", f32, v.d.weights(), Layout.KRSC, v.weights);
    var bias = trial.input("bias", f32, v.d.bias(), Layout.ROW_MAJOR, v.bias);
    var diffDst = trial.input("diff_dst", v.type, v.pooling.dst(), Layout.NHWC, v.diffDst);
    var dst = trial.output("dst", v.type, v.pooling.dst(), Layout.NHWC);
    var places = trial.output("places", DataType.U8, v.pooling.dst(), Layout.NHWC);
    float[] old = Numbers.values(random, exact, 1, v.weights.length, 1, f32);
    float[] oldBias = Numbers.values(random, exact, 1, v.d.oc(), 1, f32);
    var diffWeights = trial.result("diff_weights", f32, v.d.weights(), Layout.KRSC, write, old);
    var diffBias = trial.result("diff_bias", f32, v.d.bias(), Layout.ROW_MAJOR, write, oldBias);
    trial.run(
        stream -> {
          op.convolution().pack(stream, weights.tensor(), packed);
          op.forward(stream, src.tensor(), packed, bias.tensor(), dst.tensor(), places.tensor());
          op.backwardWeights(
              stream,
              src.tensor(),
              diffDst.tensor(),
              places.tensor(),
              diffWeights.tensor(),
              diffBias.tensor(),
              write);
        });
    expectPooled(trial, dst.values(), v);
    boolean adds = write == Write.ACCUMULATE;
    NaiveConv2d naive = new NaiveConv2d(v.d);
    trial.expectSums(
        diffWeights,
        exact,
        naive.backwardWeights(v.src, v.diffBetween),
        naive.backwardWeights(Data.absolute(v.src), v.diffError),
        adds ? old : null);
    trial.expectSums(
        diffBias,
        exact,
        naive.backwardBias(v.diffBetween),
        naive.backwardBias(v.diffError),
        adds ? oldBias : null);
  }

  private static void expectPooled(Trial trial, float[] values, Numbers v) {
    for (int i = 0; i < values.length; i++) {
      double expected = v.dst[i];
      boolean same =
          Double.isFinite(expected)
              ? Math.abs(values[i] - expected) <= v.dstError[i]
              : Double.compare(values[i], expected) == 0;
      if (!same) {
        trial.fail(
            String.format(
                "dst[%d] is %s, expected %s within %s", i, values[i], expected, v.dstError[i]));
      }
    }
  }
}
