package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.reference.ReferenceProvider;
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

/** Batch normalisation of a batch in parts, and its gradients. */
class BatchNormContractTest extends Contract {
  private static final float EPSILON = 1e-5f;
  private static final DataType F32 = DataType.F32;

  /** A part's shape and the number of parts; each with the edge it hits. */
  private record Sizes(Shape part, int parts) {}

  private static final List<Sizes> SIZES =
      List.of(
          new Sizes(Shape.of(1, 1, 1, 1), 2), // one value in a part
          new Sizes(Shape.of(2, 1, 1, 3), 1), // fewer channels than any vector
          new Sizes(Shape.of(1, 5, 7, 15), 3), // tails of channels and of rows
          new Sizes(Shape.of(2, 3, 3, 16), 1),
          new Sizes(Shape.of(1, 4, 9, 17), 1),
          new Sizes(Shape.of(1, 7, 7, 64), 2), // plain50
          new Sizes(Shape.of(3, 2, 2, 257), 1)); // more channels than threads in a block

  @TestFactory
  Stream<DynamicTest> shapes() {
    List<Case> cases = new ArrayList<>();
    for (Sizes sizes : SIZES) {
      for (DataType type : types()) {
        String id = "batch norm " + sizes.parts + " of " + sizes.part + " " + type;
        SplittableRandom random = new SplittableRandom(id.hashCode());
        cases.add(new Case(id, () -> check(sizes, type, random)));
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "batch norm",
            0.05,
            random ->
                check(
                    new Sizes(
                        Shape.of(
                            random.nextInt(1, 4),
                            random.nextInt(1, 9),
                            random.nextInt(1, 9),
                            random.nextInt(1, 70)),
                        random.nextInt(1, 4)),
                    pick(random, types()),
                    random)));
  }

  /** What one channel of a whole batch gives, in binary64. */
  private static final class Expected {
    final double[] mean;
    final double[] variance;
    final double[] dst;
    final double[] beta;
    final double[] gamma;
    final double[] diffSrc;
    final double[] dstMagnitude;
    final double[] gammaMagnitude;
    final double[] betaMagnitude;
    final double[] diffSrcMagnitude;

    Expected(float[] x, float[] dy, float[] gamma, float[] beta, Rectifier phi) {
      int c = gamma.length;
      double count = x.length / (double) c;
      mean = new double[c];
      variance = new double[c];
      dst = new double[x.length];
      this.beta = new double[c];
      this.gamma = new double[c];
      diffSrc = new double[x.length];
      dstMagnitude = new double[x.length];
      gammaMagnitude = new double[c];
      betaMagnitude = new double[c];
      diffSrcMagnitude = new double[x.length];
      double[] magnitude = new double[c];
      for (int i = 0; i < x.length; i++) {
        mean[i % c] += x[i] / count;
        magnitude[i % c] = Math.max(magnitude[i % c], Math.abs(x[i]));
      }
      for (int i = 0; i < x.length; i++) {
        variance[i % c] += (x[i] - mean[i % c]) * (x[i] - mean[i % c]) / count;
      }
      double[] normalized = new double[x.length];
      double[] scale = new double[c];
      for (int i = 0; i < x.length; i++) {
        int k = i % c;
        scale[k] = 1 / Math.sqrt(variance[k] + EPSILON);
        normalized[i] = (x[i] - mean[k]) * scale[k];
        dst[i] = Data.phi(phi, gamma[k] * normalized[i] + beta[k]);
        double terms = Math.abs(gamma[k]) * 2 * magnitude[k] * scale[k] + Math.abs(beta[k]);
        dstMagnitude[i] = phi.scale() * terms;
        this.beta[k] += dy[i];
        this.gamma[k] += dy[i] * normalized[i];
        betaMagnitude[k] += Math.abs(dy[i]);
        gammaMagnitude[k] += Math.abs(dy[i]) * 2 * magnitude[k] * scale[k];
      }
      for (int i = 0; i < x.length; i++) {
        int k = i % c;
        double own = gamma[k] * scale[k];
        diffSrc[i] = own * (dy[i] - (this.beta[k] + normalized[i] * this.gamma[k]) / count);
        double deviation = 2 * magnitude[k] * scale[k];
        diffSrcMagnitude[i] =
            Math.abs(own)
                * (Math.abs(dy[i])
                    + (betaMagnitude[k] + (1 + deviation) * gammaMagnitude[k]) / count);
      }
    }
  }

