package io.jtrelu.dl4j.layer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.dl4j.ActivationTReLU;
import io.jtrelu.nn.Network;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.deeplearning4j.gradientcheck.GradientCheckUtil;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.WorkspaceMode;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.misc.FrozenLayerWithBackprop;
import org.deeplearning4j.nn.graph.ComputationGraph;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.deeplearning4j.nn.transferlearning.TransferLearning;
import org.deeplearning4j.util.ModelSerializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.nd4j.linalg.activations.IActivation;
import org.nd4j.linalg.activations.impl.ActivationTanH;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.dataset.DataSet;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.indexing.NDArrayIndex;
import org.nd4j.linalg.learning.config.Adam;
import org.nd4j.linalg.learning.config.NoOp;
import org.nd4j.nativeblas.NativeOps;
import org.nd4j.nativeblas.NativeOpsHolder;

/** In networks of Deeplearning4j, against its own layers. */
class JtreluLayerTest {
  private static final CNN2DFormat NHWC = CNN2DFormat.NHWC;
  private static final IActivation TANH = new ActivationTanH();
  private static final IActivation TRELU = new ActivationTReLU(Nets.SLOPE, Nets.SCALE);

  private static JtreluLayer layer(Network trunk) {
    return new JtreluLayer.Builder(trunk).build();
  }

  private static MultiLayerNetwork between(CNN2DFormat format) {
    return Nets.network(
        format,
        3,
        Nets.convolution(6, 1, format, TANH),
        layer(Nets.trunk(6, false)),
        Nets.convolution(5, 1, format, TANH),
        Nets.pool(),
        Nets.output());
  }

  private static MultiLayerNetwork twinOfBetween(CNN2DFormat format) {
    return Nets.network(
        format,
        3,
        Nets.convolution(6, 1, format, TANH),
        Nets.convolution(5, 1, format, TRELU),
        Nets.convolution(7, 2, format, TRELU),
        Nets.convolution(5, 1, format, TANH),
        Nets.pool(),
        Nets.output());
  }

  private static void copyOthers(MultiLayerNetwork from, MultiLayerNetwork twin) {
    twin.getLayer(0).setParams(from.getLayer(0).params());
    twin.getLayer(3).setParams(from.getLayer(2).params());
    twin.getLayer(5).setParams(from.getLayer(4).params());
  }

  @ParameterizedTest
  @EnumSource
  void trainsAsDeeplearning4jsOwnLayersDo(CNN2DFormat format) {
    MultiLayerNetwork network = between(format);
    MultiLayerNetwork twin = twinOfBetween(format);
    copyOthers(network, twin);
    Nets.copyTrunk(network, 1, twin, 1);
    INDArray before = network.params().dup();
    for (int step = 0; step < 3; step++) {
      INDArray x = Nets.images(format, 6, 3, step);
      assertTrue(Nets.distance(twin.output(x), network.output(x)) <= 2e-6);
      network.fit(x, Nets.targets(6));
      twin.fit(x, Nets.targets(6));
      assertEquals(twin.score(), network.score(), 2e-6);
    }
    assertTrue(Nets.trunkDistance(network, 1, twin, 1) <= 2e-6);
    // What lies below has had its gradient through the layer.
    assertTrue(Nets.distance(network.getLayer(0).params(), twin.getLayer(0).params()) <= 2e-6);
    assertTrue(Nets.distance(network.getLayer(4).params(), twin.getLayer(5).params()) <= 2e-6);
    assertTrue(Nets.distance(before, network.params()) > 1e-2);
  }

