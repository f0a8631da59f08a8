package io.jtrelu.dl4j;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.ConvolutionMode;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.graph.ElementWiseVertex;
import org.deeplearning4j.nn.conf.graph.LayerVertex;
import org.deeplearning4j.nn.conf.graph.MergeVertex;
import org.deeplearning4j.nn.conf.graph.ScaleVertex;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.ActivationLayer;
import org.deeplearning4j.nn.conf.layers.BaseLayer;
import org.deeplearning4j.nn.conf.layers.BatchNormalization;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.DenseLayer;
import org.deeplearning4j.nn.conf.layers.DropoutLayer;
import org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer;
import org.deeplearning4j.nn.conf.layers.LSTM;
import org.deeplearning4j.nn.conf.layers.Layer;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.conf.layers.PoolingType;
import org.deeplearning4j.nn.conf.layers.SubsamplingLayer;
import org.deeplearning4j.nn.graph.ComputationGraph;
import org.junit.jupiter.api.Test;
import org.nd4j.linalg.activations.impl.ActivationIdentity;
import org.nd4j.linalg.activations.impl.ActivationReLU;
import org.nd4j.linalg.activations.impl.ActivationSoftmax;
import org.nd4j.linalg.factory.Nd4j;

/** Against signal graphs written by hand. */
class KernelShapingTest {
  private static ConvolutionLayer convolution() {
    return new ConvolutionLayer.Builder(3, 3)
        .nOut(6)
        .convolutionMode(ConvolutionMode.Same)
        .activation(new ActivationReLU())
        .build();
  }

  private static ConvolutionLayer linear() {
    ConvolutionLayer layer = convolution();
    layer.setActivationFn(new ActivationIdentity());
    return layer;
  }

  private static OutputLayer output() {
    return new OutputLayer.Builder().nOut(4).activation(new ActivationSoftmax()).build();
  }

  private static final InputType IMAGES = InputType.convolutional(8, 8, 6);

  private static MultiLayerConfiguration chain() {
    return new NeuralNetConfiguration.Builder()
        .list()
        .layer(convolution())
        .layer(new SubsamplingLayer.Builder(SubsamplingLayer.PoolingType.MAX).build())
        .layer(linear())
        .layer(new ActivationLayer(new ActivationReLU()))
        .layer(new DropoutLayer(0.9))
        .layer(convolution())
        .layer(new DenseLayer.Builder().nOut(7).activation(new ActivationReLU()).build())
        .layer(output())
        .setInputType(IMAGES)
        .build();
  }

  private static BaseLayer base(MultiLayerConfiguration conf, int layer) {
    return (BaseLayer) conf.getConf(layer).getLayer();
  }

  @Test
  void chainsAreShaped() {
    MultiLayerConfiguration conf = chain();
    base(conf, 0).setBiasInit(0.5);
    Shaping shaping = KernelShaping.apply(conf, Tat.eta(0.5), Activation.LEAKY_RELU);
    Shaping expected = Tat.eta(0.5).solve(SignalGraph.chain(4), Activation.LEAKY_RELU);
    assertEquals(expected.activation(), shaping.activation());
    ActivationTReLU rectifier = new ActivationTReLU(expected.activation().negativeSlope());
    assertEquals(rectifier, base(conf, 0).getActivationFn());
    assertEquals(new ActivationIdentity(), base(conf, 2).getActivationFn());
    assertEquals(rectifier, ((ActivationLayer) conf.getConf(3).getLayer()).getActivationFn());
    assertEquals(rectifier, base(conf, 5).getActivationFn());
    assertEquals(rectifier, base(conf, 6).getActivationFn());
    assertEquals(new ActivationSoftmax(), base(conf, 7).getActivationFn());
    for (int layer : new int[] {0, 2, 5, 6, 7}) {
      assertEquals(new WeightInitDelta(), base(conf, layer).getWeightInitFn());
      assertEquals(0, base(conf, layer).getBiasInit());
    }
  }

  @Test
  void slopeOfPlain50IsThePublishedOne() {
    NeuralNetConfiguration.ListBuilder list = new NeuralNetConfiguration.Builder().list();
    for (int i = 0; i < 49; i++) {
      list.layer(convolution());
    }
    list.layer(new GlobalPoolingLayer.Builder(PoolingType.AVG).build()).layer(output());
    Shaping shaping =
        KernelShaping.apply(list.setInputType(IMAGES).build(), Tat.eta(0.9), Activation.LEAKY_RELU);
    assertEquals(0.42590719, shaping.activation().negativeSlope(), 5e-9);
  }

  /** Input -> stem -> [shortcut 0.8, branch 0.6 of two activations] -> output. */
  private static ComputationGraphConfiguration residual(double w, double branch) {
    return new NeuralNetConfiguration.Builder()
        .graphBuilder()
        .addInputs("in")
        .addLayer("stem", convolution(), "in")
        .addVertex("shortcut", new ScaleVertex(w), "stem")
        .addLayer("a", convolution(), "stem")
        .addLayer("b", convolution(), "a")
        .addVertex("scaled", new ScaleVertex(branch), "b")
        .addVertex("sum", new ElementWiseVertex(ElementWiseVertex.Op.Add), "scaled", "shortcut")
        .addLayer("pool", new GlobalPoolingLayer.Builder(PoolingType.AVG).build(), "sum")
        .addLayer("out", output(), "pool")
        .setOutputs("out")
        .setInputTypes(IMAGES)
        .build();
  }

