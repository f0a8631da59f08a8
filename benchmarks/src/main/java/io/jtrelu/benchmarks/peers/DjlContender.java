package io.jtrelu.benchmarks.peers;

import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Activation;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import ai.djl.nn.pooling.Pool;
import ai.djl.pytorch.engine.PtNDArray;
import ai.djl.pytorch.jni.JniUtils;
import ai.djl.training.GradientCollector;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.ActivationMemory;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NormalizedSumLayer;
import java.util.List;

/**
 * DJL with PyTorch, its operations called without blocks around them (the least overhead DJL
 * offers), gradients by its collector, update by its SGD with momentum. That optimiser has neither
 * Nesterov momentum nor clipping by norm, so the peer does less work per step than this library.
 */
public final class DjlContender implements Contender {
  /** How tensors lie in memory. */
  public enum Format {
    /** PyTorch's default. */
    NCHW,
    /** channels_last: DJL has no call for it, but a transposed NHWC array has its strides. */
    NHWC
  }

  /** How scale * leaky_relu(x, slope) is written. */
  public enum Scale {
    /** leaky_relu(x).mul(scale), as a user would. */
    PLAIN,
    /** The product in place, which autograd allows. */
    IN_PLACE,
    /** The scale multiplied into the weights of the next layer beforehand: one operation less. */
    FOLDED
  }

  private final Workload workload;
  private final Format format;
  private final Scale scale;
  private final NDManager manager;
  private final NDArray images;
  private final NDArray targets;
  private final NDArray[] parameters;
  private final float[] factors;
  private final Optimizer optimizer;

  /** Copies the workload into PyTorch. */
  public DjlContender(Workload workload, Format format, Scale scale) {
    this.workload = workload;
    this.format = format;
    this.scale = scale;
    manager = Engine.getEngine("PyTorch").newBaseManager();
    Layer.Extent in = workload.network().input();
    int batch = workload.batch();
    int classes = workload.network().classes();
    images =
        arrange(
            manager.create(
                workload.images(), new Shape(batch, in.height(), in.width(), in.channels())));
    float[] target = new float[batch * classes];
    for (int i = 0; i < target.length; i++) {
      boolean hit = i % classes == workload.labels()[i / classes];
      target[i] = Workload.LABEL_SMOOTHING / classes + (hit ? 1 - Workload.LABEL_SMOOTHING : 0);
    }
    targets = manager.create(target, new Shape(batch, classes)).div(-batch);
    List<ParameterSpec> specs = workload.network().parameters();
    parameters = new NDArray[specs.size()];
    factors = new float[specs.size()];
    boolean[] scaled = scaledSources();
    for (int p = 0; p < parameters.length; p++) {
      ParameterSpec spec = specs.get(p);
      ConvolutionLayer layer = (ConvolutionLayer) workload.network().layers().get(spec.layer());
      boolean weights = spec.kind() == ParameterSpec.Kind.WEIGHTS;
      factors[p] = weights && scaled[layer.source()] ? workload.rectifier().scale() : 1;
      float[] values = new float[Math.toIntExact(spec.shape().elements())];
      System.arraycopy(
          workload.parameters(), Math.toIntExact(spec.offset()), values, 0, values.length);
      for (int i = 0; i < values.length; i++) {
        values[i] *= factors[p];
      }
      if (!weights) {
        parameters[p] = manager.create(values);
      } else if (isLinear(layer.descriptor())) {
        parameters[p] =
            manager.create(values, new Shape(layer.descriptor().oc(), layer.descriptor().ic()));
      } else {
        int[] krsc = spec.shape().dims();
        parameters[p] =
            arrange(manager.create(values, new Shape(krsc[0], krsc[1], krsc[2], krsc[3])));
      }
      parameters[p].setRequiresGradient(true);
    }
    optimizer =
        Optimizer.sgd()
            .setLearningRateTracker(Tracker.fixed(Workload.LEARNING_RATE))
            .optMomentum(Workload.MOMENTUM)
            .build();
  }

  /** NHWC or KRSC values as PyTorch's NCHW or OIHW, in the chosen format. */
  private NDArray arrange(NDArray nhwc) {
    NDArray view = nhwc.transpose(0, 3, 1, 2);
    if (format == Format.NHWC) {
      return view;
    }
    float[] values = view.toFloatArray();
    NDArray dense = manager.create(values, view.getShape());
    view.close();
    nhwc.close();
    return dense;
  }

  /**
   * For each layer, whether its value lacks the rectifier's scale, which its reader's weights hold.
   */
  private boolean[] scaledSources() {
    List<Layer> layers = workload.network().layers();
    boolean[] scaled = new boolean[layers.size()];
    for (int i = 0; scale == Scale.FOLDED && i < scaled.length; i++) {
      scaled[i] =
          switch (layers.get(i)) {
            case ActivationLayer activation -> true;
            case MaxPoolingLayer pool -> scaled[pool.source()];
            case GlobalMeanPoolingLayer pool -> scaled[pool.source()];
            case NormalizedSumLayer sum -> {
              if (scaled[sum.shortcut()] || scaled[sum.branch()]) {
                throw new IllegalArgumentException(
                    "the scale cannot be folded where a sum reads an activation");
              }
              yield false;
            }
            default -> false;
          };
    }
    return scaled;
  }

