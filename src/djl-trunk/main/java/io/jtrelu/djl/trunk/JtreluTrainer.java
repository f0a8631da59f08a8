package io.jtrelu.djl.trunk;

import ai.djl.Model;
import ai.djl.nn.Block;
import ai.djl.pytorch.jni.JniUtils;
import ai.djl.training.GradientCollector;
import ai.djl.training.TrainingConfig;
import io.jtrelu.djl.ClippingTrainer;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * DJL's trainer for networks with {@link JtreluBlock}s in them, at any depth. DJL's {@code
 * EasyTrain}, losses, optimisers, listeners and metrics work with it unchanged:
 *
 * <pre>{@code
 * model.setBlock(new SequentialBlock().add(new JtreluBlock(network)).add(...));
 * try (Trainer trainer = new JtreluTrainer(model, config)) {
 *   trainer.initialize(new Shape(64, 2, 28, 28));
 *   EasyTrain.fit(trainer, epochs, training, validation);
 * }
 * }</pre>
 *
 * <p>Its gradient collector takes the loss's gradient through PyTorch's part of the network and
 * through ours. Several calls of {@code backward} within one collector are for several forward
 * passes; for several losses of one pass, add them up and call it once.
 *
 * <p>Clips gradients by their norm if asked to; see {@link ClippingTrainer} for why DJL's {@code
 * optClipGrad} will not do. One device, the CPU.
 */
public final class JtreluTrainer extends ClippingTrainer {
  private @Nullable Tape tape;

  /** Without clipping. */
  public JtreluTrainer(Model model, TrainingConfig config) {
    this(model, config, Double.POSITIVE_INFINITY);
  }

  /**
   * With clipping.
   *
   * @param norm largest norm of a gradient, over all parameters together
   * @throws IllegalArgumentException if it is not positive, for several devices, or for a device
   *     other than the CPU
   */
  public JtreluTrainer(Model model, TrainingConfig config, double norm) {
    super(onCpu(model, config), config, norm);
  }

  private static Model onCpu(Model model, TrainingConfig config) {
    for (ai.djl.Device device : config.getDevices()) {
      if (device.isGpu()) {
        throw new IllegalArgumentException(
            "a JtreluBlock computes on the CPU, but the configuration says "
                + device
                + ": set optDevices(new Device[] {Device.cpu()}), or build the network of DJL's own"
                + " blocks with io.jtrelu.djl.ShapedActivation, which work on its GPUs");
      }
    }
    return model;
  }

  /**
   * Opens a collector; close it before the next.
   *
   * @throws IllegalStateException if one is open, here or anywhere in this process: DJL's PyTorch
   *     engine has one at a time
   */
  @Override
  public GradientCollector newGradientCollector() {
    if (tape != null && !tape.isClosed()) {
      throw new IllegalStateException(
          "a gradient collector of this trainer is open already: close it before the next one");
    }
    Set<JtreluBlock> blocks = Collections.newSetFromMap(new IdentityHashMap<>());
    collect(getModel().getBlock(), blocks);
    boolean gradMode = JniUtils.isGradMode();
    GradientCollector engine;
    try {
      engine = super.newGradientCollector();
    } catch (IllegalStateException refused) {
      JniUtils.setGradMode(gradMode); // which DJL leaves on
      throw new IllegalStateException(
          "another gradient collector is open in this process, and DJL's PyTorch engine has one at"
              + " a time: close it first",
          refused);
    }
    tape = new Tape(engine, blocks);
    return tape;
  }

  private static void collect(Block block, Set<JtreluBlock> found) {
    if (block instanceof JtreluBlock ours) {
      found.add(ours);
    }
    block.getChildren().values().forEach(child -> collect(child, found));
  }
}