  private void check(Sizes sizes, DataType type, SplittableRandom random) {
    int c = sizes.part.dim(3);
    int part = Math.toIntExact(sizes.part.elements());
    int all = part * sizes.parts;
    Rectifier phi = pick(random, Data.REAL);
    Write write = pick(random, Write.values());
    float[] x = Data.normals(random, all, 1, type);
    float[] offset = Data.normals(random, c, 1, type);
    for (int i = 0; i < all; i++) {
      x[i] = Data.round(type, x[i] + offset[i % c]);
    }
    float[] dy = Data.normals(random, all, 1, type);
    float[] gamma = Data.normals(random, c, 1, F32);
    float[] beta = Data.normals(random, c, 1, F32);
    float[] old = Data.normals(random, part, 1, type);
    float[] oldGamma = Data.normals(random, c, 1, F32);
    float[] oldBeta = Data.normals(random, c, 1, F32);
    Expected expected = new Expected(x, dy, gamma, beta, phi);
    String description =
        "batch norm %d of %s %s phi %s %s".formatted(sizes.parts, sizes.part, type, phi, write);
    try (Trial trial = new Trial(backend, description);
        BatchNorm op = backend.batchNorm(sizes.part, type, sizes.parts, EPSILON, phi)) {
      Shape channels = Shape.of(c);
      Shape pairs = Shape.of(sizes.parts, 2, c);
      var scale = trial.input("gamma", F32, channels, Layout.ROW_MAJOR, gamma);
      var shift = trial.input("beta", F32, channels, Layout.ROW_MAJOR, beta);
      var moments = trial.output("moments", F32, pairs, Layout.ROW_MAJOR);
      var sums = trial.output("sums", F32, pairs, Layout.ROW_MAJOR);
      var mean = trial.output("mean", F32, channels, Layout.ROW_MAJOR);
      var variance = trial.output("variance", F32, channels, Layout.ROW_MAJOR);
      List<Trial.Operand> src = new ArrayList<>();
      List<Trial.Operand> dst = new ArrayList<>();
      List<Trial.Operand> diffDst = new ArrayList<>();
      List<Trial.Operand> diffSrc = new ArrayList<>();
      List<Trial.Operand> diffGamma = new ArrayList<>();
      List<Trial.Operand> diffBeta = new ArrayList<>();
      for (int p = 0; p < sizes.parts; p++) {
        src.add(trial.input("src", type, sizes.part, Layout.NHWC, slice(x, p, part)));
        dst.add(trial.output("dst", type, sizes.part, Layout.NHWC));
        diffDst.add(trial.input("diff_dst", type, sizes.part, Layout.NHWC, slice(dy, p, part)));
        diffSrc.add(trial.result("diff_src", type, sizes.part, Layout.NHWC, write, old));
        diffGamma.add(trial.result("diff_gamma", F32, write, oldGamma));
        diffBeta.add(trial.result("diff_beta", F32, write, oldBeta));
      }
      trial.run(
          stream -> {
            for (int p = 0; p < sizes.parts; p++) {
              op.moments(stream, src.get(p).tensor(), pair(moments, p, c));
            }
            op.statistics(stream, moments.tensor(), mean.tensor(), variance.tensor());
            for (int p = 0; p < sizes.parts; p++) {
              op.forward(
                  stream,
                  src.get(p).tensor(),
                  mean.tensor(),
                  variance.tensor(),
                  scale.tensor(),
                  shift.tensor(),
                  dst.get(p).tensor());
              op.backwardParameters(
                  stream,
                  diffDst.get(p).tensor(),
                  src.get(p).tensor(),
                  mean.tensor(),
                  variance.tensor(),
                  pair(sums, p, c),
                  diffGamma.get(p).tensor(),
                  diffBeta.get(p).tensor(),
                  write);
            }
            for (int p = 0; p < sizes.parts; p++) {
              op.backwardData(
                  stream,
                  diffDst.get(p).tensor(),
                  src.get(p).tensor(),
                  mean.tensor(),
                  variance.tensor(),
                  scale.tensor(),
                  sums.tensor(),
                  diffSrc.get(p).tensor(),
                  write);
            }
          });
      double[] meanBound = new double[c];
      double[] varianceBound = new double[c];
      for (int k = 0; k < c; k++) {
        meanBound[k] = 64 * Data.epsilon(F32) * (1 + Math.abs(expected.mean[k]));
        varianceBound[k] = 64 * Data.epsilon(F32) * (1 + expected.variance[k]);
      }
      trial.expectWithin(mean, expected.mean, meanBound);
      trial.expectWithin(variance, expected.variance, varianceBound);
      double[] gammaSum = new double[c];
      double[] betaSum = new double[c];
      for (int p = 0; p < sizes.parts; p++) {
        within(trial, type, dst.get(p), p, expected.dst, expected.dstMagnitude, null, write);
        within(
            trial,
            type,
            diffSrc.get(p),
            p,
            expected.diffSrc,
            expected.diffSrcMagnitude,
            old,
            write);
        float[] g = diffGamma.get(p).values();
        float[] b = diffBeta.get(p).values();
        for (int k = 0; k < c; k++) {
          boolean add = write == Write.ACCUMULATE;
          gammaSum[k] += g[k] - (add ? (double) oldGamma[k] : 0);
          betaSum[k] += b[k] - (add ? (double) oldBeta[k] : 0);
        }
      }
      for (int k = 0; k < c; k++) {
        double olds = sizes.parts * (Math.abs(oldGamma[k]) + (double) Math.abs(oldBeta[k]));
        double eps = 64 * Data.epsilon(F32);
        assertEquals(
            expected.gamma[k],
            gammaSum[k],
            eps * (expected.gammaMagnitude[k] + olds),
            description + " diff_gamma");
        assertEquals(
            expected.beta[k],
            betaSum[k],
            eps * (expected.betaMagnitude[k] + olds),
            description + " diff_beta");
      }
    }
  }

