package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.junit.jupiter.api.Test;

/** Arguments that make no sense, and operands that overlap: refused, with their names. */
class ImpossibleRequestsContractTest extends Contract {
  private static final float[] NOT_NEGATIVE = {Float.NaN, -0.1f, Float.POSITIVE_INFINITY};
  private static final float[] NOT_BELOW_ONE = {
    Float.NaN, -0.1f, 1, 1.5f, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY
  };

  private static void refuse(Runnable request, String... words) {
    Refusals.requireMessage(IllegalArgumentException.class, request::run, words);
  }

  private static void overlap(Runnable request, String first, String second) {
    Refusals.requireMessage(OperandException.class, request::run, first, second, "overlap");
  }

  @Test
  void numbersOfSgd() {
    refuse(() -> backend.sgd(-1, 0.9f, true, 0).close(), "sgd", "elements", "-1");
    for (float bad : NOT_BELOW_ONE) {
      refuse(() -> backend.sgd(4, bad, true, 0).close(), "sgd", "momentum", "" + bad);
    }
    for (float bad : NOT_NEGATIVE) {
      refuse(() -> backend.sgd(4, 0.9f, true, bad).close(), "sgd", "weight decay", "" + bad);
    }
  }

  @Test
  void numbersOfAdam() {
    refuse(() -> backend.adam(-2, 0.9f, 0.9f, 1, 0).close(), "adam", "elements", "-2");
    for (float bad : NOT_BELOW_ONE) {
      refuse(() -> backend.adam(4, bad, 0.9f, 1, 0).close(), "adam", "beta1", "" + bad);
      refuse(() -> backend.adam(4, 0.9f, bad, 1, 0).close(), "adam", "beta2", "" + bad);
    }
    for (float bad : NOT_NEGATIVE) {
      refuse(() -> backend.adam(4, 0.9f, 0.9f, bad, 0).close(), "adam", "epsilon", "" + bad);
      refuse(() -> backend.adam(4, 0.9f, 0.9f, 1, bad).close(), "adam", "weight decay", "" + bad);
    }
  }

  @Test
  void numbersOfDropout() {
    refuse(() -> backend.dropout(-3, DataType.F32, 0.5f).close(), "dropout", "elements", "-3");
    for (float bad : NOT_BELOW_ONE) {
      refuse(() -> backend.dropout(4, DataType.F32, bad).close(), "dropout", "rate", "" + bad);
    }
  }

  @Test
  void numbersOfPasses() {
    DataType f32 = DataType.F32;
    refuse(() -> backend.gradientNorm(-4).close(), "gradient norm", "elements", "-4");
    refuse(() -> backend.gradientSum(-5).close(), "elements", "-5");
    refuse(() -> backend.rectify(-6, f32, Rectifier.IDENTITY).close(), "elements", "-6");
    refuse(() -> backend.weightedSum(-7, f32, 1, 1, Rectifier.IDENTITY).close(), "elements", "-7");
    try (var stream = backend.newStream();
        GradientNorm norm = backend.gradientNorm(4);
        Tensor gradient = backend.allocate(Shape.of(4), f32, Layout.ROW_MAJOR);
        Tensor result = backend.allocate(Shape.of(2), f32, Layout.ROW_MAJOR)) {
      for (float bad : new float[] {Float.NaN, 0, -1, Float.NEGATIVE_INFINITY}) {
        refuse(() -> norm.run(stream, gradient, bad, result), "clipping norm", "" + bad);
      }
      Tensor inside = gradient.slice(2, Shape.of(2), Layout.ROW_MAJOR);
      overlap(() -> norm.run(stream, gradient, 1, inside), "gradient", "result");
    }
  }

  /** Flat memory from which operands are cut. */
  private Tensor memory(int elements) {
    return backend.allocate(Shape.of(elements), DataType.F32, Layout.ROW_MAJOR);
  }

