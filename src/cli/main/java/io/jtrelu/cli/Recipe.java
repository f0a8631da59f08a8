package io.jtrelu.cli;

import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.ShapingException;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Optimizer.Kind;
import io.jtrelu.train.ShapingConfig;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * An experiment of a study.
 *
 * @param name as given on the command line
 * @param claim what it puts to the test
 * @param contenders who are compared, the one that the claim is about first
 */
record Recipe(String name, String claim, List<Contender> contenders) {
  private static final String PLAIN = "plain50";

  /** Solutions of one problem that are worth training. */
  private static final int MOST_SOLUTIONS = 3;

  /** All experiments, in the order in which they are made. */
  static List<Recipe> all(StudyScale scale) {
    return List.of(shortcuts(), methods(), depth(), weights(), optimisers(), solutions(scale));
  }

  private static ShapingConfig shaped(String method, Activation activation) {
    return ShapingConfig.of(method, activation.activationName());
  }

  private static Contender treLu(String network, Kind optimizer) {
    return Contender.of(
        "TReLU, " + network + ", " + name(optimizer), network, ShapingConfig.DEFAULT, optimizer);
  }

  private static Contender normalized(Kind optimizer) {
    return Contender.of(
        "ResNet with batch normalisation, " + name(optimizer),
        "bnresnet50-small",
        ShapingConfig.HE,
        optimizer);
  }

  private static String name(Kind optimizer) {
    return switch (optimizer) {
      case SGD -> "SGD";
      case ADAM -> "Adam";
      case KFAC -> "K-FAC";
      case MUON -> "Muon";
    };
  }

  private static Recipe shortcuts() {
    return new Recipe(
        "shortcuts",
        "A plain network keeps up with a ResNet that has batch normalisation and shortcuts, and the"
            + " same layers.",
        List.of(
            treLu(PLAIN, Kind.MUON),
            treLu(PLAIN, Kind.KFAC),
            treLu(PLAIN, Kind.SGD),
            Contender.of("tanh, DKS, SGD", PLAIN, shaped("dks", Activation.TANH), Kind.SGD),
            normalized(Kind.SGD),
            normalized(Kind.MUON)));
  }

  private static Recipe methods() {
    return new Recipe(
        "methods",
        "What is done to the activation decides whether a plain network of 50 layers learns.",
        List.of(
            treLu(PLAIN, Kind.SGD),
            Contender.of("tanh, TAT", PLAIN, shaped("tat", Activation.TANH), Kind.SGD),
            Contender.of("tanh, DKS", PLAIN, shaped("dks", Activation.TANH), Kind.SGD),
            Contender.of("tanh, EOC", PLAIN, shaped("eoc", Activation.TANH), Kind.SGD),
            Contender.of("ReLU, He (EOC)", PLAIN, ShapingConfig.HE, Kind.SGD)));
  }

  private static Recipe depth() {
    return new Recipe(
        "depth",
        "Depth costs a plain network with tailored rectifiers nothing; at the edge of chaos it"
            + " does.",
        List.of(
            treLu(PLAIN, Kind.MUON),
            treLu("plain100", Kind.MUON),
            treLu("plain200", Kind.MUON),
            treLu(PLAIN, Kind.SGD),
            treLu("plain100", Kind.SGD),
            treLu("plain200", Kind.SGD),
            Contender.of("ReLU, He (EOC), plain50", PLAIN, ShapingConfig.HE, Kind.SGD),
            Contender.of("ReLU, He (EOC), plain100", "plain100", ShapingConfig.HE, Kind.SGD)));
  }

  private static Recipe weights() {
    List<Contender> contenders = new ArrayList<>();
    for (double weight : new double[] {0, 0.5, 0.8}) {
      contenders.add(
          new Contender(
              "TReLU, shortcuts of weight " + weight,
              "resnet50-small",
              weight,
              ShapingConfig.DEFAULT,
              Kind.SGD));
    }
    return new Recipe(
        "weights", "Weighted shortcuts help a little, and are not needed.", contenders);
  }

  private static Recipe optimisers() {
    return new Recipe(
        "optimisers",
        "Plain networks learn fast where the optimiser knows that their weights are matrices.",
        List.of(
            treLu(PLAIN, Kind.MUON),
            treLu(PLAIN, Kind.KFAC),
            treLu(PLAIN, Kind.SGD),
            treLu(PLAIN, Kind.ADAM)));
  }

  private static Recipe solutions(StudyScale scale) {
    List<Contender> contenders = new ArrayList<>();
    for (Activation activation :
        scale.solutions()
            ? Activation.values()
            : new Activation[] {Activation.TANH, Activation.SWISH}) {
      for (String method : scale.solutions() ? List.of("tat", "dks") : List.of("tat")) {
        int count = activation == Activation.LEAKY_RELU ? 1 : count(method, activation);
        for (int number = 1; count > 1 && number <= Math.min(count, MOST_SOLUTIONS); number++) {
          // The last stands for all that are far from the identity.
          int solution = number == MOST_SOLUTIONS ? count : number;
          contenders.add(
              Contender.of(
                  activation.activationName()
                      + ", "
                      + method.toUpperCase(Locale.ROOT)
                      + ", solution "
                      + solution,
                  PLAIN,
                  shaped(method, activation).withSolution(solution),
                  Optimizer.Kind.SGD));
        }
      }
    }
    return new Recipe(
        "solutions",
        "Where shaping has several solutions, the one whose Q map stays nearest the identity trains"
            + " best.",
        contenders);
  }

  private static int count(String method, Activation activation) {
    try {
      var found =
          (method.equals("tat") ? new Tat() : new Dks()).solve(SignalGraph.chain(49), activation);
      return 1 + found.alternatives().size();
    } catch (ShapingException none) {
      return 0;
    }
  }
}
