package io.jtrelu.dl4j.layer;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkFormatException;
import org.deeplearning4j.exception.DL4JInvalidConfigException;
import org.deeplearning4j.exception.DL4JInvalidInputException;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.misc.FrozenLayerWithBackprop;
import org.deeplearning4j.nn.conf.weightnoise.DropConnect;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.deeplearning4j.nn.workspace.LayerWorkspaceMgr;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.nd4j.linalg.activations.impl.ActivationTanH;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.indexing.NDArrayIndex;
import org.nd4j.linalg.learning.config.Sgd;

/** What cannot work is refused, by a message that says what to do. */
class RefusalsTest {
  private static final CNN2DFormat NHWC = CNN2DFormat.NHWC;

  private static JtreluLayer.Builder builder() {
    return new JtreluLayer.Builder(Nets.trunk(3, true)).name("trunk");
  }

  private static MultiLayerNetwork network() {
    return Nets.network(NHWC, 3, builder().build(), Nets.output());
  }

  private static void refused(Class<? extends Throwable> type, Executable action, String... parts) {
    String message = assertThrows(type, action).getMessage();
    for (String part : parts) {
      assertTrue(message.contains(part), () -> "'" + part + "' is not in: " + message);
    }
  }

  /** BFLOAT16 is refused by Deeplearning4j's builder. */
  @Test
  void halfPrecision() {
    MultiLayerConfiguration conf =
        Nets.conf(NHWC, 3, DataType.FLOAT16, new Sgd(0.1), builder().build(), Nets.output());
    refused(
        DL4JInvalidConfigException.class,
        () -> Nets.init(conf),
        "'trunk'",
        "HALF",
        ".dataType(DataType.FLOAT)");
  }

  @Test
  void otherImagesThanTheNetworkReads() {
    refused(
        DL4JInvalidConfigException.class,
        () -> Nets.network(NHWC, 4, builder().build(), Nets.output()),
        "8x8x3",
        "c=4");
    MultiLayerNetwork network = network();
    refused(
        DL4JInvalidInputException.class,
        () -> network.output(Nets.images(CNN2DFormat.NCHW, 2, 3, 1)),
        "[n, 8, 8, 3]",
        "NHWC",
        "[2, 3, 8, 8]");
    refused(
        DL4JInvalidInputException.class,
        () -> network.output(Nd4j.create(DataType.FLOAT, 2, 192)),
        "[2, 192]");
    refused(
        DL4JInvalidInputException.class,
        () ->
            network
                .getLayer(0)
                .backpropGradient(Nd4j.create(DataType.FLOAT, 3, 7), trained(network, 2)),
        "[2, 7]",
        "[3, 7]");
  }

  private static LayerWorkspaceMgr trained(MultiLayerNetwork network, int n) {
    network.fit(Nets.images(NHWC, n, 3, 1), Nets.targets(n));
    LayerWorkspaceMgr none = LayerWorkspaceMgr.noWorkspaces();
    network.getLayer(0).activate(Nets.images(NHWC, n, 3, 1), true, none);
    return none;
  }

  @Test
  void parametersThatAreNotInOnePiece() {
    MultiLayerNetwork network = network();
    NetworkLayer layer = (NetworkLayer) network.getLayer(0);
    long n = layer.numParams();
    INDArray every = Nd4j.create(DataType.FLOAT, 2 * n).get(NDArrayIndex.interval(0, 2, 2 * n));
    layer.setParamsViewArray(every);
    refused(
        IllegalStateException.class,
        () -> network.output(Nets.images(NHWC, 2, 3, 1)),
        "in one piece",
        "[2]",
        "dup()");
  }