  @Test
  void operandsOfConvolutions() {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 4, 4, 16, 16, 3, 1, 1);
    DataType f32 = DataType.F32;
    Rectifier phi = Rectifier.tailored(0.5);
    Write write = Write.OVERWRITE;
    try (var stream = backend.newStream();
        Tensor memory = memory(8000);
        Conv2d conv = backend.conv2d(d, f32, Rectifier.IDENTITY, phi);
        Conv2dSum sum = backend.conv2dSum(conv, 0.6f, 0.8f, phi);
        PackedWeights packed = conv.newPackedWeights()) {
      Tensor src = memory.slice(0, d.src(), Layout.NHWC); // 256 elements each
      Tensor dst = memory.slice(256, d.dst(), Layout.NHWC);
      Tensor partly = memory.slice(100, d.src(), Layout.NHWC);
      Tensor other = memory.slice(512, d.dst(), Layout.NHWC);
      Tensor weights = memory.slice(1024, d.weights(), Layout.KRSC); // 2304
      Tensor bias = memory.slice(7000, d.bias(), Layout.ROW_MAJOR);
      Tensor biasInDst = memory.slice(500, d.bias(), Layout.ROW_MAJOR);
      Tensor biasInWeights = memory.slice(1020, d.bias(), Layout.ROW_MAJOR);
      Tensor biasInSrc = memory.slice(0, d.bias(), Layout.ROW_MAJOR);
      Tensor weightsOverDst = memory.slice(300, d.weights(), Layout.KRSC);
      Tensor weightsOverSrc = memory.slice(0, d.weights(), Layout.KRSC);
      conv.pack(stream, weights, packed);
      overlap(() -> conv.forward(stream, src, packed, biasInDst, dst), "bias", "dst");
      overlap(() -> conv.forward(stream, src, packed, bias, partly), "src", "dst");
      overlap(() -> sum.forward(stream, src, packed, biasInDst, other, dst), "bias", "dst");
      overlap(() -> sum.forward(stream, src, packed, bias, dst, dst), "shortcut", "dst");
      overlap(
          () -> conv.backwardData(stream, other, packed, src, partly, write), "src", "diff_src");
      overlap(
          () -> conv.backwardWeights(stream, src, dst, weights, biasInWeights, write),
          "diff_weights",
          "diff_bias");
      overlap(
          () -> conv.backwardWeights(stream, src, dst, weights, biasInSrc, write),
          "src",
          "diff_bias");
      overlap(
          () -> conv.backwardWeights(stream, src, dst, weights, biasInDst, write),
          "diff_dst",
          "diff_bias");
      overlap(
          () -> conv.backwardWeights(stream, src, dst, weightsOverDst, bias, write),
          "diff_dst",
          "diff_weights");
      overlap(
          () -> conv.backwardWeights(stream, src, other, weightsOverSrc, bias, write),
          "src",
          "diff_weights");
      // The in-place gradient is allowed, and so are neighbours.
      conv.forward(stream, src, packed, bias, dst);
      conv.backwardData(stream, dst, packed, src, src, write);
      conv.backwardWeights(stream, src, dst, weights, bias, write);
      stream.synchronize();
    }
  }

  @Test
  void operandsOfOptimisers() {
    try (var stream = backend.newStream();
        Tensor memory = memory(100);
        Sgd sgd = backend.sgd(10, 0.9f, true, 0);
        Adam adam = backend.adam(10, 0.9f, 0.999f, 1e-8f, 0)) {
      Tensor a = memory.slice(0, Shape.of(10), Layout.ROW_MAJOR);
      Tensor overA = memory.slice(9, Shape.of(10), Layout.ROW_MAJOR);
      Tensor b = memory.slice(20, Shape.of(10), Layout.ROW_MAJOR);
      Tensor c = memory.slice(30, Shape.of(10), Layout.ROW_MAJOR);
      Tensor rate = memory.slice(90, Shape.of(1), Layout.ROW_MAJOR);
      Tensor scale = memory.slice(91, Shape.of(1), Layout.ROW_MAJOR);
      Tensor scalars = memory.slice(92, Shape.of(2), Layout.ROW_MAJOR);
      overlap(() -> sgd.step(stream, a, overA, b, rate, scale), "parameters", "gradient");
      overlap(() -> sgd.step(stream, a, b, overA, rate, scale), "parameters", "velocity");
      overlap(() -> sgd.step(stream, a, b, b, rate, scale), "velocity", "gradient");
      overlap(() -> adam.step(stream, a, overA, b, c, scalars, scale), "parameters", "gradient");
      overlap(
          () -> adam.step(stream, a, b, overA, c, scalars, scale), "parameters", "first moment");
      overlap(
          () -> adam.step(stream, a, b, c, overA, scalars, scale), "parameters", "second moment");
      overlap(() -> adam.step(stream, a, b, c, c, scalars, scale), "first moment", "second");
      overlap(() -> adam.step(stream, a, b, b, c, scalars, scale), "first moment", "gradient");
      overlap(() -> adam.step(stream, a, b, c, b, scalars, scale), "second moment", "gradient");
    }
  }

  /** In place or apart, but not in part. */
  @Test
  void operandsOfPasses() {
    DataType f32 = DataType.F32;
    Rectifier phi = Rectifier.tailored(0.5);
    Write write = Write.OVERWRITE;
    try (var stream = backend.newStream();
        Tensor memory = memory(100);
        Tensor sequence = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Rectify rectify = backend.rectify(10, f32, phi);
        WeightedSum sum = backend.weightedSum(10, f32, 0.6f, 0.8f, phi);
        Dropout dropout = backend.dropout(10, f32, 0.5f)) {
      Tensor a = memory.slice(0, Shape.of(10), Layout.ROW_MAJOR);
      Tensor overA = memory.slice(9, Shape.of(10), Layout.ROW_MAJOR);
      Tensor b = memory.slice(20, Shape.of(10), Layout.ROW_MAJOR);
      overlap(() -> rectify.forward(stream, a, overA), "src", "dst");
      overlap(() -> rectify.backward(stream, b, a, overA, write), "diff_dst", "diff_src");
      overlap(() -> sum.forward(stream, a, b, overA), "a", "dst");
      overlap(() -> sum.forward(stream, b, a, overA), "b", "dst");
      overlap(() -> sum.backwardA(stream, a, phi, b, overA, write), "diff_dst", "diff_src");
      overlap(() -> dropout.forward(stream, a, overA, 1, sequence), "src", "dst");
      overlap(() -> dropout.backward(stream, a, overA, 1, sequence, write), "diff_dst", "diff_src");
      rectify.forward(stream, a, a);
      sum.forward(stream, a, b, a);
      dropout.forward(stream, a, a, 1, sequence);
      stream.synchronize();
    }
  }

  @Test
  void operandsOfPoolingsAndLoss() {
    DataType f32 = DataType.F32;
    MaxPool2dDescriptor d = new MaxPool2dDescriptor(1, 4, 4, 4, 2, 2, 0, 0);
    try (var stream = backend.newStream();
        Tensor memory = memory(200);
        Tensor argmax = backend.allocate(d.dst(), DataType.U8, Layout.NHWC);
        Tensor labels = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Tensor correct = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        MaxPool2d pool = backend.maxPool2d(d, f32, Rectifier.IDENTITY);
        GlobalMeanPool mean = backend.globalMeanPool(d.src(), f32, Rectifier.IDENTITY);
        SoftmaxCrossEntropy loss = backend.softmaxCrossEntropy(2, 4, f32, 0)) {
      Tensor src = memory.slice(0, d.src(), Layout.NHWC); // 64 elements
      Tensor overSrc = memory.slice(63, d.dst(), Layout.NHWC);
      Tensor means = memory.slice(10, Shape.of(1, 1, 1, 4), Layout.NHWC);
      overlap(() -> pool.forward(stream, src, overSrc, argmax), "src", "dst");
      overlap(
          () -> pool.backward(stream, overSrc, argmax, src, src, Write.OVERWRITE),
          "diff_dst",
          "diff_src");
      overlap(() -> mean.forward(stream, src, means), "src", "dst");
      overlap(
          () -> mean.backward(stream, means, src, src, Write.OVERWRITE), "diff_dst", "diff_src");
      Tensor logits = memory.slice(100, Shape.of(2, 1, 1, 4), Layout.NHWC);
      Tensor partly = memory.slice(104, Shape.of(2, 1, 1, 4), Layout.NHWC);
      Tensor losses = memory.slice(120, Shape.of(2), Layout.ROW_MAJOR);
      Tensor inside = memory.slice(103, Shape.of(2), Layout.ROW_MAJOR);
      overlap(
          () -> loss.run(stream, logits, labels, 1, partly, losses, correct),
          "logits",
          "diff_logits");
      overlap(
          () -> loss.run(stream, logits, labels, 1, logits, inside, correct), "losses", "logits");
      overlap(
          () -> loss.run(stream, logits, labels, 1, logits, losses, labels), "correct", "labels");
    }
  }
}