  private static float[] slice(float[] of, int index, int size) {
    return Arrays.copyOfRange(of, index * size, (index + 1) * size);
  }

  private static Tensor pair(Trial.Operand of, int part, int c) {
    return of.tensor().slice(2L * part * c, Shape.of(2, c), Layout.ROW_MAJOR);
  }

  private static void within(
      Trial trial,
      DataType type,
      Trial.Operand operand,
      int part,
      double[] expected,
      double[] magnitude,
      float[] old,
      Write write) {
    int size = Math.toIntExact(operand.tensor().shape().elements());
    double[] value = Arrays.copyOfRange(expected, part * size, (part + 1) * size);
    double[] bound = new double[size];
    for (int i = 0; i < size; i++) {
      double terms = magnitude[part * size + i];
      if (old != null && write == Write.ACCUMULATE) {
        value[i] += old[i];
        terms += Math.abs(old[i]);
      }
      bound[i] =
          64 * Data.epsilon(F32) * terms
              + 1.5 * Data.epsilon(type) * Math.abs(value[i])
              + Data.tiny(type);
    }
    trial.expectWithin(operand, value, bound);
  }

  /** A channel far off zero: deviations count, not squares. */
  @TestFactory
  Stream<DynamicTest> farOffZero() {
    return tests(
        Stream.of(
            new Case(
                "batch norm far off zero",
                () -> {
                  Shape shape = Shape.of(2, 8, 8, 1);
                  float[] x = new float[128];
                  for (int i = 0; i < x.length; i++) {
                    x[i] = 4096 + (i % 2 == 0 ? 1 : -1); // mean 4096, variance 1
                  }
                  try (Trial trial = new Trial(backend, "far off zero");
                      BatchNorm op =
                          backend.batchNorm(shape, F32, 1, EPSILON, Rectifier.IDENTITY)) {
                    var src = trial.input("src", F32, shape, Layout.NHWC, x);
                    var moments = trial.output("moments", F32, Shape.of(2, 1), Layout.ROW_MAJOR);
                    trial.run(stream -> op.moments(stream, src.tensor(), moments.tensor()));
                    trial.expectExactly(moments, new double[] {4096, 128});
                  }
                })));
  }

