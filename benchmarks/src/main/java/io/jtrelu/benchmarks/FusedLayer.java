package io.jtrelu.benchmarks;

import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Activation;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.pytorch.engine.PtNDArray;
import ai.djl.pytorch.jni.JniUtils;
import ai.djl.training.GradientCollector;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * One layer, convolution + bias + TReLU, on one core: its forward pass, or forward, data gradient
 * and weight gradient. Each side applies one derivative of the rectifier per layer: this library
 * that of the layer's source, the peer that of its destination, as in a chain of such layers.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class FusedLayer {
  private static final Rectifier PHI = Rectifier.tailored(0.4259071946);

  /** A line of shapes/, as {@code resnet50/stage2-3x3}. */
  @Param("resnet50/stage2-3x3")
  public String shape;

  /** Images. */
  @Param("4")
  public int batch;

  /** Who runs it. */
  @Param({"jtrelu", "djl-nchw", "djl-nhwc"})
  public String contender;

  private Layer layer;

  /** What both sides are given, in this library's layouts. */
  private record Values(Conv2dDescriptor d, float[] src, float[] weights, float[] bias) {}

  /** Results in this library's layouts; the gradients are those of the sum of all outputs. */
  private record Results(float[] dst, float[] diffSrc, float[] diffWeights, float[] diffBias) {}

  private interface Layer extends AutoCloseable {
    void forward();

    void forwardBackward();

    Results results();

    @Override
    void close();
  }

  /** Opens the layer and, for a peer, compares all four results. */
  @Setup(Level.Trial)
  public void open() {
    Conv2dDescriptor d = Shapes.read(shape).withBatch(batch);
    Random random = new Random(1);
    float[] src = normal(random, d.src().elements(), 1);
    float[] weights =
        normal(random, d.weights().elements(), Math.sqrt(1.0 / (d.ic() * d.kh() * d.kw())));
    // A bias that keeps all results away from the kink, where rounding would choose the branch.
    float[] bias;
    try (Backend backend = Backends.open("cpu")) {
      bias = KinkFree.shift(KinkFree.convolve(backend, d, src, weights), d.oc(), 1, random);
    }
    Values values = new Values(d, src, weights, bias);
    if (contender.equals("jtrelu")) {
      layer = new Jtrelu(values);
      return;
    }
    layer = new Djl(values, contender.endsWith("nhwc"));
    try (Layer library = new Jtrelu(values)) {
      Results ours = library.results();
      Results theirs = layer.results();
      // Rounding of sums, in another order and by Winograd; the bias's gradient is a sum of equal
      // numbers, whose errors add up if it is taken one by one.
      double sums = 1e-5;
      double ones = (double) d.n() * d.oh() * d.ow() * 0x1p-24;
      require("dst", ours.dst, theirs.dst, sums);
      require("diff_src", ours.diffSrc, theirs.diffSrc, sums);
      require("diff_weights", ours.diffWeights, theirs.diffWeights, sums);
      require("diff_bias", ours.diffBias, theirs.diffBias, Math.max(sums, ones));
    }
  }

  private void require(String what, float[] ours, float[] theirs, double bound) {
    double distance = Agreement.distance(ours, theirs, 0, ours.length);
    if (!(distance <= bound)) {
      throw new IllegalStateException(contender + ": " + what + " differs by " + distance);
    }
  }

  private static float[] normal(Random random, long count, double deviation) {
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (deviation * random.nextGaussian());
    }
    return values;
  }

  /** dst alone. */
  @Benchmark
  public void forward() {
    layer.forward();
  }

  /** dst and all gradients. */
  @Benchmark
  public void forwardBackward() {
    layer.forwardBackward();
  }

  /** Releases it. */
  @TearDown(Level.Trial)
  public void close() {
    layer.close();
  }

  private static final class Jtrelu implements Layer {
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private final Backend backend = own(Backends.open("cpu"));
    private final Stream stream = own(backend.newStream());
    private final Conv2dDescriptor d;
    private final io.jtrelu.backend.Conv2d op;
    private final PackedWeights packed;
    private final Tensor src;
    private final Tensor weights;
    private final Tensor bias;
    private final Tensor dst;
    private final Tensor diffDst;
    private final Tensor diffSrc;
    private final Tensor diffWeights;
    private final Tensor diffBias;

    Jtrelu(Values v) {
      d = v.d;
      op = own(backend.conv2d(d, DataType.F32, PHI, PHI));
      packed = own(op.newPackedWeights());
      src = tensor(d.src(), Layout.NHWC);
      weights = tensor(d.weights(), Layout.KRSC);
      bias = tensor(d.bias(), Layout.ROW_MAJOR);
      dst = tensor(d.dst(), Layout.NHWC);
      diffDst = tensor(d.dst(), Layout.NHWC);
      diffSrc = tensor(d.src(), Layout.NHWC);
      diffWeights = tensor(d.weights(), Layout.KRSC);
      diffBias = tensor(d.bias(), Layout.ROW_MAJOR);
      src.set(v.src);
      weights.set(v.weights);
      bias.set(v.bias);
      op.pack(stream, weights, packed);
      op.forward(stream, src, packed, bias, dst);
      stream.synchronize();
      float[] gradient = dst.toFloatArray();
      for (int i = 0; i < gradient.length; i++) {
        gradient[i] = PHI.scale() * (gradient[i] > 0 ? 1 : PHI.slope());
      }
      diffDst.set(gradient);
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    private Tensor tensor(io.jtrelu.tensor.Shape shape, Layout layout) {
      return own(backend.allocate(shape, DataType.F32, layout));
    }

    @Override
    public void forward() {
      op.forward(stream, src, packed, bias, dst);
      stream.synchronize();
    }

    @Override
    public void forwardBackward() {
      op.pack(stream, weights, packed); // weights change with every step
      op.forward(stream, src, packed, bias, dst);
      op.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.OVERWRITE);
      op.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE);
      stream.synchronize();
    }

    @Override
    public Results results() {
      forwardBackward();
      float[] gated = diffSrc.toFloatArray();
      for (int i = 0; i < gated.length; i++) {
        gated[i] /= PHI.scale() * (src.get(i) > 0 ? 1 : PHI.slope());
      }
      return new Results(
          dst.toFloatArray(), gated, diffWeights.toFloatArray(), diffBias.toFloatArray());
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException(failure);
        }
      }
    }
  }

  private static final class Djl implements Layer {
    private final Conv2dDescriptor d;
    private final NDManager manager = Engine.getEngine("PyTorch").newBaseManager();
    private final NDArray[] inputs; // src, weights, bias

    Djl(Values v, boolean channelsLast) {
      JniUtils.setNumThreads(1);
      d = v.d;
      inputs =
          new NDArray[] {
            nchw(v.src, d.src(), channelsLast),
            nchw(v.weights, d.weights(), channelsLast),
            manager.create(v.bias)
          };
      for (NDArray input : inputs) {
        input.setRequiresGradient(true);
      }
    }

    private NDArray nchw(float[] values, io.jtrelu.tensor.Shape shape, boolean channelsLast) {
      long[] dims = Arrays.stream(shape.dims()).asLongStream().toArray();
      NDArray view = manager.create(values, new Shape(dims)).transpose(0, 3, 1, 2);
      return channelsLast ? view : manager.create(view.toFloatArray(), view.getShape());
    }

    private NDArray run(NDManager scope) {
      inputs[0].tempAttach(scope);
      boolean symmetric = d.padTop() == d.padBottom() && d.padLeft() == d.padRight();
      NDArray src =
          symmetric
              ? inputs[0]
              : inputs[0].pad(new Shape(d.padLeft(), d.padRight(), d.padTop(), d.padBottom()), 0);
      NDArray x =
          Conv2d.conv2d(
                  src,
                  inputs[1],
                  inputs[2],
                  new Shape(d.strideH(), d.strideW()),
                  symmetric ? new Shape(d.padTop(), d.padLeft()) : new Shape(0, 0),
                  new Shape(d.dilationH(), d.dilationW()),
                  d.groups())
              .singletonOrThrow();
      return Activation.leakyRelu(x, PHI.slope()).muli(PHI.scale());
    }

    @Override
    public void forward() {
      JniUtils.setGradMode(false);
      try (NDManager scope = manager.newSubManager()) {
        run(scope);
      }
      JniUtils.setGradMode(true);
    }

    private float[] forwardBackward(boolean copy) {
      try (NDManager scope = manager.newSubManager();
          GradientCollector collector = Engine.getEngine("PyTorch").newGradientCollector()) {
        NDArray dst = run(scope);
        collector.backward(dst); // seeded with ones
        return copy ? dst.transpose(0, 2, 3, 1).toFloatArray() : new float[0];
      }
    }

    @Override
    public void forwardBackward() {
      forwardBackward(false);
    }

    @Override
    public Results results() {
      float[] dst = forwardBackward(true);
      float[][] gradients = new float[inputs.length][];
      for (int i = 0; i < inputs.length; i++) {
        try (NDArray gradient = inputs[i].getGradient();
            NDArray ours = i == 2 ? gradient : gradient.transpose(0, 2, 3, 1)) {
          gradients[i] = ours.toFloatArray();
        }
        JniUtils.zeroGrad((PtNDArray) inputs[i]);
      }
      return new Results(dst, gradients[0], gradients[1], gradients[2]);
    }

    @Override
    public void close() {
      manager.close();
    }
  }
}
