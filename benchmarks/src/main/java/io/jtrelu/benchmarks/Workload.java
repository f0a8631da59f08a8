package io.jtrelu.benchmarks;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.shaping.Tat;
import java.util.List;
import java.util.Random;

/**
 * What every contender is given: a network, the values of its parameters, and one batch.
 *
 * @param network the graph; all contenders walk it
 * @param batch images
 * @param rectifier the activation, from the solver (TAT, eta = 0.9)
 * @param parameters values in the order of the library's arena (KRSC weights, then biases)
 * @param images NHWC
 * @param labels one per image
 */
public record Workload(
    Network network,
    int batch,
    Rectifier rectifier,
    float[] parameters,
    float[] images,
    int[] labels) {
  /** Share of the target that is spread over all classes, in every contender's loss. */
  public static final float LABEL_SMOOTHING = 0.1f;

  /** Small enough that thousands of steps on one batch stay finite. */
  public static final float LEARNING_RATE = 1e-4f;

  /** Of every contender's SGD. */
  public static final float MOMENTUM = 0.9f;

  private static final long SEED = 20220425;

  /**
   * Builds one by name.
   *
   * @param name {@code plain50} (28x28x2), {@code chain:L:width} (L layers of one width at 32x32),
   *     or {@code resnet50:w} (V2, 224x224, shortcut weight w)
   */
  public static Workload of(String name, int batch) {
    Network network = network(name);
    double slope =
        Tat.eta(0.9)
            .solve(network.signalGraph(), Activation.LEAKY_RELU)
            .activation()
            .negativeSlope();
    return of(network, batch, Rectifier.tailored(slope));
  }

  private static Network network(String name) {
    String[] parts = name.split(":");
    return switch (parts[0]) {
      case "plain50" -> Networks.build(Networks.Options.of("plain50"), new Extent(28, 28, 2), 10);
      case "chain" -> {
        int layers = Integer.parseInt(parts[1]);
        int width = Integer.parseInt(parts[2]);
        yield Networks.plain(
            name, new Extent(32, 32, 4), 10, List.of(new Networks.Stage(layers, width, 1)), 0);
      }
      case "resnet50" ->
          Networks.build(
              new Networks.Options("resnet50", Networks.Block.V2, Double.parseDouble(parts[1]), 0),
              new Extent(224, 224, 4),
              1000);
      default -> throw new IllegalArgumentException("unknown network " + name);
    };
  }

  private static Workload of(Network plain, int batch, Rectifier rectifier) {
    // With biases, so that every parameter matters to the checks.
    Network network =
        plain.with(TransformedActivation.rectifier(rectifier.slope(), rectifier.scale()), 1, 0.02);
    Random random = new Random(SEED);
    Extent in = network.input();
    float[] images = new float[Math.toIntExact(batch * in.elements())];
    int channels = in.channels();
    for (int at = 0; at < images.length; at += channels) {
      // Per-location normalisation with a constant homogeneous channel.
      double squares = 1;
      for (int c = 0; c < channels - 1; c++) {
        images[at + c] = (float) random.nextGaussian();
        squares += images[at + c] * images[at + c];
      }
      images[at + channels - 1] = 1;
      float scale = (float) Math.sqrt(channels / squares);
      for (int c = 0; c < channels; c++) {
        images[at + c] *= scale;
      }
    }
    int[] labels = random.ints(batch, 0, network.classes()).toArray();
    return new Workload(network, batch, rectifier, initial(network), images, labels);
  }

  // Over the whole kernel, not Delta: every parameter then matters to the checks.
  private static float[] initial(Network network) {
    try (Backend backend = Backends.open("cpu");
        Parameters parameters = Parameters.allocate(network, backend)) {
      new Initializer(SEED, false).fill(backend, parameters);
      return parameters.arena().toFloatArray();
    }
  }

  /** Multiply-adds of the forward pass of a batch of the named network. */
  public static double forwardMultiplyAdds(String name, int batch) {
    return (double) batch * network(name).multiplyAdds();
  }
}