  @Test
  void residualSumsKeepTheirWeights() {
    ComputationGraphConfiguration conf = residual(0.8, 0.6);
    SignalGraph.Builder b = SignalGraph.builder();
    int stem = b.activation(b.affine(b.input()));
    int branch = b.activation(b.activation(stem));
    SignalGraph expected = b.build(b.sum(new double[] {0.8, 0.6}, stem, branch));
    for (double x : new double[] {0, 0.3, 0.9}) {
      assertEquals(
          expected.maximum(c -> c + 0.1, x),
          KernelShaping.signalGraph(conf).maximum(c -> c + 0.1, x),
          1e-15);
    }
    Shaping shaping = KernelShaping.apply(conf, new Dks(), Activation.SOFTPLUS);
    ActivationShaped activation = new ActivationShaped(shaping.activation());
    for (String name : new String[] {"stem", "a", "b"}) {
      Layer layer = ((LayerVertex) conf.getVertices().get(name)).getLayerConf().getLayer();
      assertEquals(activation, ((BaseLayer) layer).getActivationFn());
    }
    ComputationGraph network = new ComputationGraph(conf);
    network.init();
    double[] q =
        network.output(Nd4j.randn(3, 6, 8, 8))[0].sum(1).toDoubleVector(); // a softmax, finite
    for (double sum : q) {
      assertEquals(1, sum, 1e-5);
    }
  }

  @Test
  void sumsThatAreNotNormalisedAreRefusedWithTheFactor() {
    String message = refusal(residual(1, 1));
    assertTrue(message.contains("'out'") && message.contains("0.70710677"), message);
    assertTrue(message.contains("2.0 instead of 1"), message);
  }

  @Test
  void averagesCountAsScaledSums() {
    ComputationGraphConfiguration conf =
        new NeuralNetConfiguration.Builder()
            .graphBuilder()
            .addInputs("in")
            .addLayer("a", convolution(), "in")
            .addLayer("b", convolution(), "a")
            // In an order that is not topological.
            .addLayer("out", output(), "scaled")
            .addVertex("scaled", new ScaleVertex(Math.sqrt(2)), "mean")
            .addVertex("mean", new ElementWiseVertex(ElementWiseVertex.Op.Average), "a", "b")
            .setOutputs("out")
            .setInputTypes(IMAGES)
            .build();
    SignalGraph.Builder b = SignalGraph.builder();
    int first = b.activation(b.input());
    double half = Math.sqrt(0.5);
    SignalGraph expected = b.build(b.sum(new double[] {half, half}, first, b.activation(first)));
    assertEquals(
        expected.output(c -> c + 0.1, 0.2),
        KernelShaping.signalGraph(conf).output(c -> c + 0.1, 0.2),
        1e-12);
  }

  private static String refusal(ComputationGraphConfiguration conf) {
    return assertThrows(IllegalArgumentException.class, () -> KernelShaping.signalGraph(conf))
        .getMessage();
  }

  private static String refusal(Layer layer) {
    MultiLayerConfiguration conf =
        new NeuralNetConfiguration.Builder().list().layer(convolution()).layer(layer).build();
    return assertThrows(
            IllegalArgumentException.class,
            () -> KernelShaping.apply(conf, new Tat(), Activation.LEAKY_RELU))
        .getMessage();
  }

  @Test
  void whatIsNotKnownIsRefusedByName() {
    String normalised = refusal(new BatchNormalization.Builder().name("bn7").build());
    assertTrue(
        normalised.contains("'bn7'") && normalised.contains("depends on all others"), normalised);
    String recurrent = refusal(new LSTM.Builder().nOut(3).build());
    assertTrue(recurrent.contains("'layer1'") && recurrent.contains("LSTM"), recurrent);
    assertTrue(recurrent.contains("SignalGraph"), recurrent);
    String norm =
        refusal(new DenseLayer.Builder().nIn(6).nOut(3).hasLayerNorm(true).name("d").build());
    assertTrue(norm.contains("'d'") && norm.contains("layer normalisation"), norm);
    String pooled = refusal(new GlobalPoolingLayer.Builder(PoolingType.SUM).name("added").build());
    assertTrue(pooled.contains("'added'"), pooled);
    String merged =
        refusal(
            new NeuralNetConfiguration.Builder()
                .graphBuilder()
                .addInputs("in")
                .addLayer("a", convolution(), "in")
                .addVertex("joined", new MergeVertex(), "a", "in")
                .setOutputs("joined")
                .setInputTypes(IMAGES)
                .build());
    assertTrue(merged.contains("'joined'") && merged.contains("MergeVertex"), merged);
  }

  @Test
  void anExplicitGraphServesForWhatIsNotKnown() {
    MultiLayerConfiguration conf =
        new NeuralNetConfiguration.Builder()
            .list()
            .layer(convolution())
            .layer(new BatchNormalization())
            .layer(convolution())
            .build();
    Shaping shaping =
        KernelShaping.apply(conf, SignalGraph.chain(2), Tat.eta(0.3), Activation.LEAKY_RELU);
    assertEquals(
        new ActivationTReLU(shaping.activation().negativeSlope()), base(conf, 2).getActivationFn());
  }

  @Test
  void edgeOfChaosScalesTheWeights() {
    MultiLayerConfiguration conf = chain();
    KernelShaping.apply(conf, new Eoc(0), Activation.TANH);
    // tanh'(0) = 1 at q* = 0, so that sigma_w tends to 1.
    assertEquals(1, ((WeightInitDelta) base(conf, 0).getWeightInitFn()).gain(), 1e-4);
    String message =
        assertThrows(
                IllegalArgumentException.class,
                () -> KernelShaping.apply(conf, new Eoc(0.05), Activation.TANH))
            .getMessage();
    assertTrue(message.contains("sigmaB2 = 0"), message);
  }
}
