package io.jtrelu.dl4j;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.ConvolutionMode;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.DenseLayer;
import org.deeplearning4j.nn.conf.layers.DepthwiseConvolution2D;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.nd4j.linalg.activations.Activation;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;

/** Weights as a network that was made by Deeplearning4j has them. */
class WeightInitDeltaTest {
  /** max |M M^T / factor - I| over the shorter side of a matrix. */
  private static double distance(double[][] matrix, double factor) {
    boolean wide = matrix.length <= matrix[0].length;
    int n = wide ? matrix.length : matrix[0].length;
    int m = wide ? matrix[0].length : matrix.length;
    double worst = 0;
    for (int i = 0; i < n; i++) {
      for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int k = 0; k < m; k++) {
          sum += wide ? matrix[i][k] * matrix[j][k] : matrix[k][i] * matrix[k][j];
        }
        worst = Math.max(worst, Math.abs(sum / factor - (i == j ? 1 : 0)));
      }
    }
    return worst;
  }

  private static MultiLayerNetwork dense(long seed, int in, int out) {
    MultiLayerConfiguration conf =
        new NeuralNetConfiguration.Builder()
            .seed(seed)
            .weightInit(new WeightInitDelta())
            .activation(Activation.IDENTITY)
            .list()
            .layer(new DenseLayer.Builder().nIn(in).nOut(out).build())
            .layer(new DenseLayer.Builder().nIn(out).nOut(in).build())
            .layer(new DenseLayer.Builder().nIn(in).nOut(out).build())
            .build();
    MultiLayerNetwork network = new MultiLayerNetwork(conf);
    network.init();
    return network;
  }

  @ParameterizedTest
  @CsvSource({"100, 64", "64, 100", "48, 48", "1, 3"})
  void denseLayersAreOrthogonal(int in, int out) {
    MultiLayerNetwork network = dense(7, in, out);
    INDArray w = network.getLayer(0).getParam("W");
    assertEquals(in, w.size(0));
    assertTrue(distance(w.toDoubleMatrix(), Math.max(1, (double) out / in)) <= 1e-6);
    double back =
        distance(
            network.getLayer(1).getParam("W").toDoubleMatrix(), Math.max(1, (double) in / out));
    assertTrue(back <= 1e-6);
  }

  @ParameterizedTest
  @EnumSource
  void convolutionsAreDeltaKernels(CNN2DFormat format) {
    MultiLayerConfiguration conf =
        new NeuralNetConfiguration.Builder()
            .seed(5)
            .weightInit(new WeightInitDelta(2))
            .activation(Activation.IDENTITY)
            .list()
            .layer(convolution(40, format))
            .layer(convolution(72, format))
            .setInputType(InputType.convolutional(6, 5, 40, format))
            .build();
    MultiLayerNetwork network = new MultiLayerNetwork(conf);
    network.init();
    for (int layer = 0; layer < 2; layer++) {
      INDArray w = network.getLayer(layer).getParam("W");
      double[][] centre = new double[(int) w.size(0)][(int) w.size(1)];
      double elsewhere = 0;
      for (int o = 0; o < w.size(0); o++) {
        for (int i = 0; i < w.size(1); i++) {
          centre[o][i] = w.getDouble(o, i, 1, 2);
          for (int tap = 0; tap < 15; tap++) {
            if (tap != 7) {
              elsewhere += Math.abs(w.getDouble(o, i, tap / 5, tap % 5));
            }
          }
        }
      }
      assertEquals(0, elsewhere);
      assertTrue(distance(centre, layer == 0 ? 4 : 4 * 72 / 40.0) <= 2e-6);
    }
    // A Delta kernel acts on each location alone and keeps its square, times gain^2 = 4 a layer.
    INDArray x = Nd4j.rand(network.getLayerWiseConfigurations().getDataType(), shape(format));
    INDArray y = network.feedForward(x).get(1);
    double ratio = y.norm2Number().doubleValue() / x.norm2Number().doubleValue();
    assertEquals(2, ratio, 1e-5);
  }

  private static long[] shape(CNN2DFormat format) {
    return format == CNN2DFormat.NCHW ? new long[] {2, 40, 6, 5} : new long[] {2, 6, 5, 40};
  }

  private static ConvolutionLayer convolution(int out, CNN2DFormat format) {
    return new ConvolutionLayer.Builder(3, 5)
        .nOut(out)
        .convolutionMode(ConvolutionMode.Same)
        .dataFormat(format)
        .build();
  }

  @Test
  void layersDifferAndTheSeedRepeatsThem() {
    MultiLayerNetwork network = dense(3, 20, 30);
    INDArray first = network.getLayer(0).getParam("W");
    INDArray third = network.getLayer(2).getParam("W");
    assertTrue(first.sub(third).norm2Number().doubleValue() > 1);
    assertEquals(network.params(), dense(3, 20, 30).params());
    assertNotEquals(network.params(), dense(4, 20, 30).params());
    // Also after a round trip by JSON, where each layer has an initialiser of its own.
    MultiLayerNetwork read =
        new MultiLayerNetwork(
            MultiLayerConfiguration.fromJson(network.getLayerWiseConfigurations().toJson()));
    read.init();
    assertEquals(network.params(), read.params());
  }

  @Test
  void whatCannotBeOrthogonalIsRefused() {
    String even = refusal(new ConvolutionLayer.Builder(2, 2).nIn(4).nOut(4).build());
    assertTrue(even.contains("odd sides") && even.contains("2x2"), even);
    String depthwise =
        refusal(new DepthwiseConvolution2D.Builder(5, 5).depthMultiplier(2).nIn(4).nOut(8).build());
    assertTrue(depthwise.contains("[5, 5, 4, 2]"), depthwise);
  }

  private static String refusal(ConvolutionLayer layer) {
    MultiLayerConfiguration conf =
        new NeuralNetConfiguration.Builder()
            .weightInit(new WeightInitDelta())
            .list()
            .layer(layer)
            .build();
    return assertThrows(IllegalArgumentException.class, () -> new MultiLayerNetwork(conf).init())
        .getMessage();
  }
}
