package io.jtrelu.djl.trunk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.Device;
import ai.djl.MalformedModelException;
import ai.djl.Model;
import ai.djl.engine.Engine;
import ai.djl.inference.Predictor;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.Blocks;
import ai.djl.nn.LambdaBlock;
import ai.djl.nn.ParallelBlock;
import ai.djl.nn.Parameter;
import ai.djl.nn.SequentialBlock;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import ai.djl.nn.pooling.Pool;
import ai.djl.training.DefaultTrainingConfig;
import ai.djl.training.EasyTrain;
import ai.djl.training.GradientCollector;
import ai.djl.training.ParameterStore;
import ai.djl.training.Trainer;
import ai.djl.training.dataset.Batch;
import ai.djl.training.loss.Loss;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;
import ai.djl.translate.Batchifier;
import ai.djl.translate.NoopTranslator;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.djl.ClippingTrainer;
import io.jtrelu.djl.NormalizedSum;
import io.jtrelu.nn.Network;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Function;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Training with blocks of ours against the same network in DJL's operations and gradients. */
class JtreluBlockTest {
  private static final int SIDE = 6;
  private static final TransformedActivation PHI = TransformedActivation.rectifier(0.4, 1.3);

  /** Two convolutions of one size, with activations. */
  private static Network pair(String name) {
    Network.Builder b = Network.builder(name, SIDE, SIDE, 4);
    int x = b.activation("phi1", b.convolution("conv1", b.input(), 4, 3, 1), PHI);
    b.activation("phi2", b.convolution("conv2", x, 4, 3, 1), PHI);
    return b.build();
  }

  /** Strides, groups, a residual sum, pooling, and logits at the end. */
  private static Network head() {
    Network.Builder b = Network.builder("head", SIDE, SIDE, 4);
    int x = b.convolution("strided", b.input(), 6, 3, 2);
    x = b.activation("phi1", x, PHI);
    var grouped = new Conv2dDescriptor(1, 3, 3, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2);
    int branch = b.activation("phi2", b.convolution("grouped", x, grouped), PHI);
    x = b.normalizedSum("sum", x, branch, 0.6);
    x = b.maxPool("pool", x, 2, 1);
    b.linear("logits", b.globalMeanPool("mean", x), 3);
    return b.build();
  }

  private static Conv2d djlConvolution() {
    return Conv2d.builder()
        .setFilters(4)
        .setKernelShape(new Shape(3, 3))
        .optPadding(new Shape(1, 1))
        .build();
  }

  /** Ours behind, inside a skip around, and after blocks of DJL's. */
  private static SequentialBlock mixed(Function<JtreluBlock, Block> trunk) {
    return new SequentialBlock()
        .add(djlConvolution())
        .add(new NormalizedSum(0.6, Blocks.identityBlock(), block(pair("a"), 1, trunk)))
        .add(
            new ParallelBlock(
                parts -> new NDList(parts.get(0).head().add(Twin.mul(parts.get(1).head(), 0.5))),
                List.of(block(pair("b"), 2, trunk), block(pair("c"), 3, trunk))))
        .add(djlConvolution())
        .add(LambdaBlock.singleton(NDArray::tanh))
        .add(block(head(), 4, trunk))
        .add(Linear.builder().setUnits(3).build());
  }

  private static Block block(Network network, long seed, Function<JtreluBlock, Block> trunk) {
    return trunk.apply(new JtreluBlock(network, seed));
  }

  private static DefaultTrainingConfig config() {
    return new DefaultTrainingConfig(Loss.softmaxCrossEntropyLoss())
        .optDevices(new Device[] {Device.cpu()})
        .optOptimizer(
            Optimizer.sgd().setLearningRateTracker(Tracker.fixed(0.05f)).optMomentum(0.9f).build());
  }

