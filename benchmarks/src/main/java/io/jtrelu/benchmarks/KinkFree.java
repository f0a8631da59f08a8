package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NormalizedSumLayer;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/**
 * Parameters for which rounding cannot decide on which side of the kink a value lies, so that the
 * gradients of two correct implementations differ by rounding alone.
 *
 * <p>Layer by layer, on the workload's own batch: the weights of a convolution are divided by the
 * deviation of its results from their channel's mean; then each channel gets a bias that moves all
 * its values to one side, half of the channels to the positive one, {@value #MARGIN} away from the
 * kink. Both branches of the rectifier take part, every weight and bias still matters to loss and
 * gradients, and signals neither vanish nor grow over the layers.
 */
final class KinkFree {
  /** Distance from the kink in deviations; rounding moves a value by some 1e-5 of one. */
  private static final float MARGIN = 0.25f;

  private final Workload workload;
  private final Backend backend;
  private final float[] parameters;
  private final float[][] values;
  private final Random signs = new Random(1);

  private KinkFree(Workload workload, Backend backend) {
    this.workload = workload;
    this.backend = backend;
    this.parameters = workload.parameters().clone();
    this.values = new float[workload.network().layers().size()][];
  }

  /** The workload with other parameters; network, batch and data stay. */
  static Workload of(Workload workload) {
    KinkFree result;
    try (Backend backend = Backends.open("cpu")) {
      result = new KinkFree(workload, backend);
      result.run();
    }
    return new Workload(
        workload.network(),
        workload.batch(),
        workload.rectifier(),
        result.parameters,
        workload.images(),
        workload.labels());
  }

  /**
   * Biases that move all values of a channel to one side.
   *
   * @param values with the channel as last axis; are moved
   * @param coefficient by which a bias moves a value
   * @return one per channel
   */
  static float[] shift(float[] values, int channels, float coefficient, Random signs) {
    float[] least = new float[channels];
    float[] greatest = new float[channels];
    Arrays.fill(least, Float.POSITIVE_INFINITY);
    Arrays.fill(greatest, Float.NEGATIVE_INFINITY);
    for (int i = 0; i < values.length; i++) {
      int c = i % channels;
      least[c] = Math.min(least[c], values[i]);
      greatest[c] = Math.max(greatest[c], values[i]);
    }
    float[] shifts = new float[channels];
    for (int c = 0; c < channels; c++) {
      shifts[c] = signs.nextBoolean() ? MARGIN - least[c] : -MARGIN - greatest[c];
    }
    for (int i = 0; i < values.length; i++) {
      values[i] += shifts[i % channels];
    }
    for (int c = 0; c < channels; c++) {
      shifts[c] /= coefficient;
    }
    return shifts;
  }

  private void run() {
    List<Layer> layers = workload.network().layers();
    values[0] = workload.images();
    for (int i = 1; i < values.length; i++) {
      Layer layer = layers.get(i);
      values[i] =
          switch (layer) {
            case ConvolutionLayer convolution -> convolution(i, convolution);
            case ActivationLayer activation -> activation(activation);
            case NormalizedSumLayer sum -> sum(sum);
            case MaxPoolingLayer pool -> maxPooling(pool);
            case GlobalMeanPoolingLayer pool ->
                meanPooling(values[pool.source()], layers.get(pool.source()).extent());
            default -> throw new IllegalArgumentException("no counterpart of " + layer);
          };
    }
  }

  private ParameterSpec spec(int layer, ParameterSpec.Kind kind) {
    return workload.network().parameters().stream()
        .filter(s -> s.layer() == layer && s.kind() == kind)
        .findFirst()
        .orElseThrow();
  }

  private float[] convolution(int index, ConvolutionLayer layer) {
    Conv2dDescriptor d = layer.descriptor().withBatch(workload.batch());
    ParameterSpec spec = spec(index, ParameterSpec.Kind.WEIGHTS);
    int offset = Math.toIntExact(spec.offset());
    int count = Math.toIntExact(spec.shape().elements());
    Arrays.fill(
        parameters,
        Math.toIntExact(spec(index, ParameterSpec.Kind.BIAS).offset()),
        Math.toIntExact(spec(index, ParameterSpec.Kind.BIAS).offset()) + d.oc(),
        0);
    float[] result =
        convolve(
            backend,
            d,
            values[layer.source()],
            Arrays.copyOfRange(parameters, offset, offset + count));
    // Logits keep their mean: taking it away would leave little but rounding.
    boolean last = index == values.length - 1;
    float factor = (float) (1 / deviation(result, d.oc(), !last));
    for (int i = 0; i < count; i++) {
      parameters[offset + i] *= factor;
    }
    for (int i = 0; i < result.length; i++) {
      result[i] *= factor;
    }
    return result;
  }