  @Test
  void wholeTrunkWithPoolingFeedsTheOutputLayer() {
    MultiLayerNetwork network = Nets.network(NHWC, 3, layer(Nets.trunk(3, true)), Nets.output());
    MultiLayerNetwork twin =
        Nets.network(
            NHWC,
            3,
            Nets.convolution(5, 1, NHWC, TRELU),
            Nets.convolution(7, 2, NHWC, TRELU),
            Nets.pool(),
            Nets.output());
    Nets.copyTrunk(network, 0, twin, 0);
    twin.getLayer(3).setParams(network.getLayer(1).params());
    for (int n : new int[] {5, 2, 8, 3}) { // recompiled for 8
      INDArray x = Nets.images(NHWC, n, 3, n);
      network.fit(x, Nets.targets(n));
      twin.fit(x, Nets.targets(n));
    }
    assertTrue(Nets.trunkDistance(network, 0, twin, 0) <= 2e-6);
    assertTrue(Nets.distance(network.getLayer(1).params(), twin.getLayer(3).params()) <= 2e-6);
  }

  @Test
  void worksInAComputationGraphAndWithoutWorkspaces() {
    for (WorkspaceMode mode : new WorkspaceMode[] {WorkspaceMode.ENABLED, WorkspaceMode.NONE}) {
      ComputationGraphConfiguration conf =
          new NeuralNetConfiguration.Builder()
              .seed(4)
              .updater(new Adam(1e-2))
              .trainingWorkspaceMode(mode)
              .inferenceWorkspaceMode(mode)
              .graphBuilder()
              .addInputs("in")
              .addLayer("trunk", layer(Nets.trunk(3, true)), "in")
              .addLayer("out", Nets.output(), "trunk")
              .setOutputs("out")
              .setInputTypes(InputType.convolutional(8, 8, 3, NHWC))
              .build();
      ComputationGraph graph = new ComputationGraph(conf);
      graph.init();
      DataSet data = new DataSet(Nets.images(NHWC, 8, 3, 5), Nets.targets(8));
      double first = graph.score(data);
      for (int step = 0; step < 30; step++) {
        graph.fit(data);
      }
      assertTrue(graph.score(data) < first / 2, () -> first + " became " + graph.score(data));
    }
  }

  @Test
  void batchesOfAnySizeGiveTheSameRows() {
    MultiLayerNetwork network = Nets.network(NHWC, 3, layer(Nets.trunk(3, true)), Nets.output());
    INDArray x = Nets.images(NHWC, 9, 3, 6);
    INDArray whole = network.output(x).dup();
    for (int n : new int[] {1, 4, 9}) {
      // A view of the images, and images in an order that is not C.
      INDArray part = x.get(NDArrayIndex.interval(0, n));
      INDArray rows = whole.get(NDArrayIndex.interval(0, n));
      assertTrue(Nets.distance(rows, network.output(part)) <= 1e-6);
      assertTrue(Nets.distance(rows, network.output(part.dup('f'))) <= 1e-6);
    }
  }

  @Test
  void gradientsPassDeeplearning4jsCheck() {
    DataType before = Nd4j.dataType();
    Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
    try {
      for (CNN2DFormat format : CNN2DFormat.values()) {
        MultiLayerNetwork network =
            Nets.init(
                Nets.conf(
                    format,
                    2,
                    DataType.DOUBLE,
                    new NoOp(),
                    Nets.convolution(3, 1, format, TANH),
                    layer(Nets.trunk(3, true, Nets.smooth())),
                    Nets.output()));
        // In FLOAT a loss near 1 has an error of 1e-7: over 2 epsilon, 5e-6.
        assertTrue(
            GradientCheckUtil.checkGradients(
                new GradientCheckUtil.MLNConfig()
                    .net(network)
                    .input(Nets.images(format, 4, 2, 8).castTo(DataType.DOUBLE))
                    .labels(Nets.targets(4).castTo(DataType.DOUBLE))
                    .epsilon(1e-2)
                    .maxRelError(1e-3)
                    .minAbsoluteError(5e-5)));
      }
    } finally {
      Nd4j.setDefaultDataTypes(before, before);
    }
  }