  private static NDArray normals(NDManager manager, long seed, Shape shape) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(shape.size())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return manager.create(values, shape);
  }

  private static Batch batch(Trainer trainer, long seed, int rows) {
    NDManager manager = trainer.getManager().newSubManager();
    float[] labels = new float[rows];
    for (int i = 0; i < rows; i++) {
      labels[i] = (i + seed) % 3;
    }
    NDArray images = normals(manager, seed, new Shape(rows, 4, SIDE, SIDE));
    return new Batch(
        manager,
        new NDList(images),
        new NDList(manager.create(labels)),
        rows,
        Batchifier.STACK,
        Batchifier.STACK,
        0,
        0);
  }

  private static void step(Trainer trainer, long seed, int rows) {
    try (Batch batch = batch(trainer, seed, rows)) {
      EasyTrain.trainBatch(trainer, batch);
      trainer.step();
    }
  }

  /** A network with blocks of ours, and the same with their twins, in training. */
  private static final class Both implements AutoCloseable {
    final Model ourModel = Model.newInstance("ours", "PyTorch");
    final Model theirModel = Model.newInstance("theirs", "PyTorch");
    final Block ours;
    final Block theirs;
    final Trainer ourTrainer;
    final Trainer theirTrainer;

    Both(Function<Function<JtreluBlock, Block>, Block> network) {
      requireOracle();
      ours = network.apply(block -> block);
      theirs = network.apply(Twin::new);
      ourModel.setBlock(ours);
      theirModel.setBlock(theirs);
      ours.setInitializer(new io.jtrelu.djl.DeltaInitializer(5), JtreluBlockTest::isDjls);
      theirs.setInitializer(new io.jtrelu.djl.DeltaInitializer(5), JtreluBlockTest::isDjls);
      ourTrainer = new JtreluTrainer(ourModel, config());
      theirTrainer = theirModel.newTrainer(config());
      ourTrainer.initialize(new Shape(5, 4, SIDE, SIDE));
      theirTrainer.initialize(new Shape(5, 4, SIDE, SIDE));
      Twin.copyParameters(ours, theirs);
    }

    void step(long seed, int rows) {
      JtreluBlockTest.step(ourTrainer, seed, rows);
      JtreluBlockTest.step(theirTrainer, seed, rows);
    }

    void requireEqualParameters() {
      List<Parameter> a = ours.getParameters().values();
      List<Parameter> b = theirs.getParameters().values();
      assertEquals(a.size(), b.size());
      for (int i = 0; i < a.size(); i++) {
        near(b.get(i).getArray(), a.get(i).getArray(), 1e-6, a.get(i).getName());
      }
    }

    @Override
    public void close() {
      ourTrainer.close();
      theirTrainer.close();
      ourModel.close();
      theirModel.close();
    }
  }

  private static boolean oracleIsSought;
  private static String oracleFault = "";

  /**
   * Skips a test where DJL's own gradients are no measure: two networks of its own operations,
   * trained alike, must move and end alike. On some machines those of PyTorch 2.7.1 are sometimes
   * right, sometimes 0 and sometimes NaN.
   */
  private static void requireOracle() {
    if (!oracleIsSought) {
      oracleIsSought = true;
      try (Both one = new Both(JtreluBlockTest::mixed);
          Both other = new Both(JtreluBlockTest::mixed)) {
        float[] before = one.theirs.getParameters().get(0).getValue().getArray().toFloatArray();
        for (int i = 0; i < 3; i++) {
          one.step(i, 5);
          other.step(i, 5);
        }
        float[] after = one.theirs.getParameters().get(0).getValue().getArray().toFloatArray();
        double moved = 0;
        for (int i = 0; i < after.length; i++) {
          moved = Math.max(moved, Math.abs(after[i] - before[i]));
        }
        assertTrue(moved > 1e-4, "weight moved by " + moved);
        List<Parameter> a = one.theirs.getParameters().values();
        List<Parameter> b = other.theirs.getParameters().values();
        for (int i = 0; i < a.size(); i++) {
          near(a.get(i).getArray(), b.get(i).getArray(), 1e-6, a.get(i).getName());
        }
      } catch (AssertionError differs) {
        oracleFault = String.valueOf(differs.getMessage());
      }
    }
    Assumptions.assumeTrue(
        oracleFault.isEmpty(),
        () -> "DJL's own gradients are wrong on this machine: " + oracleFault);
  }

  private static boolean isDjls(Parameter parameter) {
    return parameter.getName().equals("weight");
  }

  /** Within a part of the largest element (of 1, if that is larger). */
  private static void near(NDArray expected, NDArray actual, double bound, String what) {
    float[] e = expected.toFloatArray();
    float[] a = actual.toFloatArray();
    assertEquals(e.length, a.length, what);
    double scale = 1;
    for (float value : e) {
      scale = Math.max(scale, Math.abs(value));
    }
    for (int i = 0; i < e.length; i++) {
      boolean close = Math.abs(e[i] - a[i]) <= bound * scale;
      assertTrue(close, what + "[" + i + "]: " + e[i] + " expected, got " + a[i]);
    }
  }

  @Test
  void threeStepsAreThoseOfDjlsOwnGradients() {
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      float[] before = both.ours.getParameters().get(2).getValue().getArray().toFloatArray();
      both.step(1, 5);
      both.step(2, 3); // a partial batch
      both.step(3, 7); // one that is larger than those before
      both.requireEqualParameters();
      float[] after = both.ours.getParameters().get(2).getValue().getArray().toFloatArray();
      double moved = 0;
      for (int i = 0; i < after.length; i++) {
        moved = Math.max(moved, Math.abs(after[i] - before[i]));
      }
      assertTrue(moved > 1e-3, "parameters moved by " + moved);
    }
  }

  @Test
  void frozenParametersStayAndOthersLearn() {
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      for (Block net : List.of(both.ours, both.theirs)) {
        // Our first block whole, so that it passes gradients on only, and a part of the last one.
        net.getChildren().get(1).getValue().freezeParameters(true);
        net.getChildren()
            .get(5)
            .getValue()
            .freezeParameters(true, p -> p.getName().startsWith("grouped"));
      }
      float[] before = both.ours.getParameters().get(2).getValue().getArray().toFloatArray();
      for (int i = 0; i < 3; i++) {
        both.step(i, 5);
      }
      both.requireEqualParameters();
      assertArrayEquals(
          before, both.ours.getParameters().get(2).getValue().getArray().toFloatArray());
    }
  }

  @Test
  void aBlockThatIsUsedTwiceInAPassGetsBothGradients() {
    try (Both both =
        new Both(
            trunk -> {
              Block shared = block(pair("shared"), 1, trunk);
              return new SequentialBlock()
                  .add(djlConvolution())
                  .add(new Twice(shared))
                  .add(Pool.globalAvgPool2dBlock())
                  .add(Linear.builder().setUnits(3).build());
            })) {
      for (int i = 0; i < 3; i++) {
        both.step(i, 4);
      }
      both.requireEqualParameters();
    }
  }

  /** A block applied to its own result. */
  private static final class Twice extends ai.djl.nn.AbstractBlock {
    private final Block block;

    Twice(Block block) {
      this.block = addChildBlock("block", block);
    }

    @Override
    protected NDList forwardInternal(
        ParameterStore store,
        NDList inputs,
        boolean training,
        ai.djl.util.PairList<String, Object> params) {
      return block.forward(store, block.forward(store, inputs, training), training);
    }

    @Override
    protected void initializeChildBlocks(NDManager manager, DataType type, Shape... shapes) {
      block.initialize(manager, type, shapes);
    }

    @Override
    public Shape[] getOutputShapes(Shape[] shapes) {
      return shapes;
    }
  }

  /** Two outputs, of which the second is read by another layer too. */
  private static Network twoOutputs() {
    Network.Builder b = Network.builder("two", SIDE, SIDE, 4);
    int x = b.activation("phi", b.convolution("conv", b.input(), 4, 3, 1), PHI);
    int logits = b.linear("logits", b.globalMeanPool("mean", x), 3);
    return b.build(logits, x);
  }

  private static NDArray sumOfMap(NDArray map) {
    return Twin.mul(map.sum(new int[] {1, 2, 3}, true).reshape(-1, 1), 0.1);
  }

  @Test
  void outputsMayBeSeveralAndUnused() {
    for (boolean useMap : new boolean[] {true, false}) {
      Function<Function<JtreluBlock, Block>, Block> net =
          trunk ->
              new SequentialBlock()
                  .add(djlConvolution())
                  .add(block(twoOutputs(), 1, trunk))
                  .add(
                      outputs ->
                          new NDList(
                              useMap
                                  ? outputs.get(0).add(sumOfMap(outputs.get(1)))
                                  : outputs.get(0)));
      try (Both both = new Both(net)) {
        for (int i = 0; i < 3; i++) {
          both.step(i, 4);
        }
        both.requireEqualParameters();
      }
    }
  }

  @Test
  void predictionsSeeWhatWasLearntOutsideACollectorAndByManyThreads() throws Exception {
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      for (int i = 0; i < 2; i++) {
        both.step(i, 5);
        try (Predictor<NDList, NDList> ours = both.ourModel.newPredictor(new NoopTranslator(null));
            Predictor<NDList, NDList> theirs =
                both.theirModel.newPredictor(new NoopTranslator(null));
            NDManager manager = both.ourModel.getNDManager().newSubManager()) {
          NDArray x = normals(manager, 7, new Shape(9, 4, SIDE, SIDE));
          NDArray expected = theirs.predict(new NDList(x)).singletonOrThrow();
          near(expected, ours.predict(new NDList(x)).singletonOrThrow(), 2e-6, "prediction");
          try (ExecutorService pool = Executors.newFixedThreadPool(3)) {
            List<Callable<NDArray>> calls = new ArrayList<>();
            for (int t = 0; t < 6; t++) {
              calls.add(
                  () -> {
                    try (Predictor<NDList, NDList> own =
                        both.ourModel.newPredictor(new NoopTranslator(null))) {
                      NDArray y = own.predict(new NDList(x)).singletonOrThrow();
                      y.attach(manager);
                      return y;
                    }
                  });
            }
            for (Future<NDArray> future : pool.invokeAll(calls)) {
              near(expected, future.get(), 2e-6, "prediction of a thread");
            }
          }
        }
      }
    }
  }

  @Test
  void aThousandStepsHoldNoMoreThanTen() {
    try (Backend backend = Backends.open("cpu")) {
      thousandSteps(backend);
      assertEquals(0, backend.memory().inUse(), "closed with the model");
    }
  }

  private static void thousandSteps(Backend backend) {
    try (Model model = Model.newInstance("long", "PyTorch")) {
      model.setBlock(
          new SequentialBlock()
              .add(djlConvolution())
              .add(
                  new NormalizedSum(
                      0.6, Blocks.identityBlock(), new JtreluBlock(pair("a"), backend, 1)))
              .add(new JtreluBlock(head(), backend, 2)));
      try (Trainer trainer = new JtreluTrainer(model, config(), 1)) {
        trainer.initialize(new Shape(4, 4, SIDE, SIDE));
        int arrays = 0;
        long bytes = 0;
        for (int i = 0; i < 1000; i++) {
          step(trainer, i % 7, 2 + i % 3);
          if (i == 9) {
            arrays = model.getNDManager().getManagedArrays().size();
            bytes = backend.memory().inUse();
          }
        }
        assertEquals(arrays, model.getNDManager().getManagedArrays().size());
        assertEquals(bytes, backend.memory().inUse());
        assertTrue(bytes > 0);
      }
    }
  }

  @Test
  void aSavedModelGivesEqualOutputs(@TempDir Path folder) throws Exception {
    float[] before;
    try (Model model = Model.newInstance("net", "PyTorch")) {
      model.setBlock(mixed(block -> block));
      try (Trainer trainer = new JtreluTrainer(model, config())) {
        model
            .getBlock()
            .setInitializer(new io.jtrelu.djl.DeltaInitializer(5), JtreluBlockTest::isDjls);
        trainer.initialize(new Shape(4, 4, SIDE, SIDE));
        step(trainer, 1, 4);
        before = output(trainer);
      }
      model.save(folder, "net");
    }
    try (Model model = Model.newInstance("net", "PyTorch")) {
      model.setBlock(mixed(block -> block));
      model.load(folder);
      try (Trainer trainer = new JtreluTrainer(model, config())) {
        trainer.initialize(new Shape(4, 4, SIDE, SIDE)); // keeps what was loaded
        assertArrayEquals(before, output(trainer));
        step(trainer, 2, 4); // and it goes on learning
        assertFalse(Arrays.equals(before, output(trainer)));
      }
    }
    try (Model model = Model.newInstance("net", "PyTorch")) {
      Network other = pair("a").with(TransformedActivation.rectifier(0.5, 1.3));
      SequentialBlock net = mixed(block -> block);
      Block[] children = net.getChildren().values().toArray(Block[]::new);
      SequentialBlock changed = new SequentialBlock().add(children[0]);
      changed.add(new NormalizedSum(0.6, Blocks.identityBlock(), new JtreluBlock(other)));
      changed.addAll(List.of(children).subList(2, children.length));
      model.setBlock(changed);
      Exception refused = assertThrows(MalformedModelException.class, () -> model.load(folder));
      assertTrue(refused.getMessage().contains("another network"), refused.getMessage());
    }
  }

  private static float[] output(Trainer trainer) {
    try (NDManager manager = trainer.getManager().newSubManager()) {
      NDArray x = normals(manager, 9, new Shape(3, 4, SIDE, SIDE));
      return trainer.evaluate(new NDList(x)).singletonOrThrow().toFloatArray();
    }
  }

  @Test
  void parametersHaveOurNamesAndTheirShapes() {
    try (Model model = Model.newInstance("net", "PyTorch")) {
      JtreluBlock block = new JtreluBlock(head());
      block.initialize(model.getNDManager(), DataType.FLOAT32, new Shape(1, 4, SIDE, SIDE));
      assertEquals(
          List.of(
              "strided.weights (6, 4, 3, 3)",
              "grouped.weights (6, 3, 3, 3)",
              "logits.weights (3, 6)",
              "strided.bias (6)",
              "grouped.bias (6)",
              "logits.bias (3)"),
          block.getParameters().stream()
              .map(pair -> pair.getKey() + " " + pair.getValue().getArray().getShape())
              .toList());
      // Delta kernels: the centre alone, with orthonormal columns times sqrt(6 / 4).
      NDArray weights = block.getParameters().get("strided.weights").getArray();
      NDArray centre = weights.get(":, :, 1, 1");
      NDArray gram = centre.transpose().matMul(centre).div(1.5);
      near(model.getNDManager().eye(4), gram, 2e-6, "gram matrix");
      assertEquals(4 * 1.5, weights.square().sum().getFloat(), 1e-5);
      // Saved as others expect them, whatever the order in memory.
      model.setBlock(block);
    }
  }

  /** In our order an array is contiguous as it is: PyTorch's buffer of it is no copy of the day. */
  @Test
  void parametersAndOutputsLieInOurOrder() {
    try (Model model = Model.newInstance("net", "PyTorch")) {
      model.setBlock(new JtreluBlock(pair("a")));
      model
          .getBlock()
          .setInitializer(new io.jtrelu.djl.DeltaInitializer(1), Parameter.Type.WEIGHT); // OIHW
      try (Trainer trainer = new JtreluTrainer(model, config())) {
        trainer.initialize(new Shape(4, 4, SIDE, SIDE));
        NDArray weights = model.getBlock().getParameters().get("conv1.weights").getArray();
        assertFalse(isInOurOrder(weights));
        float[] before = weights.toFloatArray();
        try (NDManager manager = trainer.getManager().newSubManager();
            GradientCollector collector = trainer.newGradientCollector()) {
          NDArray x = normals(manager, 1, new Shape(4, 4, SIDE, SIDE));
          NDArray y = trainer.forward(new NDList(x)).singletonOrThrow();
          assertTrue(isInOurOrder(y));
          assertTrue(isInOurOrder(weights));
          assertArrayEquals(before, weights.toFloatArray());
          long address = address(weights);
          collector.backward(y.sum());
          trainer.step();
          assertEquals(address, address(weights)); // the optimiser wrote what we read
          assertFalse(Arrays.equals(before, weights.toFloatArray()));
        }
      }
    }
  }

  private static boolean isInOurOrder(NDArray array) {
    long once = address(array);
    return once == address(array); // copies would lie apart
  }

  private static long address(NDArray array) {
    ByteBuffer buffer = array.stopGradient().transpose(0, 2, 3, 1).toByteBuffer(true);
    return MemorySegment.ofBuffer(buffer).address();
  }

  @Test
  void severalForwardPassesMayHaveTheirOwnBackward() {
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      for (Trainer trainer : List.of(both.ourTrainer, both.theirTrainer)) {
        try (Batch first = batch(trainer, 1, 3);
            Batch second = batch(trainer, 2, 4);
            GradientCollector collector = trainer.newGradientCollector()) {
          for (Batch batch : List.of(first, second)) {
            NDList y = trainer.forward(batch.getData());
            collector.backward(trainer.getLoss().evaluate(batch.getLabels(), y));
          }
          trainer.step();
        }
      }
      both.requireEqualParameters();
    }
  }

  @Test
  void aSecondLossOfAPassIsRefused() {
    try (Both both = new Both(JtreluBlockTest::mixed);
        Batch batch = batch(both.ourTrainer, 1, 3);
        GradientCollector collector = both.ourTrainer.newGradientCollector()) {
      NDArray y = both.ourTrainer.forward(batch.getData()).singletonOrThrow();
      collector.backward(y.square().sum());
      Exception refused =
          assertThrows(IllegalStateException.class, () -> collector.backward(y.exp().sum()));
      assertTrue(refused.getMessage().contains("add the losses up"), refused.getMessage());
    }
  }

  @Test
  void collectorsAreOneAtATime() {
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      try (GradientCollector open = both.ourTrainer.newGradientCollector()) {
        refused("open already", () -> both.ourTrainer.newGradientCollector());
        open.zeroGradients();
      }
      try (GradientCollector open = Engine.getEngine("PyTorch").newGradientCollector()) {
        refused("one at a time", () -> both.ourTrainer.newGradientCollector());
        open.zeroGradients();
      }
      step(both.ourTrainer, 1, 3); // nothing was left behind
    }
  }

  private static void refused(String text, Runnable call) {
    RuntimeException refused = assertThrows(RuntimeException.class, call::run);
    assertTrue(String.valueOf(refused.getMessage()).contains(text), refused.getMessage());
  }

  @Test
  void trainingWithoutOurTrainerIsRefused() {
    try (Model model = Model.newInstance("net", "PyTorch")) {
      model.setBlock(new JtreluBlock(head()));
      try (Trainer trainer = model.newTrainer(config())) {
        trainer.initialize(new Shape(4, 4, SIDE, SIDE));
        try (Batch batch = batch(trainer, 1, 4)) {
          refused("JtreluTrainer", () -> EasyTrain.trainBatch(trainer, batch));
        }
      }
    }
  }

  @Test
  void wrongArraysAreRefusedByName() {
    try (Model model = Model.newInstance("net", "PyTorch");
        NDManager manager = model.getNDManager().newSubManager()) {
      JtreluBlock block = new JtreluBlock(head());
      Shape shape = new Shape(2, 4, SIDE, SIDE);
      block.initialize(manager, DataType.FLOAT32, shape);
      ParameterStore store = new ParameterStore(manager, false);
      NDArray good = normals(manager, 1, shape);
      // (A BFLOAT16 array cannot be made: DJL 0.36 ends the process when asked for one on PyTorch.)
      for (DataType type : List.of(DataType.FLOAT16, DataType.FLOAT64)) {
        NDArray x = good.toType(type, true);
        refused("toType(DataType.FLOAT32", () -> block.forward(store, new NDList(x), false));
      }
      try (NDManager others = NDManager.newBaseManager("JTReLU")) {
        NDArray x = normals(others, 1, shape);
        refused("engine JTReLU", () -> block.forward(store, new NDList(x), false));
        refused(
            "newInstance(name, \"PyTorch\")",
            () -> new JtreluBlock(head()).initialize(others, DataType.FLOAT32, shape));
      }
      NDArray channelsLast = good.transpose(0, 2, 3, 1);
      refused("reads one array", () -> block.forward(store, new NDList(channelsLast), false));
      refused("reads one array", () -> block.forward(store, new NDList(good, good), false));
      NDArray none = manager.create(new Shape(0, 4, SIDE, SIDE));
      refused("no images", () -> block.forward(store, new NDList(none), false));
      refused(
          "FLOAT32 parameters",
          () -> new JtreluBlock(head()).initialize(manager, DataType.FLOAT16, shape));
    }
  }

  @Test
  void otherDevicesAreRefused() {
    try (Model model = Model.newInstance("net", "PyTorch")) {
      model.setBlock(new JtreluBlock(head()));
      DefaultTrainingConfig gpu = config().optDevices(new Device[] {Device.gpu(0)});
      refused("ShapedActivation", () -> new JtreluTrainer(model, gpu));
      DefaultTrainingConfig two = config().optDevices(new Device[] {Device.cpu(), Device.cpu()});
      refused("one device", () -> new JtreluTrainer(model, two));
    }
  }

  @Test
  void gradientsAreClippedByTheirNormOverAllParameters() {
    double norm = 0.1;
    try (Both both = new Both(JtreluBlockTest::mixed)) {
      try (Trainer ours = new JtreluTrainer(both.ourModel, config(), norm);
          Trainer theirs = new ClippingTrainer(both.theirModel, config(), norm)) {
        List<float[]> before = new ArrayList<>();
        both.ours.getParameters().values().forEach(p -> before.add(p.getArray().toFloatArray()));
        step(ours, 1, 5);
        step(theirs, 1, 5);
        both.requireEqualParameters();
        double square = 0;
        List<Parameter> after = both.ours.getParameters().values();
        for (int p = 0; p < after.size(); p++) {
          float[] now = after.get(p).getArray().toFloatArray();
          for (int i = 0; i < now.length; i++) {
            square += Math.pow(now[i] - before.get(p)[i], 2);
          }
        }
        assertEquals(0.05 * norm, Math.sqrt(square), 1e-6); // learning rate times norm
      }
    }
  }
}
