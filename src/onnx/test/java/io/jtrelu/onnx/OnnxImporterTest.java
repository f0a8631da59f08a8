package io.jtrelu.onnx;

import static io.jtrelu.onnx.GraphWriter.integer;
import static io.jtrelu.onnx.GraphWriter.integers;
import static io.jtrelu.onnx.GraphWriter.real;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.OnnxExporter.Options;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.shaping.ShapingException;
import io.jtrelu.train.ShapingConfig;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.io.TempDir;

/** What is read computes, in this library, what ONNX Runtime computes with the file. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class OnnxImporterTest {
  @TempDir private Path folder;
  private Cases cases;

  @BeforeAll
  void open() {
    cases = new Cases();
  }

  @AfterAll
  void close() {
    cases.close();
  }

  private ImportedNetwork read(byte[] model) throws IOException {
    return OnnxImporter.read(Files.write(folder.resolve("model.onnx"), model));
  }

  /** Holds what was read against ONNX Runtime, on the file it was read from. */
  private ImportedNetwork check(byte[] model) throws IOException {
    try (ImportedNetwork read = read(model)) {
      cases.check(read.network(), read.parameters(), model, 1, 3);
      return read;
    }
  }

  private static List<Network> networks() {
    List<Network> networks = new ArrayList<>();
    Extent input = new Extent(8, 7, 3);
    for (Block block : Block.values()) {
      networks.add(
          Networks.build(new Networks.Options("resnet18", block, 0.7, 0.1f), input, 4)
              .with(TransformedActivation.rectifier(0.4, 1.3130643)));
    }
    networks.add(
        ShapingConfig.of("dks", "softplus")
            .shape(Networks.build(new Networks.Options("resnet18", Block.V2, 0.5, 0), input, 4)));
    Network deep = Networks.build(new Networks.Options("plain:15:8", Block.V2, 0, 0.1f), input, 3);
    for (Activation activation : Activation.values()) {
      for (String method : List.of("none", "tat", "dks")) {
        if (method.equals("tat") && activation.activationName().startsWith("gelu")) {
          continue; // these solutions blow up roundings, of whoever computes
        }
        try {
          Network shaped = ShapingConfig.of(method, activation.activationName()).shape(deep);
          ActivationLayer function = (ActivationLayer) shaped.layers().get(2);
          networks.add(
              Networks.build(new Networks.Options("plain:2:6", Block.V2, 0, 0.1f), input, 3)
                  .with(function.function()));
        } catch (ShapingException unsuitable) {
          // there is no such network
        }
      }
    }
    return networks;
  }

  @Test
  void whatWasExportedComesBack() throws IOException {
    for (Network network : networks()) {
      try (Parameters parameters = cases.parameters(network, 5)) {
        byte[] model = OnnxExporter.export(network, parameters, Options.DEFAULT).toByteArray();
        try (ImportedNetwork read = read(model)) {
          assertEquals(List.of(), read.notes(), network.name());
          assertEquals(NetworkJson.write(network), NetworkJson.write(read.network()));
          for (int p = 0; p < network.parameters().size(); p++) {
            float[] original = parameters.view(p).toFloatArray();
            float[] restored = read.parameters().view(p).toFloatArray();
            for (int i = 0; i < original.length; i++) {
              // A rounding of the product and one back; a bias shares its digits with the shift of
              // a smooth function's input.
              boolean bias = network.parameters().get(p).kind() == ParameterSpec.Kind.BIAS;
              assertEquals(original[i], restored[i], bias ? 1e-4 : 1e-6 * Math.abs(original[i]));
            }
          }
          assertArrayEquals(
              model,
              OnnxExporter.export(read.network(), read.parameters(), Options.DEFAULT)
                  .toByteArray());
        }
      }
    }
  }

  /** Products at the edge of a binade, where the nearest quotient is not always the origin. */
  @Test
  void everyRoundingIsUndone() throws IOException {
    Random random = new Random(2);
    for (int trial = 0; trial < 100; trial++) {
      double scale = 1 + 0.4 * random.nextDouble();
      Network network =
          Networks.build(Networks.Options.of("plain:1:4"), new Extent(2, 2, 2), 3)
              .with(TransformedActivation.rectifier(0.4, scale));
      try (Parameters parameters = cases.parameters(network, 5)) {
        float[] weights = parameters.view(0).toFloatArray();
        for (int i = 0; i < weights.length; i++) {
          int power = Float.floatToRawIntBits((float) (1 / scale));
          weights[i] = Float.intBitsToFloat(power + i % 7 - 3);
        }
        parameters.view(0).set(weights);
        byte[] model = OnnxExporter.export(network, parameters, Options.DEFAULT).toByteArray();
        try (ImportedNetwork read = read(model)) {
          assertEquals(List.of(), read.notes(), "scale " + scale);
          assertArrayEquals(
              model,
              OnnxExporter.export(read.network(), read.parameters(), Options.DEFAULT)
                  .toByteArray());
        }
      }
    }
  }

  /** Without our metadata a file of ours is anybody's. */
  @Test
  void whatWasExportedIsReadWithoutItsMetadata() throws IOException {
    for (Network network : networks()) {
      try (Parameters parameters = cases.parameters(network, 5)) {
        ModelProto model =
            OnnxExporter.export(network, parameters, Options.DEFAULT).proto().toBuilder()
                .clearMetadataProps()
                .build();
        ImportedNetwork read = check(model.toByteArray());
        assertEquals(network.depth(), read.network().depth(), network.toString());
        assertEquals(network.parameterCount(), read.network().parameterCount());
      }
    }
  }

  /** A residual network as PyTorch writes it: sums without weights, ReLU, folded constants. */
  @Test
  void aResidualNetworkOfOthers() throws IOException {
    Graphs g =
        new Graphs(3, 9, 8)
            .random("w1", 6, 3, 3, 3)
            .random("b1", 6)
            .node("Conv", "x w1 b1", "c1", integers("pads", 1, 1, 1, 1))
            .node("Relu", "c1", "r1")
            .random("w2", 6, 6, 2, 4)
            .node("Conv", "r1 w2", "c2", text("auto_pad", "SAME_LOWER"))
            .random("scale", 6)
            .random("shift", 6)
            .random("mean", 6)
            .constant("variance", new long[] {6}, 1, 2, 3, 4, 5, 6)
            .node("BatchNormalization", "c2 scale shift mean variance", "n2")
            .node("Relu", "n2", "r2")
            .random("w3", 6, 6, 3, 3)
            .node("Conv", "r2 w3", "c3", integers("pads", 1, 1, 1, 1))
            .node("Add", "c3 r1", "s1")
            .node("Relu", "s1", "r3")
            .random("w4", 6, 6, 1, 1)
            .node("Conv", "r3 w4", "c4")
            .node("Add", "c4 r3", "s2") // without an activation after it: two readers
            .random("w5", 6, 6, 1, 1)
            .node("Conv", "s2 w5", "c5")
            .node("Add", "s2 c5", "s3")
            .node("MaxPool", "s3", "p", integers("kernel_shape", 2, 2), integers("strides", 2, 2))
            .node("GlobalAveragePool", "p", "g")
            .node("Flatten", "g", "f")
            .random("w6", 5, 6)
            .random("b6", 5)
            .node("Gemm", "f w6 b6", "y", integer("transB", 1))
            .output("y", 5);
    ImportedNetwork read = check(g.bytes());
    // No layer had to be made for what sums leave.
    long convolutions =
        read.network().layers().stream().filter(ConvolutionLayer.class::isInstance).count();
    assertEquals(6, convolutions);
    assertEquals(3, read.network().layers().stream().filter(l -> isSum(l)).count());
  }

  private static boolean isSum(Layer layer) {
    return layer.kind().equals("normalized-sum");
  }

  private static io.jtrelu.onnx.schema.AttributeProto text(String name, String value) {
    return Graphs.text(name, value);
  }

  @Test
  void constantsAnywhere() throws IOException {
    Graphs g =
        new Graphs(3, 8, 8)
            .constant("mean", new long[] {1, 3, 1, 1}, 0.4, 0.5, 0.6)
            .constant("std", new long[] {3, 1, 1}, 0.2, 0.25, 0.3)
            .node("Sub", "x mean", "centred")
            .node("Div", "centred std", "normal")
            .random("w1", 8, 3, 3, 3)
            .node(
                "Conv", "normal w1", "c1", integers("pads", 1, 1, 0, 0), integers("strides", 2, 2))
            .node("LeakyRelu", "c1", "r1", real("alpha", 0.3f))
            .scalar("s", 1.4)
            .node("Mul", "r1 s", "m1")
            .node(
                "MaxPool",
                "m1",
                "p1",
                integers("kernel_shape", 3, 3),
                integers("strides", 2, 2),
                integer("ceil_mode", 1))
            .scalar("half", 0.5)
            .scalar("minus", -0.7)
            .node("Mul", "half p1", "m2")
            .node("Add", "m2 half", "a2")
            .random("w2", 8, 2, 3, 3)
            .node("Conv", "a2 w2", "c2", integer("group", 4), integers("pads", 1, 1, 1, 1))
            .node("Mul", "a2 minus", "negative")
            .node("Add", "negative c2", "s2")
            .node("Tanh", "s2", "t2")
            .node("Sub", "half t2", "d2")
            .node("Identity", "d2", "i2")
            .node("Dropout", "i2", "q2")
            .integers("shape", 0, -1)
            .node("Reshape", "q2 shape", "flat")
            .random("w3", 8 * 2 * 2, 5)
            .random("b3", 1, 5)
            .node("MatMul", "flat w3", "y0")
            .node("Add", "y0 b3", "y1")
            .node("Softplus", "y1", "y2")
            .random("w4", 5, 3)
            .node("MatMul", "y2 w4", "y3")
            .node("Add", "y3 y3", "y4")
            .node("Mul", "y4 half", "y")
            .output("y", 3);
    check(g.bytes());
  }

  @Test
  void aFinalSoftmaxIsLeftOutAndSaid() throws IOException {
    Graphs g =
        new Graphs(2, 4, 4)
            .random("w", 3, 2, 4, 4)
            .node("Conv", "x w", "c")
            .node("Flatten", "c", "f")
            .node("Softmax", "f", "y", integer("axis", 1))
            .output("y", 3);
    try (ImportedNetwork read = read(g.bytes())) {
      assertTrue(read.notes().getFirst().contains("Softmax"), read.notes().toString());
      float[] images = Cases.images(read.network(), 2, 1);
      float[] logits = cases.run(read.network(), read.parameters(), images, 2).getFirst();
      float[] expected = new float[6];
      for (int n = 0; n < 2; n++) {
        double sum = 0;
        for (int k = 0; k < 3; k++) {
          sum += Math.exp(logits[3 * n + k]);
        }
        for (int k = 0; k < 3; k++) {
          expected[3 * n + k] = (float) (Math.exp(logits[3 * n + k]) / sum);
        }
      }
      try (Ort ort = new Ort(g.bytes())) {
        float[] planes = Cases.planes(images, 2, read.network().input());
        Cases.assertClose(expected, ort.run(planes, 2, 2, 4, 4).getFirst().values, 1e-5, "softmax");
      }
    }
  }

  private void refused(Graphs graph, String... parts) throws IOException {
    byte[] bytes = graph.bytes();
    OnnxException refused = assertThrows(OnnxException.class, () -> read(bytes));
    for (String part : parts) {
      assertTrue(
          String.valueOf(refused.getMessage()).contains(part), part + ": " + refused.getMessage());
    }
    assertTrue(String.valueOf(refused.getMessage()).contains("model.onnx"));
  }

  private static Graphs one(String operator, io.jtrelu.onnx.schema.AttributeProto... attributes) {
    return new Graphs(2, 4, 4).node(operator, "x", "here", attributes).output("here", 2, 4, 4);
  }

  @Test
  void anythingElseIsRefusedByNode() throws IOException {
    refused(one("LSTM"), "node here (LSTM)", "LeakyRelu");
    refused(one("Elu", real("alpha", 0.5f)), "here", "alpha");
    refused(one("LeakyRelu", real("alpha", 1.5f)), "here", "[0, 1]");
    refused(one("Relu", integer("odd", 1)), "here", "odd");
    refused(one("Softmax"), "here", "over the classes");
    refused(one("GlobalMaxPool"), "here");
    refused(one("MaxPool", integers("kernel_shape", 3, 2), integers("strides", 1, 1)), "square");
    refused(one("AveragePool", integers("kernel_shape", 2, 2)), "means over parts");
    refused(new Graphs(2, 4, 4).node("Mul", "x x1", "here").output("here", 2, 4, 4), "here", "x1");
    refused(
        new Graphs(2, 4, 4)
            .node("Relu", "x", "r")
            .node("Sigmoid", "x", "s")
            .node("Mul", "r s", "here")
            .output("here", 2, 4, 4),
        "here",
        "only Add");
    refused(
        new Graphs(2, 4, 4)
            .random("w", 3, 2, 3, 3)
            .node("Conv", "x w", "here", integer("group", 2))
            .output("here", 3, 2, 2),
        "node here (Conv)",
        "groups");
    refused(
        new Graphs(2, 4, 4).random("w", 32, 3).node("MatMul", "x w", "here").output("here", 3),
        "flatten");
    refused(
        new Graphs(2, 4, 4)
            .node("Relu", "x", "here")
            .change(m -> m.getGraphBuilder().getNodeBuilder(0).setDomain("com.microsoft"))
            .output("here", 2, 4, 4),
        "com.microsoft");
    refused(one("Relu").change(m -> m.getOpsetImportBuilder(0).setVersion(6)), "opset 6", "7");
    refused(
        one("Relu")
            .change(
                m ->
                    m.getGraphBuilder()
                        .getInputBuilder(0)
                        .getTypeBuilder()
                        .getTensorTypeBuilder()
                        .getShapeBuilder()
                        .getDimBuilder(2)
                        .setDimParam("height")),
        "input x",
        "numbers");
    refused(
        new Graphs(2, 4, 4)
            .random("w", 3, 2, 3, 3)
            .change(
                m ->
                    m.getGraphBuilder()
                        .getInitializerBuilder(0)
                        .setDataLocation(TensorProto.DataLocation.EXTERNAL))
            .node("Conv", "x w", "here")
            .output("here", 3, 2, 2),
        "tensor w",
        "another file");
    refused(
        new Graphs(2, 4, 4)
            .constant("w", new long[] {3, 2, 1 << 30, 1 << 30}, 1, 2)
            .node("Conv", "x w", "here")
            .output("here", 3, 2, 2),
        "tensor w",
        "extents");
  }

  private byte[] small() {
    Network network =
        Networks.build(new Networks.Options("plain:2:3", Block.V2, 0, 0), new Extent(4, 4, 2), 3)
            .with(TransformedActivation.rectifier(0.4, 1.3));
    try (Parameters parameters = cases.parameters(network, 5)) {
      return OnnxExporter.export(network, parameters, Options.DEFAULT).toByteArray();
    }
  }

  /** Whatever a damaged file holds, it is refused with its name, or read as what it now says. */
  @Test
  void damagedFilesAreRefusedByName() throws IOException {
    byte[] model = small();
    GraphProto graph = ModelProto.parseFrom(model).getGraph();
    int refusals = 0;
    for (int length = 0; length < model.length; length += 19) {
      byte[] cut = Arrays.copyOf(model, length);
      try {
        read(cut).close();
        assertEquals(graph, ModelProto.parseFrom(cut).getGraph()); // only metadata are missing
      } catch (OnnxException refused) {
        refusals++;
        assertTrue(String.valueOf(refused.getMessage()).contains("model.onnx"));
      }
    }
    Random random = new Random(1);
    for (int trial = 0; trial < 1200; trial++) {
      byte[] flipped = model.clone();
      for (int k = 0; k <= trial % 3; k++) {
        int bit = random.nextInt(8 * model.length);
        flipped[bit / 8] ^= (byte) (1 << bit % 8);
      }
      try (ImportedNetwork read = read(flipped)) {
        assertNotNull(read.network());
      } catch (OnnxException refused) {
        refusals++;
        assertTrue(String.valueOf(refused.getMessage()).contains("model.onnx"));
      }
    }
    assertTrue(refusals > 100, refusals + " refusals");
  }

  /** Lengths that lie, and files of other kinds. */
  @Test
  void nothingIsAllocatedForALyingLength() throws IOException {
    byte[] huge = {0x3a, (byte) 0xff, (byte) 0xff, (byte) 0xff, (byte) 0xff, 0x07, 1, 2, 3};
    assertThrows(OnnxException.class, () -> read(huge));
    assertThrows(OnnxException.class, () -> read(new byte[0]));
    assertThrows(
        OnnxException.class, () -> read("not a model at all".getBytes(StandardCharsets.UTF_8)));
    Path missing = folder.resolve("missing.onnx");
    assertThrows(IOException.class, () -> OnnxImporter.read(missing));
  }

  @Test
  void aFileThatWasChangedIsReadAsAnybodys() throws IOException {
    ModelProto model = ModelProto.parseFrom(small());
    ModelProto.Builder changed = model.toBuilder();
    changed.getGraphBuilder().getNodeBuilder(1).getAttributeBuilder(0).setF(0.25f);
    ImportedNetwork read = check(changed.build().toByteArray());
    assertTrue(read.notes().getFirst().contains("changed"), read.notes().toString());
    ActivationLayer first = (ActivationLayer) read.network().layers().get(2);
    assertEquals(0.25, first.function().negativeSlope());
    assertEquals(1, first.function().outputScale());
  }
}