  private static boolean isLinear(Conv2dDescriptor d) {
    return d.h() == 1 && d.w() == 1 && d.kh() == 1 && d.kw() == 1;
  }

  private NDArray logits() {
    List<Layer> layers = workload.network().layers();
    NDArray[] values = new NDArray[layers.size()];
    values[0] = images;
    int p = 0;
    int biases = parameters.length / 2;
    for (int i = 1; i < values.length; i++) {
      values[i] =
          switch (layers.get(i)) {
            case ConvolutionLayer layer -> {
              int index = p++;
              yield convolution(
                  values[layer.source()],
                  layer.descriptor(),
                  parameters[index],
                  parameters[biases + index]);
            }
            case ActivationLayer layer -> activation(values[layer.source()]);
            case NormalizedSumLayer layer ->
                values[layer.shortcut()]
                    .mul(layer.shortcutWeight())
                    .add(values[layer.branch()].mul(layer.branchWeight()));
            case MaxPoolingLayer layer -> {
              var d = layer.descriptor();
              NDArray padded =
                  pad(
                      values[layer.source()],
                      d.padBegin(),
                      d.padEnd(),
                      d.padBegin(),
                      d.padEnd(),
                      Double.NEGATIVE_INFINITY);
              yield Pool.maxPool2d(
                  padded,
                  new Shape(d.kernel(), d.kernel()),
                  new Shape(d.stride(), d.stride()),
                  new Shape(0, 0),
                  false);
            }
            case GlobalMeanPoolingLayer layer -> Pool.globalAvgPool2d(values[layer.source()]);
            default -> throw new IllegalArgumentException("no counterpart of " + layers.get(i));
          };
    }
    return values[values.length - 1];
  }

  private NDArray activation(NDArray x) {
    NDArray y = Activation.leakyRelu(x, workload.rectifier().slope());
    return switch (scale) {
      case PLAIN -> y.mul(workload.rectifier().scale());
      case IN_PLACE -> y.muli(workload.rectifier().scale());
      case FOLDED -> y;
    };
  }

  private static NDArray convolution(NDArray x, Conv2dDescriptor d, NDArray weights, NDArray bias) {
    if (isLinear(d)) {
      return Linear.linear(x, weights, bias).singletonOrThrow();
    }
    boolean symmetric = d.padTop() == d.padBottom() && d.padLeft() == d.padRight();
    NDArray source =
        symmetric ? x : pad(x, d.padTop(), d.padBottom(), d.padLeft(), d.padRight(), 0);
    return Conv2d.conv2d(
            source,
            weights,
            bias,
            new Shape(d.strideH(), d.strideW()),
            symmetric ? new Shape(d.padTop(), d.padLeft()) : new Shape(0, 0),
            new Shape(d.dilationH(), d.dilationW()),
            d.groups())
        .singletonOrThrow();
  }

  private static NDArray pad(NDArray x, int top, int bottom, int left, int right, double value) {
    return x.pad(new Shape(left, right, top, bottom), value);
  }

  private float pass(NDManager scope) {
    images.tempAttach(scope);
    try (GradientCollector collector = Engine.getEngine("PyTorch").newGradientCollector()) {
      NDArray loss = logits().logSoftmax(1).mul(targets).sum();
      collector.backward(loss);
      return loss.getFloat();
    }
  }

  @Override
  public long activationBytes() {
    try (NDManager scope = manager.newSubManager();
        GradientCollector collector = Engine.getEngine("PyTorch").newGradientCollector()) {
      images.tempAttach(scope);
      long before = ActivationMemory.allocated();
      NDArray loss = logits().logSoftmax(1).mul(targets).sum();
      long held = ActivationMemory.allocated() - before;
      collector.backward(loss);
      for (NDArray parameter : parameters) {
        JniUtils.zeroGrad((PtNDArray) parameter);
      }
      return held;
    }
  }

  @Override
  public float step() {
    try (NDManager scope = manager.newSubManager()) {
      float loss = pass(scope);
      for (int p = 0; p < parameters.length; p++) {
        try (NDArray gradient = parameters[p].getGradient()) {
          optimizer.update(Integer.toString(p), parameters[p], gradient);
        }
      }
      return loss;
    }
  }

  @Override
  public float[] forward() {
    JniUtils.setGradMode(false);
    try (NDManager scope = manager.newSubManager()) {
      images.tempAttach(scope);
      return logits().toFloatArray();
    } finally {
      JniUtils.setGradMode(true);
    }
  }

  @Override
  public Gradients gradients() {
    try (NDManager scope = manager.newSubManager()) {
      float loss = pass(scope);
      List<ParameterSpec> specs = workload.network().parameters();
      float[] values = new float[workload.parameters().length];
      for (int p = 0; p < parameters.length; p++) {
        try (NDArray gradient = parameters[p].getGradient();
            NDArray ours =
                gradient.getShape().dimension() == 4 ? gradient.transpose(0, 2, 3, 1) : null) {
          float[] part = (ours == null ? gradient : ours).toFloatArray();
          int offset = Math.toIntExact(specs.get(p).offset());
          for (int i = 0; i < part.length; i++) {
            values[offset + i] = part[i] * factors[p];
          }
        }
        JniUtils.zeroGrad((PtNDArray) parameters[p]);
      }
      return new Gradients(loss, values);
    }
  }

  @Override
  public void close() {
    manager.close();
  }
}