  @Test
  void useAfterClose() {
    MultiLayerNetwork network = network();
    network.getLayer(0).close();
    network.getLayer(0).close();
    refused(
        IllegalStateException.class,
        () -> network.output(Nets.images(NHWC, 2, 3, 1)),
        "'trunk' was closed");
    MultiLayerNetwork other = network();
    INDArray x = Nets.images(NHWC, 2, 3, 1);
    other.output(x);
    other.close();
    refused(
        IllegalStateException.class,
        () -> other.getLayer(0).activate(x, false, LayerWorkspaceMgr.noWorkspaces()),
        "closed");
  }

  @Test
  void masksAndWeightNoise() {
    MultiLayerNetwork network = network();
    network.getLayer(0).setMaskArray(Nd4j.ones(2, 1));
    refused(
        UnsupportedOperationException.class,
        () ->
            network
                .getLayer(0)
                .activate(Nets.images(NHWC, 2, 3, 1), false, LayerWorkspaceMgr.noWorkspaces()),
        "no masks");
    refused(
        DL4JInvalidConfigException.class,
        () ->
            Nets.network(
                NHWC, 3, builder().weightNoise(new DropConnect(0.5)).build(), Nets.output()),
        "weight noise");
  }

  @Test
  void frozenDropout() {
    Network.Builder b = Network.builder("dropout", 8, 8, 3);
    b.dropout("drop", b.convolution("conv", b.input(), 3, 3, 1), 0.5f);
    MultiLayerNetwork network =
        Nets.network(
            NHWC,
            3,
            Nets.convolution(3, 1, NHWC, new ActivationTanH()),
            new FrozenLayerWithBackprop(new JtreluLayer.Builder(b.build()).build()),
            Nets.pool(),
            Nets.output());
    refused(
        IllegalStateException.class,
        () -> network.fit(Nets.images(NHWC, 2, 3, 1), Nets.targets(2)),
        "dropout out of what is frozen");
  }

  @Test
  void networksThatAreNoLayer() {
    Network.Builder two = Network.builder("two", 8, 8, 3);
    int a = two.convolution("a", two.input(), 3, 3, 1);
    int c = two.convolution("c", two.input(), 3, 3, 1);
    refused(
        IllegalArgumentException.class,
        () -> new JtreluLayer.Builder(two.build(a, c)),
        "2 outputs");
    Network.Builder empty = Network.builder("empty", 8, 8, 3);
    empty.globalMeanPool("pool", empty.input());
    refused(
        IllegalArgumentException.class,
        () -> new JtreluLayer.Builder(empty.build()),
        "no parameters");
    Network.Builder named = Network.builder("named", 8, 8, 3);
    named.convolution("x-y", named.convolution("x_y", 0, 3, 3, 1), 3, 3, 1);
    refused(
        IllegalArgumentException.class,
        () -> new JtreluLayer.Builder(named.build()),
        "x-y.weights",
        "rename");
    Network.Builder own = Network.builder("own", 8, 8, 3);
    own.activation(
        "act",
        own.convolution("conv", 0, 3, 3, 1),
        ActivationFunction.derived("sine", x -> x.sin()));
    refused(NetworkFormatException.class, () -> new JtreluLayer.Builder(own.build()), "sine");
  }

  @Test
  void devicesThatAreNotTheCpu() {
    refused(
        IllegalArgumentException.class,
        () -> Nets.network(NHWC, 3, builder().device("abacus").build(), Nets.output()),
        "abacus");
  }

  @Test
  void flatImagesAreTurnedIntoNchw() {
    MultiLayerNetwork network =
        Nets.init(
            new org.deeplearning4j.nn.conf.NeuralNetConfiguration.Builder()
                .list()
                .layer(builder().build())
                .layer(Nets.output())
                .setInputType(InputType.convolutionalFlat(8, 8, 3))
                .build());
    INDArray x = Nets.images(CNN2DFormat.NCHW, 2, 3, 1);
    MultiLayerNetwork images = Nets.network(CNN2DFormat.NCHW, 3, builder().build(), Nets.output());
    images.setParams(network.params());
    assertTrue(Nets.distance(images.output(x), network.output(x.reshape(2, 192))) <= 1e-6);
  }
}
