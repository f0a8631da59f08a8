package io.jtrelu.backend;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Every public call that computes, with operands that suit it: what {@link HostileCases} misuses.
 */
final class HostileCalls {
  /** How a call uses an operand. */
  enum Access {
    READ,
    WRITE,
    READ_AND_WRITE
  }

  /** An operand of a call. */
  @SuppressWarnings("ArrayRecordComponent") // nobody compares operands
  record Operand(
      String name, Shape shape, DataType type, Layout layout, Access access, float[] values) {
    boolean isWritten() {
      return access != Access.READ;
    }

    /** Its values on the host. */
    Tensor onHost() {
      return Tensor.allocate(shape, type, layout).set(values);
    }
  }

  /** Runs a prepared call. */
  interface Runner {
    void run(Stream stream, Tensor[] operands);
  }

  /**
   * A call that is prepared on a backend.
   *
   * @param operation what is closed first, or null where there is only the backend
   * @param packed packed weights that it reads, or null
   * @param runner runs it
   */
  record Prepared(Operation operation, PackedWeights packed, Runner runner)
      implements AutoCloseable {
    @Override
    public void close() {
      if (packed != null) {
        packed.close();
      }
      if (operation != null) {
        operation.close();
      }
    }
  }

  /** Prepares a call. */
  interface Preparation {
    Prepared prepare(Backend backend);
  }

  /**
   * A call.
   *
   * @param repeats whether it gives the same results when it runs again on its own results
   */
  record Call(String name, List<Operand> operands, boolean repeats, Preparation preparation) {}

  private static final DataType F32 = DataType.F32;
  private static final Rectifier PHI = Rectifier.tailored(0.5);
  private static final Write WRITE = Write.OVERWRITE;

  private final List<Call> calls = new ArrayList<>();
  private final SplittableRandom random = new SplittableRandom(1);
  private final int length;

  private HostileCalls(int length) {
    this.length = length;
  }

  /** All that a backend has, elementwise ones on vectors of a length. */
  static List<Call> all(Backend backend, int length) {
    HostileCalls all = new HostileCalls(length);
    all.transfers();
    all.convolutions();
    all.passes();
    all.pooling();
    all.images();
    all.optimisers();
    all.fusions(backend);
    return all.calls;
  }

  private void add(String name, boolean repeats, List<Operand> operands, Preparation preparation) {
    calls.add(new Call(name, operands, repeats, preparation));
  }

  private Operand operand(String name, Shape shape, DataType type, Layout layout, Access access) {
    float[] values =
        type == DataType.I32 || type == DataType.U8
            ? new float[Math.toIntExact(shape.elements())]
            : Data.normals(random, shape.elements(), 1, type);
    return new Operand(name, shape, type, layout, access, values);
  }

  private Operand in(String name, Shape shape, Layout layout) {
    return operand(name, shape, F32, layout, Access.READ);
  }

  private Operand out(String name, Shape shape, Layout layout) {
    return operand(name, shape, F32, layout, Access.WRITE);
  }

  private Operand in(String name) {
    return in(name, Shape.of(length), Layout.ROW_MAJOR);
  }

  private Operand out(String name) {
    return out(name, Shape.of(length), Layout.ROW_MAJOR);
  }

  private Operand inOut(String name) {
    return operand(name, Shape.of(length), F32, Layout.ROW_MAJOR, Access.READ_AND_WRITE);
  }

  private static Operand numbers(String name, DataType type, Access access, float... values) {
    return new Operand(name, Shape.of(values.length), type, Layout.ROW_MAJOR, access, values);
  }

  private void transfers() {
    add(
        "copy",
        true,
        List.of(in("src"), out("dst")),
        b -> new Prepared(null, null, (s, t) -> b.copy(s, t[0], t[1])));
    add(
        "convert",
        true,
        List.of(
            in("src"),
            operand("dst", Shape.of(length), DataType.F16, Layout.ROW_MAJOR, Access.WRITE)),
        b -> new Prepared(null, null, (s, t) -> b.copy(s, t[0], t[1])));
    add(
        "fill",
        true,
        List.of(out("dst")),
        b -> new Prepared(null, null, (s, t) -> b.fill(s, t[0], 3)));
  }