  @Test
  void savedNetworksGiveTheSameInAnotherProcess(@TempDir Path folder)
      throws IOException, InterruptedException {
    MultiLayerNetwork network = between(NHWC);
    INDArray x = Nets.images(NHWC, 5, 3, 21);
    network.fit(x, Nets.targets(5));
    Path file = folder.resolve("network.zip");
    ModelSerializer.writeModel(network, file.toFile(), true);
    Path log = folder.resolve("log");
    Process child =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path"),
                ReadNetwork.class.getName(),
                file.toString(),
                folder.resolve("output.bin").toString())
            .redirectErrorStream(true)
            .redirectOutput(log.toFile())
            .start();
    assertTrue(child.waitFor(120, TimeUnit.SECONDS));
    assertEquals(0, child.exitValue(), Files.readString(log));
    byte[] read = Files.readAllBytes(folder.resolve("output.bin"));
    assertEquals(
        java.util.HexFormat.of().formatHex(ReadNetwork.bytes(network.output(x))),
        java.util.HexFormat.of().formatHex(read));
    // And goes on as the one that was written.
    MultiLayerNetwork again = MultiLayerNetwork.load(file.toFile(), true);
    network.fit(x, Nets.targets(5));
    again.fit(x, Nets.targets(5));
    assertTrue(Nets.distance(network.params(), again.params()) <= 1e-6);
  }

  @Test
  void configurationsSurviveJsonAndClones() {
    MultiLayerConfiguration conf =
        Nets.conf(
            CNN2DFormat.NCHW,
            3,
            DataType.FLOAT,
            new Adam(),
            new JtreluLayer.Builder(Nets.trunk(3, true)).name("t").device("cpu:1").l2(1e-3).build(),
            Nets.output());
    MultiLayerConfiguration read = MultiLayerConfiguration.fromJson(conf.toJson());
    assertEquals(conf, read);
    assertEquals(conf, conf.clone());
    JtreluLayer layer = (JtreluLayer) read.getConf(0).getLayer();
    assertEquals("cpu:1", layer.device());
    assertEquals(CNN2DFormat.NCHW, layer.dataFormat());
    assertEquals(Nets.names(Nets.trunk(3, true)), Nets.names(layer.network()));
    assertFalse(layer.equals(new JtreluLayer.Builder(Nets.trunk(3, false)).name("t").build()));
    assertTrue(
        conf.getMemoryReport(InputType.convolutional(8, 8, 3)).toString().contains("Jtrelu"));
  }

  @Test
  void weightsAreDecayedAndBiasesNot() {
    MultiLayerNetwork network =
        Nets.network(
            NHWC,
            3,
            new JtreluLayer.Builder(Nets.trunk(3, true)).weightDecay(0.5).build(),
            Nets.output());
    network.getLayer(0).getParam("conv-1.bias").assign(1);
    INDArray weights = network.getLayer(0).getParam("conv-1.weights").dup();
    // Without a gradient: a loss that does not depend on the trunk.
    network.getLayer(1).getParam("W").assign(0);
    network.fit(Nets.images(NHWC, 4, 3, 1), Nets.targets(4));
    INDArray biases = network.getLayer(0).getParam("conv-1.bias");
    assertEquals(0, Nets.distance(biases, Nd4j.ones(5)), 1e-6);
    INDArray decayed = network.getLayer(0).getParam("conv-1.weights");
    // Nesterovs at 0.1 with momentum 0.9, whose first step is 1.9 times as long; the decay is not
    // part of the gradient: w - 0.5 * 0.1 * w.
    assertEquals(0, Nets.distance(decayed, weights.mul(0.95)), 1e-6);
  }

  @Test
  void frozenLayersStayAndPassGradientsOn() {
    MultiLayerNetwork network = between(NHWC);
    INDArray trunk = network.getLayer(1).params().dup();
    MultiLayerNetwork below =
        Nets.network(
            NHWC,
            3,
            Nets.convolution(6, 1, NHWC, TANH),
            new FrozenLayerWithBackprop(layer(Nets.trunk(6, false))),
            Nets.convolution(5, 1, NHWC, TANH),
            Nets.pool(),
            Nets.output());
    below.setParams(network.params());
    INDArray x = Nets.images(NHWC, 4, 3, 3);
    network.fit(x, Nets.targets(4));
    below.fit(x, Nets.targets(4));
    assertEquals(0, Nets.distance(trunk, below.getLayer(1).params()));
    assertTrue(Nets.distance(trunk, network.getLayer(1).params()) > 1e-4);
    // One step: gradients of the layer below do not depend on whether the trunk is updated.
    assertTrue(Nets.distance(network.getLayer(0).params(), below.getLayer(0).params()) <= 1e-6);

    MultiLayerNetwork frozen = new TransferLearning.Builder(network).setFeatureExtractor(1).build();
    INDArray kept = frozen.getLayer(1).params().dup();
    INDArray head = frozen.getLayer(4).params().dup();
    frozen.fit(x, Nets.targets(4));
    assertEquals(0, Nets.distance(kept, frozen.getLayer(1).params()));
    assertTrue(Nets.distance(head, frozen.getLayer(4).params()) > 1e-4);
  }

  @Test
  void clonesHaveParametersOfTheirOwn() {
    MultiLayerNetwork network = between(NHWC);
    MultiLayerNetwork clone = network.clone();
    INDArray x = Nets.images(NHWC, 4, 3, 3);
    INDArray before = clone.output(x).dup();
    network.fit(x, Nets.targets(4));
    assertEquals(0, Nets.distance(before, clone.output(x)));
    assertTrue(Nets.distance(before, network.output(x)) > 1e-4);
    clone.fit(x, Nets.targets(4));
    assertTrue(Nets.distance(network.params(), clone.params()) <= 1e-6);

    NetworkLayer layer = (NetworkLayer) network.getLayer(1);
    NetworkLayer copy = layer.clone();
    assertEquals(0, Nets.distance(layer.params(), copy.params()));
    copy.params().addi(1);
    assertNotSame(layer.params(), copy.params());
    assertTrue(Nets.distance(layer.params(), copy.params()) > 0.5);
    assertEquals(copy.params().getDouble(0), copy.getParam("conv-1.weights").getDouble(0));
  }

  @Test
  void seedsRepeatAndLayersDiffer() {
    INDArray params = between(NHWC).params();
    assertEquals(0, Nets.distance(params, between(NHWC).params()));
    MultiLayerNetwork two =
        Nets.network(NHWC, 3, layer(square()), layer(square()), Nets.pool(), Nets.output());
    assertTrue(Nets.distance(two.getLayer(0).params(), two.getLayer(1).params()) > 0.1);
  }

  private static Network square() {
    Network.Builder b = Network.builder("square", 8, 8, 3);
    b.activation("act", b.convolution("conv", b.input(), 3, 3, 1));
    return b.build();
  }

  @Test
  void threadsOfNd4jAreLeftAsTheyWere() {
    int max = Nd4j.getEnvironment().maxThreads();
    int master = Nd4j.getEnvironment().maxMasterThreads();
    NativeOps ops = NativeOpsHolder.getInstance().getDeviceNativeOps();
    int omp = ops.ompGetMaxThreads();
    ops.setOmpNumThreads(3);
    try {
      MultiLayerNetwork network = between(NHWC);
      network.fit(Nets.images(NHWC, 4, 3, 3), Nets.targets(4));
      network.output(Nets.images(NHWC, 4, 3, 3));
      assertEquals(max, Nd4j.getEnvironment().maxThreads());
      assertEquals(master, Nd4j.getEnvironment().maxMasterThreads());
      assertEquals(3, ops.ompGetMaxThreads());
    } finally {
      ops.setOmpNumThreads(omp);
    }
  }

  @Test
  void stepsAllocateNothingOfOurs() {
    MultiLayerNetwork network = between(NHWC);
    NetworkLayer layer = (NetworkLayer) network.getLayer(1);
    INDArray x = Nets.images(NHWC, 4, 3, 3);
    network.fit(x, Nets.targets(4));
    network.output(x);
    MemoryStatistics first = layer.memory();
    assertTrue(first.inUse() > 0);
    for (int step = 0; step < 300; step++) {
      network.fit(x, Nets.targets(4));
    }
    network.output(x);
    assertEquals(first, layer.memory());
    layer.close();
    assertEquals(0, layer.memory().inUse());
  }
}
