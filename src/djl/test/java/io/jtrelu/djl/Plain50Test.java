package io.jtrelu.djl;

import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.Device;
import ai.djl.Model;
import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.Blocks;
import ai.djl.nn.Parameter;
import ai.djl.nn.SequentialBlock;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import ai.djl.nn.pooling.Pool;
import ai.djl.training.DefaultTrainingConfig;
import ai.djl.training.EasyTrain;
import ai.djl.training.Trainer;
import ai.djl.training.dataset.Batch;
import ai.djl.training.initializer.Initializer;
import ai.djl.training.initializer.XavierInitializer;
import ai.djl.training.loss.Loss;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;
import ai.djl.translate.Batchifier;
import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.Tat;
import java.io.DataInputStream;
import java.io.IOException;
import java.util.function.Supplier;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;

/**
 * A plain chain of 49 convolutions and a linear layer, trained by DJL on PyTorch: it learns shaped,
 * and not with He-scaled ReLU, on the same images in the same order.
 */
class Plain50Test {
  private static final int SIDE = 14;
  private static final int CHANNELS = 32;
  private static final int BATCH = 32;
  private static final int STEPS = 100;
  private static final int MEASURED = 20;

  @Test
  void learnsShapedAndNotWithHe() throws IOException {
    SequentialBlock shaped = plain50(() -> new ShapedActivation(Activation.LEAKY_RELU));
    BlockShaping.shape(shaped, Tat.eta(0.9));
    double withTat = lastLosses(shaped, new DeltaInitializer(1));
    double withHe =
        lastLosses(
            plain50(ai.djl.nn.Activation::reluBlock),
            new XavierInitializer(
                XavierInitializer.RandomType.GAUSSIAN, XavierInitializer.FactorType.IN, 2));
    String found = "mean of the last losses: shaped " + withTat + ", He " + withHe;
    System.out.println("plain50 in DJL, " + found);
    double chance = Math.log(10);
    assertTrue(withTat < 0.85 * chance, found);
    assertTrue(withHe > 0.97 * chance, found);
  }

  private static SequentialBlock plain50(Supplier<Block> activation) {
    SequentialBlock net = new SequentialBlock();
    for (int i = 0; i < 49; i++) {
      net.add(
          Conv2d.builder()
              .setFilters(CHANNELS)
              .setKernelShape(new Shape(3, 3))
              .optPadding(new Shape(1, 1))
              .optStride(i == 0 ? new Shape(2, 2) : new Shape(1, 1))
              .build());
      net.add(activation.get());
    }
    return net.add(Pool.globalAvgPool2dBlock())
        .add(Blocks.batchFlattenBlock())
        .add(Linear.builder().setUnits(10).build());
  }

  private static double lastLosses(Block block, Initializer weights) throws IOException {
    Engine.getInstance().setRandomSeed(1);
    block.setInitializer(weights, Parameter.Type.WEIGHT);
    DefaultTrainingConfig config =
        new DefaultTrainingConfig(Loss.softmaxCrossEntropyLoss())
            .optDevices(new Device[] {Device.cpu()})
            .optOptimizer(
                Optimizer.sgd()
                    .setLearningRateTracker(Tracker.fixed(0.02f))
                    .optMomentum(0.9f)
                    .build());
    double sum = 0;
    try (Model model = Model.newInstance("plain50");
        DataInputStream images = open("train-images-idx3-ubyte.gz", 16);
        DataInputStream labels = open("train-labels-idx1-ubyte.gz", 8)) {
      model.setBlock(block);
      try (Trainer trainer = new ClippingTrainer(model, config, 1)) {
        trainer.initialize(new Shape(BATCH, 2, SIDE, SIDE));
        for (int step = 0; step < STEPS; step++) {
          try (Batch batch = batch(trainer.getManager(), images, labels)) {
            EasyTrain.trainBatch(trainer, batch);
            trainer.step();
            if (step >= STEPS - MEASURED) {
              sum += loss(trainer, batch);
            }
          }
        }
      }
    }
    return sum / MEASURED;
  }

  private static float loss(Trainer trainer, Batch batch) {
    NDList predictions = trainer.evaluate(batch.getData());
    return trainer.getLoss().evaluate(batch.getLabels(), predictions).getFloat();
  }

  private static DataInputStream open(String file, int header) throws IOException {
    String resource = "/io/jtrelu/data/fashion-mnist-subset/" + file;
    DataInputStream in =
        new DataInputStream(new GZIPInputStream(Plain50Test.class.getResourceAsStream(resource)));
    in.skipNBytes(header);
    return in;
  }

  /** Images at half their size, standardised, with a channel of ones, per-location normalised. */
  private static Batch batch(NDManager parent, DataInputStream images, DataInputStream labels)
      throws IOException {
    NDManager manager = parent.newSubManager();
    float[] pixels = new float[BATCH * 4 * SIDE * SIDE];
    float[] classes = new float[BATCH];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = images.readUnsignedByte();
    }
    for (int i = 0; i < BATCH; i++) {
      classes[i] = labels.readUnsignedByte();
    }
    NDArray whole = manager.create(pixels, new Shape(BATCH, 1, 2 * SIDE, 2 * SIDE));
    NDArray small =
        Pool.avgPool2d(whole, new Shape(2, 2), new Shape(2, 2), new Shape(0, 0), false, true);
    NDArray x = small.sub(73).div(90);
    NDArray augmented = x.concat(x.onesLike(), 1);
    NDArray normalised = augmented.div(x.square().add(1).div(2).sqrt());
    return new Batch(
        manager,
        new NDList(normalised),
        new NDList(manager.create(classes)),
        BATCH,
        Batchifier.STACK,
        Batchifier.STACK,
        0,
        0);
  }
}