  private void convolutions() {
    convolution("3x3", Conv2dDescriptor.of(2, 12, 12, 16, 16, 3, 1, 1));
    convolution("strided", Conv2dDescriptor.of(2, 12, 12, 16, 16, 3, 2, 1));
  }

  private static Conv2d conv(Backend backend, Conv2dDescriptor d, Rectifier activation) {
    return backend.conv2d(d, F32, activation, PHI);
  }

  /** Weights that are packed, and the tensor they are from, which stays open with them. */
  private static Prepared packed(
      Backend backend, Conv2d conv, Operation operation, Operand weights, WithWeights call) {
    Tensor device = backend.allocate(weights.shape(), F32, Layout.KRSC);
    PackedWeights packed = conv.newPackedWeights();
    try (Stream stream = backend.newStream();
        Tensor host = weights.onHost()) {
      backend.copy(stream, host, device);
      conv.pack(stream, device, packed);
      stream.synchronize();
    }
    return new Prepared(
        () -> {
          operation.close();
          conv.close(); // once more, where it is the operation
          device.close();
        },
        packed,
        (s, t) -> call.run(s, packed, t));
  }

  private interface WithWeights {
    void run(Stream stream, PackedWeights weights, Tensor[] operands);
  }

  private void convolution(String kind, Conv2dDescriptor d) {
    Operand src = in("src", d.src(), Layout.NHWC);
    Operand weights = in("weights", d.weights(), Layout.KRSC);
    Operand bias = in("bias", d.bias(), Layout.ROW_MAJOR);
    Operand dst = out("dst", d.dst(), Layout.NHWC);
    Operand diffDst = in("diff_dst", d.dst(), Layout.NHWC);
    Operand diffSrc = out("diff_src", d.src(), Layout.NHWC);
    add(
        "pack " + kind,
        true,
        List.of(weights),
        b -> {
          Conv2d conv = conv(b, d, PHI);
          PackedWeights into = conv.newPackedWeights();
          return new Prepared(conv, into, (s, t) -> conv.pack(s, t[0], into));
        });
    add(
        "forward " + kind,
        true,
        List.of(src, bias, dst),
        b -> {
          Conv2d conv = conv(b, d, PHI);
          return packed(b, conv, conv, weights, (s, w, t) -> conv.forward(s, t[0], w, t[1], t[2]));
        });
    add(
        "backwardData " + kind,
        true,
        List.of(diffDst, src, diffSrc),
        b -> {
          Conv2d conv = conv(b, d, PHI);
          return packed(
              b,
              conv,
              conv,
              weights,
              (s, w, t) -> conv.backwardData(s, t[0], w, t[1], t[2], WRITE));
        });
    add(
        "backwardWeights " + kind,
        true,
        List.of(
            src,
            diffDst,
            out("diff_weights", d.weights(), Layout.KRSC),
            out("diff_bias", d.bias(), Layout.ROW_MAJOR)),
        b -> {
          Conv2d conv = conv(b, d, PHI);
          return new Prepared(
              conv, null, (s, t) -> conv.backwardWeights(s, t[0], t[1], t[2], t[3], WRITE));
        });
    add(
        "sum " + kind,
        true,
        List.of(src, bias, in("shortcut", d.dst(), Layout.NHWC), dst),
        b -> {
          Conv2d conv = conv(b, d, Rectifier.IDENTITY);
          Conv2dSum sum = b.conv2dSum(conv, 0.6f, 0.8f, PHI);
          return packed(
              b, conv, sum, weights, (s, w, t) -> sum.forward(s, t[0], w, t[1], t[2], t[3]));
        });
  }

