package io.jtrelu.cli;

import io.jtrelu.data.Datasets;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Networks;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.TrainingConfig;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.List;
import java.util.Locale;

/**
 * One of those that a study compares: everything but the learning rate and the seed.
 *
 * @param name in tables and legends
 * @param network its name, as {@code --network} takes it
 * @param shortcutWeight of a ResNet without normalisation
 * @param shaping how its activations get their parameters
 * @param optimizer how it is trained
 */
record Contender(
    String name,
    String network,
    double shortcutWeight,
    ShapingConfig shaping,
    Optimizer.Kind optimizer) {
  /** The number of layers does not depend on what they see. */
  private static final Layer.Extent SOME_IMAGE = new Layer.Extent(32, 32, 3);

  /** A network without shortcuts. */
  static Contender of(
      String name, String network, ShapingConfig shaping, Optimizer.Kind optimizer) {
    return new Contender(name, network, 0, shaping, optimizer);
  }

  /** Whether it has batch normalisation: a baseline. */
  boolean isNormalized() {
    return network.startsWith("bn");
  }

  /**
   * The rates that are tried: the same for all of an optimiser, but with Muon for the same change
   * of what the network computes, to which all layers add.
   */
  List<Double> rates(StudyScale scale) {
    List<Double> rates = scale.rates(optimizer);
    if (optimizer != Optimizer.Kind.MUON) {
      return rates;
    }
    double share = 50.0 / Math.max(50, Networks.build(options(), SOME_IMAGE, 10).depth());
    MathContext digits = new MathContext(2);
    return rates.stream().map(r -> new BigDecimal(r * share).round(digits).doubleValue()).toList();
  }

  /** One run of it. */
  Run run(StudyScale scale, double rate, long seed, Datasets data, String dataName) {
    TrainingConfig.Builder training =
        TrainingConfig.builder()
            .optimizer(optimizer)
            .epochs(scale.epochs())
            .learningRate(rate)
            .seed(seed);
    if (isNormalized()) {
      training.clipNorm(Double.POSITIVE_INFINITY); // as ResNets are trained
    }
    return Run.of(options(), shaping, training.build(), data, dataName);
  }

  private Networks.Options options() {
    return new Networks.Options(network, Networks.Block.V2, shortcutWeight, 0);
  }

  /** What tells its runs from those of others, as a folder's name. */
  String folder() {
    StringBuilder folder = new StringBuilder(network.replace(':', '-'));
    if (shortcutWeight > 0) {
      folder.append("-w").append(shortcutWeight);
    }
    if (!isNormalized()) {
      folder.append('-').append(shaping.method()).append('-').append(shaping.activation());
      if (shaping.solution() > 1) {
        folder.append("-solution").append(shaping.solution());
      }
    }
    return folder.append('-').append(optimizer.name().toLowerCase(Locale.ROOT)).toString();
  }
}
