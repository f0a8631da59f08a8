package io.jtrelu.dl4j.layer;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import java.util.List;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.ConvolutionMode;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer;
import org.deeplearning4j.nn.conf.layers.Layer;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.conf.layers.PoolingType;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.activations.IActivation;
import org.nd4j.linalg.activations.impl.ActivationSoftmax;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.learning.config.IUpdater;
import org.nd4j.linalg.learning.config.Nesterovs;
import org.nd4j.linalg.lossfunctions.LossFunctions.LossFunction;

/** Networks with a trunk of two convolutions, and their twins of Deeplearning4j's own layers. */
final class Nets {
  static final double SLOPE = 0.375;
  static final double SCALE = 1.25;
  static final int CLASSES = 4;

  private Nets() {}

  /** 8x8x{@code in} to 4x4x7, or to 1x1x7 if pooled. The underscores are a trap. */
  static Network trunk(int in, boolean pooled) {
    return trunk(in, pooled, TransformedActivation.rectifier(SLOPE, SCALE));
  }

  static Network trunk(int in, boolean pooled, TransformedActivation function) {
    Network.Builder b = Network.builder("two convolutions", 8, 8, in);
    int first = b.activation("act_1", b.convolution("conv_1", b.input(), 5, 3, 1));
    int second = b.activation("act_2", b.convolution("conv_2", first, 7, 3, 2));
    if (pooled) {
      b.globalMeanPool("pool", second);
    }
    Network network = b.build();
    return network.with(function);
  }

  static ConvolutionLayer convolution(int out, int stride, CNN2DFormat format, IActivation f) {
    return new ConvolutionLayer.Builder(3, 3)
        .stride(stride, stride)
        .nOut(out)
        .convolutionMode(ConvolutionMode.Same)
        .dataFormat(format)
        .activation(f)
        .build();
  }

  static GlobalPoolingLayer pool() {
    return new GlobalPoolingLayer.Builder(PoolingType.AVG).build();
  }

  static OutputLayer output() {
    return new OutputLayer.Builder(LossFunction.MCXENT)
        .nOut(CLASSES)
        .activation(new ActivationSoftmax())
        .build();
  }

  static MultiLayerConfiguration conf(
      CNN2DFormat format, int channels, DataType type, IUpdater updater, Layer... layers) {
    NeuralNetConfiguration.ListBuilder list =
        new NeuralNetConfiguration.Builder().seed(11).dataType(type).updater(updater).list();
    for (Layer layer : layers) {
      list.layer(layer);
    }
    return list.setInputType(InputType.convolutional(8, 8, channels, format)).build();
  }

  static MultiLayerNetwork init(MultiLayerConfiguration conf) {
    MultiLayerNetwork network = new MultiLayerNetwork(conf);
    network.init();
    return network;
  }

  static MultiLayerNetwork network(CNN2DFormat format, int channels, Layer... layers) {
    return init(conf(format, channels, DataType.FLOAT, new Nesterovs(0.1, 0.9), layers));
  }

  /** Images and targets from a seed of their own. */
  static INDArray images(CNN2DFormat format, int n, int channels, long seed) {
    long[] shape =
        format == CNN2DFormat.NHWC
            ? new long[] {n, 8, 8, channels}
            : new long[] {n, channels, 8, 8};
    java.util.Random random = new java.util.Random(seed);
    float[] values = new float[n * channels * 64];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return Nd4j.createFromArray(values).reshape('c', shape);
  }

  static INDArray targets(int n) {
    float[] values = new float[n * CLASSES];
    for (int i = 0; i < n; i++) {
      values[i * CLASSES + i * 7 % CLASSES] = 1;
    }
    return Nd4j.createFromArray(values).reshape('c', n, CLASSES);
  }

  /** The parameters of a trunk as those of the twin's convolutions from a layer on. */
  static void copyTrunk(MultiLayerNetwork from, int trunk, MultiLayerNetwork twin, int first) {
    org.deeplearning4j.nn.api.Layer layer = from.getLayer(trunk);
    for (int i = 0; i < 2; i++) {
      twin.getLayer(first + i)
          .getParam("W")
          .assign(layer.getParam("conv-" + (i + 1) + ".weights").permute(0, 3, 1, 2));
      twin.getLayer(first + i)
          .getParam("b")
          .assign(layer.getParam("conv-" + (i + 1) + ".bias").reshape(1, -1));
    }
  }

  /** The largest difference of the parameters of a trunk and of its twin. */
  static double trunkDistance(
      MultiLayerNetwork network, int trunk, MultiLayerNetwork twin, int first) {
    org.deeplearning4j.nn.api.Layer layer = network.getLayer(trunk);
    double worst = 0;
    for (int i = 0; i < 2; i++) {
      worst =
          larger(
              worst,
              distance(
                  layer.getParam("conv-" + (i + 1) + ".weights").permute(0, 3, 1, 2),
                  twin.getLayer(first + i).getParam("W")));
      worst =
          larger(
              worst,
              distance(
                  layer.getParam("conv-" + (i + 1) + ".bias").reshape(1, -1),
                  twin.getLayer(first + i).getParam("b")));
    }
    return worst;
  }

  static double larger(double a, double b) {
    return a >= b ? a : b; // NaN stays
  }

  static double distance(INDArray a, INDArray b) {
    double[] left = a.dup('c').reshape(-1).toDoubleVector();
    double[] right = b.dup('c').reshape(-1).toDoubleVector();
    double worst = left.length == right.length ? 0 : Double.NaN;
    for (int i = 0; i < left.length && i < right.length; i++) {
      worst = larger(worst, Math.abs(left[i] - right[i]));
    }
    return worst;
  }

  static List<String> names(Network network) {
    return network.parameters().stream().map(ParameterSpec::name).toList();
  }

  static TransformedActivation smooth() {
    return new TransformedActivation(Activation.SOFTPLUS, 1.25, 0.25, 1.5, -0.75, 0);
  }
}