  private void passes() {
    add(
        "rectify",
        true,
        List.of(in("src"), out("dst")),
        b -> {
          Rectify op = b.rectify(length, F32, PHI);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1]));
        });
    add(
        "rectify backward",
        true,
        List.of(in("dst"), in("diff_dst"), out("diff_src")),
        b -> {
          Rectify op = b.rectify(length, F32, PHI);
          return new Prepared(op, null, (s, t) -> op.backward(s, t[0], t[1], t[2], WRITE));
        });
    TransformedActivation tanh = new TransformedActivation(Activation.TANH, 1.1, 0.1, 1.2, 0.2, 0);
    add(
        "pointwise",
        true,
        List.of(in("src"), out("dst")),
        b -> {
          Pointwise op = b.pointwise(length, F32, tanh);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1]));
        });
    TransformedActivation swish = new TransformedActivation(Activation.SWISH, 1, 0.1, 1.2, 0.2, 0);
    add(
        "pointwise backward",
        true,
        List.of(in("saved"), in("diff_dst"), out("diff_src")),
        b -> {
          Pointwise op = b.pointwise(length, F32, swish);
          return new Prepared(op, null, (s, t) -> op.backward(s, t[0], t[1], t[2], WRITE));
        });
    add(
        "weighted sum",
        true,
        List.of(in("a"), in("b"), out("dst")),
        b -> {
          WeightedSum op = b.weightedSum(length, F32, 0.6f, 0.8f, PHI);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1], t[2]));
        });
    add(
        "weighted sum backward",
        true,
        List.of(in("diff_dst"), in("src"), out("diff_src")),
        b -> {
          WeightedSum op = b.weightedSum(length, F32, 0.6f, 0.8f, PHI);
          return new Prepared(op, null, (s, t) -> op.backwardA(s, t[0], PHI, t[1], t[2], WRITE));
        });
    Operand sequence = numbers("sequence", DataType.I32, Access.READ, 7, 0);
    add(
        "dropout",
        true,
        List.of(in("src"), out("dst"), sequence),
        b -> {
          Dropout op = b.dropout(length, F32, 0.5f);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1], 5, t[2]));
        });
    add(
        "dropout backward",
        true,
        List.of(in("diff_dst"), out("diff_src"), sequence),
        b -> {
          Dropout op = b.dropout(length, F32, 0.5f);
          return new Prepared(op, null, (s, t) -> op.backward(s, t[0], t[1], 5, t[2], WRITE));
        });
  }

  private void pooling() {
    MaxPool2dDescriptor d = new MaxPool2dDescriptor(2, 12, 12, 16, 2, 2, 0, 0);
    Operand src = in("src", d.src(), Layout.NHWC);
    add(
        "max-pool",
        true,
        List.of(
            src,
            out("dst", d.dst(), Layout.NHWC),
            operand("argmax", d.dst(), DataType.U8, Layout.NHWC, Access.WRITE)),
        b -> {
          MaxPool2d op = b.maxPool2d(d, F32, PHI);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1], t[2]));
        });
    add(
        "max-pool backward",
        true,
        List.of(
            in("diff_dst", d.dst(), Layout.NHWC),
            operand("argmax", d.dst(), DataType.U8, Layout.NHWC, Access.READ),
            src,
            out("diff_src", d.src(), Layout.NHWC)),
        b -> {
          MaxPool2d op = b.maxPool2d(d, F32, PHI);
          return new Prepared(op, null, (s, t) -> op.backward(s, t[0], t[1], t[2], t[3], WRITE));
        });
    Shape means = Shape.of(2, 1, 1, 16);
    add(
        "mean-pool",
        true,
        List.of(src, out("dst", means, Layout.NHWC)),
        b -> {
          GlobalMeanPool op = b.globalMeanPool(d.src(), F32, PHI);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1]));
        });
    add(
        "mean-pool backward",
        true,
        List.of(in("diff_dst", means, Layout.NHWC), src, out("diff_src", d.src(), Layout.NHWC)),
        b -> {
          GlobalMeanPool op = b.globalMeanPool(d.src(), F32, PHI);
          return new Prepared(op, null, (s, t) -> op.backward(s, t[0], t[1], t[2], WRITE));
        });
  }

  private void images() {
    Shape images = Shape.of(2, 16, 16, 3);
    LocationNorm.Settings settings =
        new LocationNorm.Settings(
            List.of(0.1, 0.2, 0.3), List.of(1.0, 2.0, 3.0), LocationNorm.Homogeneous.IMAGE_RMS, 1);
    add(
        "location norm",
        true,
        List.of(
            in("src", images, Layout.NHWC),
            new Operand(
                "windows",
                Shape.of(2, 3),
                DataType.I32,
                Layout.ROW_MAJOR,
                Access.READ,
                new float[] {1, -1, 1, 0, 2, 0}),
            out("dst", Shape.of(2, 16, 16, 4), Layout.NHWC)),
        b -> {
          LocationNorm op = b.locationNorm(images, F32, F32, settings);
          return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1], t[2]));
        });
    add(
        "reorder",
        true,
        List.of(
            in("src", Shape.of(2, 3, 16, 16), Layout.NCHW),
            out("dst", Shape.of(2, 16, 16, 3), Layout.NHWC)),
        b -> {
          Reorder op = b.reorder(Shape.of(2, 3, 16, 16), F32, Layout.NCHW, Layout.NHWC);
          return new Prepared(op, null, (s, t) -> op.run(s, t[0], t[1]));
        });
    Shape logits = Shape.of(4, 1, 1, 10);
    add(
        "softmax",
        true,
        List.of(
            in("logits", logits, Layout.NHWC),
            numbers("labels", DataType.I32, Access.READ, 0, 3, 9, -1),
            out("diff_logits", logits, Layout.NHWC),
            numbers("losses", F32, Access.WRITE, new float[4]),
            numbers("correct", DataType.I32, Access.WRITE, new float[4])),
        b -> {
          SoftmaxCrossEntropy op = b.softmaxCrossEntropy(4, 10, F32, 0.1f);
          return new Prepared(op, null, (s, t) -> op.run(s, t[0], t[1], 0.25f, t[2], t[3], t[4]));
        });
    add(
        "orthogonal",
        true,
        List.of(out("dst", Shape.of(96, 80), Layout.ROW_MAJOR)),
        b -> {
          Orthogonal op = b.orthogonal(96, 80, 1);
          return new Prepared(op, null, (s, t) -> op.fill(s, t[0], 3, 1));
        });
  }

  private void optimisers() {
    add(
        "gradient sum",
        false,
        List.of(inOut("gradient"), in("part"), in("another part")),
        b -> {
          GradientSum op = b.gradientSum(length);
          return new Prepared(op, null, (s, t) -> op.run(s, t[0], Arrays.asList(t[1], t[2])));
        });
    add(
        "gradient norm",
        true,
        List.of(in("gradient"), numbers("result", F32, Access.READ_AND_WRITE, 1, 1)),
        b -> {
          GradientNorm op = b.gradientNorm(length);
          return new Prepared(op, null, (s, t) -> op.run(s, t[0], 1, t[1]));
        });
    Operand one = numbers("gradient scale", F32, Access.READ, 1);
    add(
        "sgd",
        false,
        List.of(
            inOut("parameters"),
            in("gradient"),
            inOut("velocity"),
            numbers("learning rate", F32, Access.READ, 0.1f),
            one),
        b -> {
          Sgd op = b.sgd(length, 0.9f, true, 0.01f);
          return new Prepared(op, null, (s, t) -> op.step(s, t[0], t[1], t[2], t[3], t[4]));
        });
    Operand second = inOut("second moment");
    for (int i = 0; i < second.values().length; i++) {
      second.values()[i] = 1 + Math.abs(second.values()[i]);
    }
    add(
        "adam",
        false,
        List.of(
            inOut("parameters"),
            in("gradient"),
            inOut("first moment"),
            second,
            numbers("scalars", F32, Access.READ, 0.1f, 3),
            one),
        b -> {
          Adam op = b.adam(length, 0.9f, 0.99f, 1e-3f, 0.01f);
          return new Prepared(op, null, (s, t) -> op.step(s, t[0], t[1], t[2], t[3], t[4], t[5]));
        });
  }

  /** An operand of whole numbers, which all backends add up exactly. */
  private Operand whole(String name, Shape shape, DataType type, Layout layout, Access access) {
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextInt(-1, 2);
    }
    return new Operand(name, shape, type, layout, access, values);
  }

  private Operand wholeImages(String name, Shape shape, Access access) {
    return whole(name, shape, DataType.BF16, Layout.NHWC, access);
  }

  private Operand wholeBias(String name, Conv2dDescriptor d, Access access) {
    return whole(name, d.bias(), F32, Layout.ROW_MAJOR, access);
  }

  private Operand wholeWeights(String name, Conv2dDescriptor d, Access access) {
    return whole(name, d.weights(), F32, Layout.KRSC, access);
  }

  private void fusions(Backend backend) {
    chain(
        backend,
        Conv2dDescriptor.of(1, 5, 7, 64, 256, 1, 1, 0),
        Conv2dDescriptor.of(1, 5, 7, 256, 64, 1, 1, 0));
    pooled(
        backend,
        Conv2dDescriptor.of(1, 8, 224, 4, 64, 7, 2, 3),
        new MaxPool2dDescriptor(1, 4, 112, 64, 3, 2, 1, 1));
  }

  private static boolean isWhole(HostileFusions.Parts parts) {
    try (parts) {
      return parts.isWhole();
    }
  }

  private void chain(Backend backend, Conv2dDescriptor first, Conv2dDescriptor second) {
    Operand src = wholeImages("src", first.src(), Access.READ);
    Operand bias = wholeBias("bias1", first, Access.READ);
    Operand weights = wholeWeights("weights1", first, Access.READ);
    Operand weightsOfSecond = wholeWeights("weights2", second, Access.READ);
    if (!isWhole(new HostileFusions.Chain(backend, first, second, weights, weightsOfSecond))) {
      return;
    }
    add(
        "chain",
        true,
        List.of(
            src,
            bias,
            wholeBias("bias2", second, Access.READ),
            wholeImages("dst", second.dst(), Access.WRITE)),
        b -> {
          var op = new HostileFusions.Chain(b, first, second, weights, weightsOfSecond);
          return new Prepared(op, op.packed, op::forward);
        });
    add(
        "chain backward",
        true,
        List.of(
            src,
            bias,
            wholeImages("diff_dst", second.dst(), Access.READ),
            wholeImages("diff_src", first.src(), Access.WRITE),
            wholeWeights("diff_weights1", first, Access.WRITE),
            wholeBias("diff_bias1", first, Access.WRITE),
            wholeWeights("diff_weights2", second, Access.WRITE),
            wholeBias("diff_bias2", second, Access.WRITE)),
        b -> {
          var op = new HostileFusions.Chain(b, first, second, weights, weightsOfSecond);
          return new Prepared(op, op.packed, op::backward);
        });
  }

  private void pooled(Backend backend, Conv2dDescriptor d, MaxPool2dDescriptor pooling) {
    Operand src = wholeImages("src", d.src(), Access.READ);
    Operand bias = wholeBias("bias", d, Access.READ);
    Operand weights = wholeWeights("weights", d, Access.READ);
    if (!isWhole(new HostileFusions.Pool(backend, d, pooling, src, weights, bias))) {
      return;
    }
    add(
        "pooled",
        true,
        List.of(src, bias, wholeImages("dst", pooling.dst(), Access.WRITE)),
        b -> {
          var op = new HostileFusions.Pool(b, d, pooling, src, weights, bias);
          return new Prepared(op, op.packed, op::forward);
        });
    add(
        "pooled backward",
        true,
        List.of(
            src,
            wholeImages("diff_dst", pooling.dst(), Access.READ),
            wholeWeights("diff_weights", d, Access.WRITE),
            wholeBias("diff_bias", d, Access.WRITE)),
        b -> {
          var op = new HostileFusions.Pool(b, d, pooling, src, weights, bias);
          return new Prepared(op, null, op::backward);
        });
  }
}