  @TestFactory
  Stream<DynamicTest> notFinite() {
    return tests(
        types().stream()
            .map(
                type ->
                    new Case(
                        "batch norm, not finite " + type,
                        () -> {
                          for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
                            notFinite(type, bad);
                          }
                        })));
  }

  private void notFinite(DataType type, float bad) {
    Shape shape = Shape.of(1, 3, 3, 4);
    SplittableRandom random = new SplittableRandom(1);
    float[] x = Data.normals(random, 36, 1, type);
    x[6] = bad; // channel 2
    try (Trial trial = new Trial(backend, "batch norm, not finite " + type);
        BatchNorm op = backend.batchNorm(shape, type, 1, EPSILON, new Rectifier(0, 1))) {
      var src = trial.input("src", type, shape, Layout.NHWC, x);
      var moments = trial.output("moments", F32, Shape.of(1, 2, 4), Layout.ROW_MAJOR);
      var mean = trial.output("mean", F32, 4);
      var variance = trial.output("variance", F32, 4);
      var one = trial.input("gamma", F32, new float[] {1, 1, 1, 1});
      var zero = trial.input("beta", F32, new float[4]);
      var dst = trial.output("dst", type, shape, Layout.NHWC);
      trial.run(
          stream -> {
            op.moments(stream, src.tensor(), pair(moments, 0, 4));
            op.statistics(stream, moments.tensor(), mean.tensor(), variance.tensor());
            op.forward(
                stream,
                src.tensor(),
                mean.tensor(),
                variance.tensor(),
                one.tensor(),
                zero.tensor(),
                dst.tensor());
          });
      float[] y = dst.values();
      for (int i = 0; i < y.length; i++) {
        assertEquals(i % 4 == 2, Float.isNaN(y[i]), "dst[" + i + "] is " + y[i]);
      }
    }
  }

  /**
   * The reference's gradients against central differences of its own forward pass, through the
   * statistics. (The other backends are held to the same formula by the cases above.)
   */
  @Test
  void centralDifferences() {
    Shape shape = Shape.of(2, 2, 1, 2);
    SplittableRandom random = new SplittableRandom(7);
    float[] x = Data.normals(random, 8, 1, F32);
    float[] w = Data.normals(random, 8, 1, F32); // the loss is the sum of w * dst
    float[] gamma = {1.5f, -0.5f};
    float[] beta = {0.25f, 2};
    float h = 0x1p-7f;
    try (Backend reference = new ReferenceProvider().open(0);
        BatchNorm op = reference.batchNorm(shape, F32, 1, EPSILON, Rectifier.IDENTITY);
        OnReference on = new OnReference(reference, op)) {
      float[][] gradients = on.gradients(x, w, gamma, beta);
      for (int i = 0; i < 8; i++) {
        int at = i;
        double difference = on.difference(h, d -> on.loss(moved(x, at, d), w, gamma, beta));
        assertEquals(difference, gradients[0][i], 2e-3, "diff_src[" + i + "]");
      }
      for (int k = 0; k < 2; k++) {
        int at = k;
        double ofGamma = on.difference(h, d -> on.loss(x, w, moved(gamma, at, d), beta));
        assertEquals(ofGamma, gradients[1][k], 1e-3, "diff_gamma[" + k + "]");
        double ofBeta = on.difference(h, d -> on.loss(x, w, gamma, moved(beta, at, d)));
        assertEquals(ofBeta, gradients[2][k], 1e-3, "diff_beta[" + k + "]");
      }
      assertTrue(Math.abs(gradients[0][0]) > 0.01, "a gradient that is not zero by chance");
    }
  }

  private static float[] moved(float[] values, int index, float by) {
    float[] moved = values.clone();
    moved[index] += by;
    return moved;
  }

  /** Forward and backward passes of whole batches. */
  private record OnReference(Backend backend, BatchNorm op) implements AutoCloseable {
    interface Loss {
      double at(float by);
    }

    double difference(float h, Loss loss) {
      return (loss.at(h) - loss.at(-h)) / (2 * (double) h);
    }

    private Tensor vector(float[] values) {
      Tensor tensor = backend.allocate(Shape.of(values.length), F32, Layout.ROW_MAJOR);
      return tensor.set(values);
    }

    private Tensor images(float[] values) {
      return backend.allocate(op.src(), F32, Layout.NHWC).set(values);
    }

    double loss(float[] x, float[] w, float[] gamma, float[] beta) {
      try (var stream = backend.newStream();
          Tensor src = images(x);
          Tensor statistics = vector(new float[8]);
          Tensor scale = vector(gamma);
          Tensor shift = vector(beta);
          Tensor dst = images(new float[8])) {
        op.moments(stream, src, part(statistics, 0, Shape.of(2, 2)));
        Tensor mean = part(statistics, 4, Shape.of(2));
        Tensor variance = part(statistics, 6, Shape.of(2));
        op.statistics(stream, part(statistics, 0, Shape.of(1, 2, 2)), mean, variance);
        op.forward(stream, src, mean, variance, scale, shift, dst);
        double sum = 0;
        float[] y = dst.toFloatArray();
        for (int i = 0; i < y.length; i++) {
          sum += (double) w[i] * y[i];
        }
        return sum;
      }
    }

    /** Of src, gamma and beta. */
    float[][] gradients(float[] x, float[] w, float[] gamma, float[] beta) {
      try (var stream = backend.newStream();
          Tensor src = images(x);
          Tensor diffDst = images(w);
          Tensor statistics = vector(new float[12]);
          Tensor scale = vector(gamma);
          Tensor diffGamma = vector(beta);
          Tensor diffBeta = vector(beta);
          Tensor diffSrc = images(new float[8])) {
        op.moments(stream, src, part(statistics, 0, Shape.of(2, 2)));
        Tensor mean = part(statistics, 4, Shape.of(2));
        Tensor variance = part(statistics, 6, Shape.of(2));
        op.statistics(stream, part(statistics, 0, Shape.of(1, 2, 2)), mean, variance);
        Write write = Write.OVERWRITE;
        op.backwardParameters(
            stream,
            diffDst,
            src,
            mean,
            variance,
            part(statistics, 8, Shape.of(2, 2)),
            diffGamma,
            diffBeta,
            write);
        Tensor sums = part(statistics, 8, Shape.of(1, 2, 2));
        op.backwardData(stream, diffDst, src, mean, variance, scale, sums, diffSrc, write);
        return new float[][] {
          diffSrc.toFloatArray(), diffGamma.toFloatArray(), diffBeta.toFloatArray()
        };
      }
    }

    private static Tensor part(Tensor of, int at, Shape shape) {
      return of.slice(at, shape, Layout.ROW_MAJOR);
    }

    @Override
    public void close() {}
  }

  @Test
  void unsuitableOperands() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(2, 3, 4, 5);
    Write w = Write.OVERWRITE;
    try (BatchNorm op = backend.batchNorm(shape, F32, 2, EPSILON, Rectifier.IDENTITY);
        var stream = backend.newStream();
        Tensor src = backend.allocate(shape, F32, Layout.NHWC);
        Tensor dst = backend.allocate(shape, F32, Layout.NHWC);
        Tensor pair = backend.allocate(Shape.of(2, 5), F32, Layout.ROW_MAJOR);
        Tensor pairs = backend.allocate(Shape.of(2, 2, 5), F32, Layout.ROW_MAJOR);
        Tensor a = backend.allocate(Shape.of(5), F32, Layout.ROW_MAJOR);
        Tensor b = backend.allocate(Shape.of(5), F32, Layout.ROW_MAJOR)) {
      refusals.require("src", src, t -> op.moments(stream, t, pair));
      refusals.require("moments", pair, t -> op.moments(stream, src, t));
      refusals.require("moments", pairs, t -> op.statistics(stream, t, a, b));
      refusals.require("mean", a, t -> op.statistics(stream, pairs, t, b));
      refusals.require("variance", b, t -> op.statistics(stream, pairs, a, t));
      refusals.require("src", src, t -> op.forward(stream, t, a, a, b, b, dst));
      refusals.require("gamma", b, t -> op.forward(stream, src, a, a, t, b, dst));
      refusals.require("beta", b, t -> op.forward(stream, src, a, a, b, t, dst));
      refusals.require("dst", dst, t -> op.forward(stream, src, a, a, b, b, t));
      refusals.require(
          "sums", pair, t -> op.backwardParameters(stream, dst, src, a, a, t, b, b, w));
      refusals.require(
          "diff_dst", dst, t -> op.backwardData(stream, t, src, a, a, b, pairs, dst, w));
      refusals.require("sums", pairs, t -> op.backwardData(stream, src, src, a, a, b, t, dst, w));
      Refusals.requireMessage(
          OperandException.class, () -> op.forward(stream, src, a, a, b, b, src), "overlap");
      Refusals.requireMessage(
          OperandException.class, () -> op.statistics(stream, pairs, a, a), "overlap");
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () ->
              backend.batchNorm(Shape.of(0, 2, 2, 3), F32, 1, EPSILON, Rectifier.IDENTITY).close(),
          "mean");
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.batchNorm(shape, F32, 0, EPSILON, Rectifier.IDENTITY).close(),
          "part");
      Refusals.requireMessage(
          IllegalArgumentException.class,
          () -> backend.batchNorm(shape, F32, 1, 0, Rectifier.IDENTITY).close(),
          "epsilon");
      Refusals.requireClosing(op, () -> op.moments(stream, src, pair));
    }
  }
}