  /** Root of the mean square, about each channel's mean or about 0. */
  private static double deviation(float[] values, int channels, boolean aboutMean) {
    double[] sums = new double[channels];
    double squares = 0;
    for (int i = 0; i < values.length; i++) {
      sums[i % channels] += values[i];
      squares += (double) values[i] * values[i];
    }
    double rows = (double) values.length / channels;
    for (double sum : sums) {
      squares -= aboutMean ? sum * sum / rows : 0;
    }
    return Math.sqrt(squares / values.length);
  }

  /** Without bias and rectifier. */
  static float[] convolve(Backend backend, Conv2dDescriptor d, float[] source, float[] kernel) {
    try (Stream stream = backend.newStream();
        Conv2d op = backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = op.newPackedWeights();
        Tensor src = Tensor.allocate(d.src(), DataType.F32, Layout.NHWC).set(source);
        Tensor weights = Tensor.allocate(d.weights(), DataType.F32, Layout.KRSC).set(kernel);
        Tensor bias = Tensor.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor dst = Tensor.allocate(d.dst(), DataType.F32, Layout.NHWC)) {
      op.pack(stream, weights, packed);
      op.forward(stream, src, packed, bias, dst);
      stream.synchronize();
      return dst.toFloatArray();
    }
  }

  /** Moves its argument away from the kink first, by the bias of the convolution behind it. */
  private float[] activation(ActivationLayer layer) {
    int channels = layer.extent().channels();
    List<Layer> layers = workload.network().layers();
    int at = layer.source();
    float coefficient = 1;
    while (!(layers.get(at) instanceof ConvolutionLayer)) {
      switch (layers.get(at)) {
        case NormalizedSumLayer sum -> {
          coefficient *= (float) sum.branchWeight();
          at = sum.branch();
        }
        case MaxPoolingLayer pool -> at = pool.source();
        default -> throw new IllegalArgumentException("no convolution behind " + layer);
      }
    }
    float[] argument = values[layer.source()];
    float[] shifts = shift(argument, channels, coefficient, signs);
    int bias = Math.toIntExact(spec(at, ParameterSpec.Kind.BIAS).offset());
    for (int c = 0; c < channels; c++) {
      parameters[bias + c] += shifts[c];
    }
    float[] result = new float[argument.length];
    Rectifier phi = workload.rectifier();
    for (int i = 0; i < result.length; i++) {
      result[i] = phi.scale() * argument[i] * (argument[i] > 0 ? 1 : phi.slope());
    }
    return result;
  }

  private float[] sum(NormalizedSumLayer layer) {
    float[] shortcut = values[layer.shortcut()];
    float[] branch = values[layer.branch()];
    float[] result = new float[branch.length];
    for (int i = 0; i < result.length; i++) {
      result[i] = (float) (layer.shortcutWeight() * shortcut[i] + layer.branchWeight() * branch[i]);
    }
    return result;
  }

  private float[] maxPooling(MaxPoolingLayer layer) {
    MaxPool2dDescriptor one = layer.descriptor();
    MaxPool2dDescriptor d =
        new MaxPool2dDescriptor(
            workload.batch(),
            one.h(),
            one.w(),
            one.c(),
            one.kernel(),
            one.stride(),
            one.padBegin(),
            one.padEnd());
    try (Stream stream = backend.newStream();
        var op = backend.maxPool2d(d, DataType.F32, Rectifier.IDENTITY);
        Tensor src =
            Tensor.allocate(d.src(), DataType.F32, Layout.NHWC).set(values[layer.source()]);
        Tensor dst = Tensor.allocate(d.dst(), DataType.F32, Layout.NHWC);
        Tensor argmax = Tensor.allocate(d.dst(), DataType.U8, Layout.NHWC)) {
      op.forward(stream, src, dst, argmax);
      stream.synchronize();
      return dst.toFloatArray();
    }
  }

  private float[] meanPooling(float[] source, Layer.Extent extent) {
    int pixels = extent.height() * extent.width();
    int channels = extent.channels();
    float[] result = new float[workload.batch() * channels];
    for (int i = 0; i < source.length; i++) {
      result[i / (pixels * channels) * channels + i % channels] += source[i] / pixels;
    }
    return result;
  }
}
