package io.jtrelu.benchmarks.peers;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.ActivationMemory;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network.ParameterSpec;
import java.util.List;
import org.deeplearning4j.nn.conf.ConvolutionMode;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.conf.layers.PoolingType;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.activations.Activation;
import org.nd4j.linalg.activations.impl.ActivationLReLU;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.learning.config.Nesterovs;
import org.nd4j.linalg.lossfunctions.LossFunctions;

/**
 * Deeplearning4j on ND4J: its layers, workspaces on, SGD with Nesterov momentum, no clipping. The
 * scale of the rectifier is multiplied into the weights that follow it (its leaky ReLU has none).
 * Chains only.
 *
 * <p>Its convolutions are im2col and a matrix product: the helper that would pass them to oneDNN is
 * off in this release, and when turned on (org.eclipse.deeplearning4j.helpers.disable=false) gives
 * up, because it looks for a class of ND4J under the name of an earlier release. {@link
 * SameDiffContender} is the way to oneDNN.
 */
public final class Dl4jContender implements Contender {
  private final Workload workload;
  private final MultiLayerNetwork network;
  private final INDArray images;
  private final INDArray targets;

  /** Copies the workload into ND4J. */
  public Dl4jContender(Workload workload) {
    this.workload = workload;
    var in = workload.network().input();
    int batch = workload.batch();
    int classes = workload.network().classes();
    NeuralNetConfiguration.ListBuilder list =
        new NeuralNetConfiguration.Builder()
            .seed(1)
            .updater(new Nesterovs(Workload.LEARNING_RATE, Workload.MOMENTUM))
            .list();
    for (Layer layer : workload.network().layers()) {
      switch (layer) {
        case io.jtrelu.nn.ConvolutionLayer convolution -> {
          Conv2dDescriptor d = convolution.descriptor();
          if (isLinear(d)) {
            list.layer(
                new OutputLayer.Builder(LossFunctions.LossFunction.MCXENT)
                    .nIn(d.ic())
                    .nOut(classes)
                    .activation(Activation.SOFTMAX)
                    .build());
          } else {
            list.layer(
                new ConvolutionLayer.Builder(d.kh(), d.kw())
                    .nIn(d.ic())
                    .nOut(d.oc())
                    .stride(d.strideH(), d.strideW())
                    .convolutionMode(ConvolutionMode.Same)
                    .activation(new ActivationLReLU(workload.rectifier().slope()))
                    .build());
          }
        }
        case GlobalMeanPoolingLayer pool ->
            list.layer(new GlobalPoolingLayer.Builder(PoolingType.AVG).build());
        case InputLayer input -> {}
        case ActivationLayer activation -> {}
        default -> throw new IllegalArgumentException("chains only, not " + layer);
      }
    }
    network =
        new MultiLayerNetwork(
            list.setInputType(InputType.convolutional(in.height(), in.width(), in.channels()))
                .build());
    network.init();
    List<ParameterSpec> specs = workload.network().parameters();
    int count = specs.size() / 2;
    for (int i = 0; i < count; i++) {
      ParameterSpec spec = specs.get(i);
      network.getLayer(layer(i)).getParam("W").assign(toNative(i, values(spec, factor(i))));
      network
          .getLayer(layer(i))
          .getParam("b")
          .assign(Nd4j.createFromArray(values(specs.get(count + i), 1)).reshape(1, -1));
    }
    images =
        Nd4j.createFromArray(workload.images())
            .reshape(batch, in.height(), in.width(), in.channels())
            .permute(0, 3, 1, 2)
            .dup('c');
    targets = Nd4j.createFromArray(targets(workload)).reshape(batch, classes);
  }

  /** Smoothed one-hot rows. */
  static float[] targets(Workload workload) {
    int classes = workload.network().classes();
    float[] target = new float[workload.batch() * classes];
    for (int i = 0; i < target.length; i++) {
      target[i] =
          Workload.LABEL_SMOOTHING / classes
              + (i % classes == workload.labels()[i / classes] ? 1 - Workload.LABEL_SMOOTHING : 0);
    }
    return target;
  }

  private static boolean isLinear(Conv2dDescriptor d) {
    return d.h() == 1 && d.w() == 1;
  }

  /** The pool stands between the last convolution and the logits. */
  private int layer(int parameter) {
    return parameter == workload.network().parameters().size() / 2 - 1 ? parameter + 1 : parameter;
  }

  private float factor(int parameter) {
    return parameter == 0 ? 1 : workload.rectifier().scale();
  }

  private float[] values(ParameterSpec spec, float factor) {
    float[] values = new float[Math.toIntExact(spec.shape().elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = factor * workload.parameters()[Math.toIntExact(spec.offset()) + i];
    }
    return values;
  }

  /** KRSC to KCRS, or to [in, out] for the logits. */
  private INDArray toNative(int parameter, float[] krsc) {
    int[] d = workload.network().parameters().get(parameter).shape().dims();
    INDArray ours = Nd4j.createFromArray(krsc).reshape(d[0], d[1], d[2], d[3]);
    return d[1] == 1 ? ours.reshape(d[0], d[3]).transpose() : ours.permute(0, 3, 1, 2);
  }

  private float[] toOurs(INDArray gradient) {
    INDArray ours = gradient.rank() == 4 ? gradient.permute(0, 2, 3, 1) : gradient.transpose();
    return ours.dup('c').reshape(-1).toFloatVector();
  }

  @Override
  public float step() {
    network.fit(images, targets);
    return (float) network.score();
  }

  /** Logarithms of the softmax: the logits up to a constant per row. */
  @Override
  public float[] forward() {
    float[] logits = network.output(images, false).dup('c').reshape(-1).toFloatVector();
    for (int i = 0; i < logits.length; i++) {
      logits[i] = (float) Math.log(logits[i]);
    }
    return logits;
  }

  @Override
  public Gradients gradients() {
    network.setInput(images);
    network.setLabels(targets);
    network.computeGradientAndScore();
    var gradient = network.gradient().gradientForVariable();
    List<ParameterSpec> specs = workload.network().parameters();
    int count = specs.size() / 2;
    float[] values = new float[workload.parameters().length];
    for (int i = 0; i < count; i++) {
      float[] w = toOurs(gradient.get(layer(i) + "_W"));
      float[] b = gradient.get(layer(i) + "_b").dup('c').reshape(-1).toFloatVector();
      int offset = Math.toIntExact(specs.get(i).offset());
      // Its gradients are sums over the batch; the updater divides.
      for (int k = 0; k < w.length; k++) {
        values[offset + k] = w[k] * factor(i) / workload.batch();
      }
      offset = Math.toIntExact(specs.get(count + i).offset());
      for (int k = 0; k < b.length; k++) {
        values[offset + k] = b[k] / workload.batch();
      }
    }
    return new Gradients((float) network.score(), values);
  }

  /** Of a forward pass in training mode, whose activations stay until they are dropped. */
  @Override
  public long activationBytes() {
    long before = ActivationMemory.allocated();
    List<INDArray> activations = network.feedForward(images, true);
    long held = ActivationMemory.allocated() - before;
    activations.forEach(INDArray::close);
    return held;
  }

  @Override
  public void close() {
    network.close();
  }
}
