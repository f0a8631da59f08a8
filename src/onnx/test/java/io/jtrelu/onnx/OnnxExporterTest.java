package io.jtrelu.onnx;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.OnnxExporter.Options;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.NodeProto;
import io.jtrelu.shaping.ShapingException;
import io.jtrelu.train.ShapingConfig;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** What is written gives, in ONNX Runtime, what this library computes. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class OnnxExporterTest {
  private Cases cases;

  @BeforeAll
  void open() {
    cases = new Cases();
  }

  @AfterAll
  void close() {
    cases.close();
  }

  private static Network plain(int depth, int width) {
    return Networks.build(
        new Networks.Options("plain:" + depth + ":" + width, Block.V2, 0, 0.1f),
        new Extent(8, 8, 2),
        3);
  }

  private byte[] export(Network network, Parameters parameters) {
    return OnnxExporter.export(network, parameters, Options.DEFAULT).toByteArray();
  }

  private void check(Network network, int... batches) {
    try (Parameters parameters = cases.parameters(network, 5)) {
      cases.check(network, parameters, export(network, parameters), batches);
    }
  }

  /** Convolutions whose only reader is a rectifier. */
  private static long rectified(Network network) {
    List<Layer> layers = network.layers();
    long count = 0;
    for (Layer layer : layers) {
      if (layer instanceof ActivationLayer activation
          && activation.rectifier() != null
          && layers.get(activation.source()) instanceof ConvolutionLayer
          && layers.stream().filter(l -> l.sources().contains(activation.source())).count() == 1) {
        count++;
      }
    }
    return count;
  }

  @TestFactory
  Stream<DynamicTest> networksOfTheBuilders() {
    List<DynamicTest> tests = new ArrayList<>();
    tests.add(
        DynamicTest.dynamicTest(
            "plain50",
            () ->
                fused(
                    ShapingConfig.DEFAULT.shape(
                        Networks.build(Networks.Options.of("plain50"), new Extent(12, 12, 2), 10)),
                    0)));
    for (String name : List.of("resnet18", "resnet50")) {
      for (Block block : Block.values()) {
        for (double w : new double[] {0, 0.6}) {
          if (w == 0 && !name.equals("resnet18")) {
            continue; // chains, as that of 18 layers
          }
          tests.add(
              DynamicTest.dynamicTest(
                  name + " " + block + " " + w,
                  () -> {
                    Network network =
                        ShapingConfig.of("none", "leaky_relu")
                            .shape(
                                Networks.build(
                                    new Networks.Options(name, block, w, 0.1f),
                                    new Extent(9, 8, 3),
                                    4))
                            .with(TransformedActivation.rectifier(0.4, 1.3130643));
                    fused(network, w == 0 ? 0 : -1);
                  }));
        }
      }
    }
    tests.add(
        DynamicTest.dynamicTest(
            "resnet18 with max-pooling",
            () ->
                fused(
                    Networks.build(
                            new Networks.Options("resnet18", Block.V1, 0, 0),
                            new Extent(64, 64, 3),
                            4)
                        .with(TransformedActivation.rectifier(0.4, 1.3130643)),
                    0)));
    return tests.stream();
  }

  /** By running statistics; plain sums. */
  @Test
  void batchNormalisation() throws IOException {
    for (Block block : Block.values()) {
      Network network =
          ShapingConfig.HE.shape(
              Networks.build(
                  new Networks.Options("bnresnet18", block, 0, 0), new Extent(9, 8, 3), 4));
      try (Parameters parameters = cases.parameters(network, 5)) {
        cases.check(network, parameters, export(network, parameters), 1, 2);
      }
    }
  }

  /**
   * @param multiplications expected in the optimised graph, or -1 where shortcuts keep some
   */
  private void fused(Network network, long multiplications) throws IOException {
    try (Parameters parameters = cases.parameters(network, 5)) {
      byte[] model = export(network, parameters);
      cases.check(network, parameters, model, 1, 2);
      List<NodeProto> nodes = Ort.optimized(model);
      assertTrue(rectified(network) > 0);
      assertEquals(rectified(network), Ort.count(nodes, "FusedConv"));
      if (multiplications >= 0) {
        assertEquals(multiplications, Ort.count(nodes, "Mul"));
      }
      assertEquals(0, Ort.count(nodes, "Dropout"));
    }
  }

  @TestFactory
  Stream<DynamicTest> activationsByMethods() {
    List<DynamicTest> tests = new ArrayList<>();
    for (Activation activation : Activation.values()) {
      for (String method : ShapingConfig.methods()) {
        tests.add(
            DynamicTest.dynamicTest(
                activation.activationName() + " " + method,
                () -> {
                  Network deep;
                  try {
                    deep =
                        ShapingConfig.of(method, activation.activationName()).shape(plain(15, 8));
                  } catch (ShapingException unsuitable) {
                    return; // there is no such network
                  }
                  // A few layers, for TAT's solutions for the gelus multiply roundings by some
                  // hundreds; so outputs that happen to be small count as 1 there.
                  ActivationLayer function = (ActivationLayer) deep.layers().get(2);
                  Network network = plain(2, 8).with(function.function());
                  try (Parameters parameters = cases.parameters(network, 5)) {
                    boolean gelu = activation.activationName().startsWith("gelu");
                    cases.check(
                        gelu && method.equals("tat") ? 1.0 : 0.0,
                        network,
                        parameters,
                        export(network, parameters),
                        1,
                        5);
                  }
                }));
      }
    }
    return tests.stream();
  }

  @Test
  void residualNetworksWithSmoothActivations() {
    for (Activation activation : List.of(Activation.SOFTPLUS, Activation.GELU, Activation.TANH)) {
      for (Block block : Block.values()) {
        check(
            ShapingConfig.of("dks", activation.activationName())
                .shape(
                    Networks.build(
                        new Networks.Options("resnet18", block, 0.5, 0), new Extent(8, 8, 3), 4)),
            2);
      }
    }
  }

  @Test
  void everythingThatAConvolutionCanBe() {
    Network.Builder b = Network.builder("odd", 11, 9, 4);
    int x =
        b.convolution(
            "asymmetric",
            b.input(),
            new Conv2dDescriptor(1, 11, 9, 4, 6, 3, 2, 2, 1, 0, 1, 2, 0, 1, 1, 1));
    x = b.activation("a", x, TransformedActivation.rectifier(0.3, 1.7));
    Extent e = b.extent(x);
    x =
        b.convolution(
            "dilated",
            x,
            new Conv2dDescriptor(1, e.height(), e.width(), 6, 8, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2, 2));
    x = b.activation("b", x, TransformedActivation.rectifier(0, 1.2));
    x = b.maxPool("pool", x, 3, 2);
    x =
        b.activation(
            "c", x, new TransformedActivation(Activation.LEAKY_RELU, 0.7, -0.2, 1.4, 0.3, 0.2));
    e = b.extent(x);
    x =
        b.convolution(
            "depthwise",
            x,
            new Conv2dDescriptor(1, e.height(), e.width(), 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 8));
    x = b.activation("d", x, new TransformedActivation(Activation.TANH, 1.1, 0.1, -0.8, 0.2, 0));
    x = b.maxPool("pool2", x, 3, 1); // a negative factor does not pass it
    e = b.extent(x);
    x =
        b.convolution(
            "last",
            x,
            new Conv2dDescriptor(1, e.height(), e.width(), 8, 6, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1));
    x = b.globalMeanPool("mean", x);
    x = b.linear("hidden", x, 7);
    x = b.activation("e", x, TransformedActivation.rectifier(0.5, 1.1));
    x = b.convolution("padded", x, 5, 3, 1); // a 3x3 kernel over one location
    x = b.maxPool("one", x, 3, 1);
    b.linear("logits", x, 3);
    check(b.build(), 1, 5);
  }

  @Test
  void severalOutputsOfAnySizeUnderTheNamesOfTheirLayers() {
    Network.Builder b = Network.builder("many", 6, 5, 3);
    int first = b.convolution("images", b.input(), 4, 3, 1); // the name of the input
    int phi = b.activation("phi", first, TransformedActivation.rectifier(0.3, 1.5));
    int second = b.convolution("second", phi, 4, 3, 1);
    int sum = b.normalizedSum("sum", phi, second, 0.8);
    int mean = b.globalMeanPool("mean", sum);
    int dropped = b.dropout("dropped", mean, 0.5f);
    int again = b.activation("again", dropped, TransformedActivation.rectifier(0.3, 1.5));
    Network network = b.build(phi, sum, dropped, again, b.input());
    check(network, 1, 3);
    try (Parameters parameters = cases.parameters(network, 5)) {
      OnnxModel model = OnnxExporter.export(network, parameters, Options.DEFAULT);
      assertEquals(List.of("images float32[N, 3, 6, 5]"), model.inputs());
      assertEquals(
          List.of(
              "phi float32[N, 4, 6, 5]",
              "sum float32[N, 4, 6, 5]",
              "dropped float32[N, 4]",
              "again float32[N, 4]",
              "input float32[N, 3, 6, 5]"),
          model.outputs());
    }
  }

  @Test
  void aFunctionWithoutOperatorIsRefusedByLayer() {
    Network network = plain(2, 4).with(ActivationFunction.derived("sine", value -> value.sin()));
    try (Parameters parameters = cases.parameters(network, 5)) {
      OnnxException refused = assertThrows(OnnxException.class, () -> export(network, parameters));
      assertTrue(refused.getMessage().contains("stage1.layer1.activation"), refused.getMessage());
      assertTrue(refused.getMessage().contains("sine"), refused.getMessage());
    }
  }

  @Test
  void aSpoiltParameterIsRefusedByName() {
    Network network = plain(2, 4);
    try (Parameters parameters = cases.parameters(network, 5)) {
      parameters.view(1).put(3, Float.NaN);
      OnnxException refused = assertThrows(OnnxException.class, () -> export(network, parameters));
      String name = network.parameters().get(1).name();
      assertTrue(refused.getMessage().contains(name), refused.getMessage());
    }
  }

  @Test
  void opsets() throws IOException {
    Network network = plain(3, 4);
    try (Parameters parameters = cases.parameters(network, 5)) {
      for (int opset = Options.MIN_OPSET; opset <= Options.MAX_OPSET; opset++) {
        byte[] model =
            OnnxExporter.export(network, parameters, new Options(opset, false)).toByteArray();
        ModelProto proto = ModelProto.parseFrom(model);
        assertEquals(8, proto.getIrVersion());
        assertEquals(opset, proto.getOpsetImport(0).getVersion());
        cases.check(network, parameters, model, 2);
      }
    }
    assertThrows(IllegalArgumentException.class, () -> new Options(9, false));
  }
}
