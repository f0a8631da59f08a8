package io.jtrelu.djl;

import ai.djl.Model;
import ai.djl.ndarray.NDArray;
import ai.djl.nn.Parameter;
import ai.djl.training.Trainer;
import ai.djl.training.TrainingConfig;
import ai.djl.util.Pair;
import java.util.ArrayList;
import java.util.List;

/**
 * A trainer that scales gradients down to a largest norm before each update:
 *
 * <pre>
 *   g = g * min(1, norm / |g|), |g| the 2-norm over all parameters together
 * </pre>
 *
 * <p>Very deep networks need it in their first steps, in which one gradient may be many times as
 * long as the next. DJL's own {@code optClipGrad} is no substitute: it cuts each element, and in
 * 0.36 on PyTorch only those above the limit; what is below minus the limit passes unclipped, and
 * one such element can ruin a network. Do not set both.
 *
 * <pre>{@code
 * try (Trainer trainer = new ClippingTrainer(model, config, 1)) {
 *   trainer.initialize(shape);
 *   EasyTrain.fit(trainer, epochs, training, validation);
 * }
 * }</pre>
 *
 * <p>Everything else is {@link Trainer}'s. The configuration's initialisers are applied, as {@link
 * Model#newTrainer} does it.
 */
public class ClippingTrainer extends Trainer {
  private final double norm;

  /**
   * A trainer for a model that has its block.
   *
   * @param norm largest norm of a gradient; positive, infinity for no clipping
   * @throws IllegalArgumentException if the norm is not positive, or for several devices: in DJL
   *     0.36 a step does not wait for all of them
   */
  public ClippingTrainer(Model model, TrainingConfig config, double norm) {
    super(checked(model, config, norm), config);
    this.norm = norm;
  }

  private static Model checked(Model model, TrainingConfig config, double norm) {
    if (!(norm > 0)) {
      throw new IllegalArgumentException(
          "the largest norm of a gradient must be positive (infinity for none), but is " + norm);
    }
    if (config.getDevices().length != 1) {
      throw new IllegalArgumentException(
          "this trainer computes on one device, but the configuration has "
              + config.getDevices().length
              + ": DJL's EasyTrain does not wait for several. Set one by optDevices(...)");
    }
    if (model.getBlock() == null) {
      throw new IllegalStateException(
          "model " + model.getName() + " has no block yet: call setBlock first");
    }
    config
        .getInitializers()
        .forEach(
            pair -> {
              if (pair.getKey() != null && pair.getValue() != null) {
                model.getBlock().setInitializer(pair.getKey(), pair.getValue());
              }
            });
    return model;
  }

  /**
   * Clips and updates.
   *
   * @throws IllegalStateException if the gradient is not finite; the parameters are then unchanged
   */
  @Override
  public void step() {
    if (norm < Double.POSITIVE_INFINITY) {
      clip();
    }
    super.step();
  }

  private void clip() {
    List<NDArray> gradients = new ArrayList<>();
    try {
      double square = 0;
      for (Pair<String, Parameter> entry : getModel().getBlock().getParameters()) {
        Parameter parameter = entry.getValue();
        NDArray gradient = parameter.requiresGradient() ? parameter.getArray().getGradient() : null;
        if (gradient == null) {
          continue;
        }
        gradients.add(gradient);
        double part = squareOf(gradient);
        if (!(part < Double.POSITIVE_INFINITY)) {
          throw new IllegalStateException(
              "the gradient of "
                  + entry.getKey()
                  + " is not finite: lower the learning rate, or look for the input that did it");
        }
        square += part;
      }
      double length = Math.sqrt(square);
      if (length > norm) {
        gradients.forEach(gradient -> gradient.muli(norm / length));
      }
    } finally {
      gradients.forEach(NDArray::close); // each is a handle of ours
    }
  }

  private static double squareOf(NDArray gradient) {
    try (NDArray square = gradient.square();
        NDArray sum = square.sum()) {
      return sum.getFloat();
    }
  }
}
