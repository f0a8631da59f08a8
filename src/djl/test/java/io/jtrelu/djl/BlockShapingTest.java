package io.jtrelu.djl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.Model;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.Blocks;
import ai.djl.nn.LambdaBlock;
import ai.djl.nn.ParallelBlock;
import ai.djl.nn.SequentialBlock;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import ai.djl.nn.norm.BatchNorm;
import ai.djl.nn.norm.Dropout;
import ai.djl.nn.pooling.Pool;
import ai.djl.training.ParameterStore;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.InfeasibleTargetException;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BlockShapingTest {

  private static Conv2d convolution() {
    return Conv2d.builder()
        .setFilters(4)
        .setKernelShape(new Shape(3, 3))
        .optPadding(new Shape(1, 1))
        .build();
  }

  private static SequentialBlock chain(int length) {
    SequentialBlock chain = new SequentialBlock();
    for (int i = 0; i < length; i++) {
      chain.add(convolution()).add(new ShapedActivation(Activation.LEAKY_RELU));
    }
    return chain;
  }

  private static List<TransformedActivation> activations(Block block) {
    List<TransformedActivation> found = new ArrayList<>();
    if (block instanceof ShapedActivation activation) {
      found.add(activation.activation());
    }
    block.getChildren().values().forEach(child -> found.addAll(activations(child)));
    return found;
  }

  @Test
  void aChainGetsTheSlopeOfItsLength() {
    SequentialBlock net =
        new SequentialBlock()
            .add(chain(20))
            .add(Pool.maxPool2dBlock(new Shape(2, 2)))
            .add(chain(29))
            .add(Dropout.builder().build())
            .add(Pool.globalAvgPool2dBlock())
            .add(Blocks.batchFlattenBlock())
            .add(Linear.builder().setUnits(10).build());
    BlockShaping.shape(net, Tat.eta(0.9));
    // A 49-fold C map of c = 0, in closed form, must end at eta.
    List<TransformedActivation> shaped = activations(net);
    assertEquals(49, shaped.size());
    double c = 0;
    for (TransformedActivation f : shaped) {
      double a = f.negativeSlope();
      assertEquals(Math.sqrt(2 / (1 + a * a)), f.outputScale(), 1e-12);
      c += (1 - a) * (1 - a) / (Math.PI * (1 + a * a)) * (Math.sqrt(1 - c * c) - c * Math.acos(c));
    }
    assertEquals(0.9, c, 1e-9);
  }

  @Test
  void aResidualNetworkGetsTheSlopeOfItsGraph() {
    double w = 0.5;
    SequentialBlock net = new SequentialBlock().add(convolution());
    for (int i = 0; i < 20; i++) {
      net.add(new NormalizedSum(w, Blocks.identityBlock(), chain(2)));
    }
    Map<String, Shaping> solved = BlockShaping.shape(net, new Tat());
    // The network as a whole is not below its blocks, so M(0) is reached over all twenty.
    double a = activations(net).get(0).negativeSlope();
    double c = 0;
    for (int i = 0; i < 20; i++) {
      double branch = c;
      for (int k = 0; k < 2; k++) {
        branch +=
            (1 - a)
                * (1 - a)
                / (Math.PI * (1 + a * a))
                * (Math.sqrt(1 - branch * branch) - branch * Math.acos(branch));
      }
      c = w * w * c + (1 - w * w) * branch;
    }
    assertEquals(Math.max(0.9, c), 0.9, 1e-9);
    assertEquals(0.9, solved.get("leaky_relu").achieved(), 1e-9);
  }

  @Test
  void aNormalizedSumIsOne() {
    try (NDManager manager = NDManager.newBaseManager()) {
      Block twice = LambdaBlock.singleton(x -> x.mul(2), "twice");
      NormalizedSum sum = new NormalizedSum(0.6, Blocks.identityBlock(), twice);
      NDArray x = manager.create(new float[] {1, -3});
      NDArray y =
          sum.forward(new ParameterStore(manager, false), new NDList(x), false).singletonOrThrow();
      // 0.6 x + 0.8 * 2 x
      assertTrue(y.allClose(manager.create(new float[] {2.2f, -6.6f})));
      assertEquals(manager.create(new float[] {1, -3}), x);
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> new NormalizedSum(1, Blocks.identityBlock(), Blocks.identityBlock()));
  }

  @Test
  void activationBlocksOfDjlAreReplacedWhereTheyStand(@TempDir Path folder) throws Exception {
    SequentialBlock net =
        new SequentialBlock()
            .add(convolution())
            .add(ai.djl.nn.Activation.tanhBlock())
            .add(
                new NormalizedSum(
                    0.8,
                    ai.djl.nn.Activation.softPlusBlock(),
                    new SequentialBlock().add(convolution()).add(ai.djl.nn.Activation.tanhBlock())))
            .add(convolution());
    try (Model model = Model.newInstance("net")) {
      model.setBlock(net);
      net.initialize(model.getNDManager(), DataType.FLOAT32, new Shape(1, 4, 5, 5));
      List<String> names = net.getParameters().keys();
      Map<String, Shaping> solved = BlockShaping.shape(net, new Dks());
      assertEquals(List.of("tanh", "softplus"), List.copyOf(solved.keySet()));
      assertEquals(names, net.getParameters().keys());
      assertEquals(
          List.of("tanh", "softplus", "tanh"),
          activations(net).stream().map(f -> f.function().activationName()).toList());
      for (TransformedActivation f : activations(net)) {
        assertEquals(solved.get(f.function().activationName()).activation(), f);
        assertFalse(f.inputScale() == 1);
      }
      model.save(folder, "net");
    }
  }

  @Test
  void whatIsNotKnownIsRefusedByNameAndPlace() {
    refused("02BatchNorm normalises", BatchNorm.builder().build());
    refused("02Prelu learns", ai.djl.nn.Activation.preluBlock());
    refused("02ParallelBlock does not tell", new ParallelBlock(parts -> parts.get(0)));
    refused("'anonymous'", new LambdaBlock(x -> x));
    refused("'Swish'", ai.djl.nn.Activation.swishBlock(2));
    refused(
        "SequentialBlock/02SequentialBlock/01SequentialBlock/01BatchNorm",
        new SequentialBlock().add(new SequentialBlock().add(BatchNorm.builder().build())));
    refused("intermediate", new SequentialBlock().setReturnIntermediate(true));
  }

  private static void refused(String text, Block block) {
    SequentialBlock net = chain(1);
    net.removeLastBlock();
    net.add(block).add(new ShapedActivation(Activation.LEAKY_RELU));
    Exception refused =
        assertThrows(IllegalArgumentException.class, () -> BlockShaping.shape(net, Tat.eta(0.9)));
    String message = String.valueOf(refused.getMessage());
    assertTrue(message.contains(text), message);
  }

  @Test
  void nothingIsChangedWhereThereIsNoSolution() {
    SequentialBlock net = chain(2).add(ai.djl.nn.Activation.leakyReluBlock(0.2f));
    assertThrows(InfeasibleTargetException.class, () -> BlockShaping.shape(net, Tat.eta(0.999)));
    for (TransformedActivation f : activations(net)) {
      assertEquals(TransformedActivation.unchanged(Activation.LEAKY_RELU), f);
    }
    assertEquals(2, activations(net).size());
  }

  @Test
  void aGraphOfTheCallersServesBlocksThatAreNotKnown() {
    SequentialBlock net = chain(30).add(new LambdaBlock(x -> x, "mine"));
    Map<String, Shaping> solved = BlockShaping.shape(net, new Tat(), SignalGraph.chain(30));
    SequentialBlock known = chain(30);
    BlockShaping.shape(known, new Tat());
    assertEquals(activations(known), activations(net));
    assertEquals(List.of("leaky_relu"), List.copyOf(solved.keySet()));
    SequentialBlock none = new SequentialBlock().add(new LambdaBlock(x -> x, "mine"));
    assertThrows(
        IllegalArgumentException.class,
        () -> BlockShaping.shape(none, new Tat(), SignalGraph.chain(3)));
    SequentialBlock two = chain(3).add(new ShapedActivation(Activation.TANH));
    assertThrows(
        IllegalArgumentException.class,
        () -> BlockShaping.shape(two, new Dks(), SignalGraph.chain(3)));
  }

  @Test
  void theEdgeOfChaosIsTold() {
    SequentialBlock net = new SequentialBlock().add(convolution());
    net.add(new ShapedActivation(Activation.TANH));
    Shaping solved = BlockShaping.shape(net, new Eoc(0.1)).get("tanh");
    assertTrue(solved.edgeOfChaos().sigmaW2() > 1);
  }
}
