package io.jtrelu.cli;

import io.jtrelu.backend.FisherRows;
import io.jtrelu.train.KfacConfig;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Settings of K-FAC; what is not given stays as it was. */
final class KfacOptions {
  @Option(
      names = "--damping",
      paramLabel = "D",
      description = "K-FAC: what is added to the Fisher matrix (0.3).")
  @Nullable Double damping;

  @Option(
      names = "--norm-constraint",
      paramLabel = "C",
      description =
          "K-FAC: largest squared length of a step, measured by the Fisher matrix; Infinity for none"
              + " (0.001).")
  @Nullable Double normConstraint;

  @Option(
      names = "--factor-decay",
      paramLabel = "D",
      description = "K-FAC: decay of the factors' moving averages at each measurement (0.95).")
  @Nullable Double factorDecay;

  @Option(
      names = "--measure-every",
      paramLabel = "STEPS",
      description = "K-FAC: steps from one measurement of the factors to the next (10).")
  @Nullable Integer measureEvery;

  @Option(
      names = "--invert-every",
      paramLabel = "STEPS",
      description =
          "K-FAC: steps from one inversion of a factor to the next, a multiple of --measure-every"
              + " (50).")
  @Nullable Integer invertEvery;

  @Option(
      names = "--empirical-fisher",
      description = "K-FAC: measure with the labels of the data, not with drawn ones.")
  boolean empirical;

  @Option(
      names = "--factor-form",
      paramLabel = "REDUCE|EXPAND",
      description =
          "K-FAC: a row for each sample, or for each place of it, which is there to compare with and"
              + " takes much memory (REDUCE).")
  FisherRows.@Nullable Form form;

  /** An earlier configuration, changed where an option says so. */
  KfacConfig over(KfacConfig earlier) {
    return new KfacConfig(
        damping == null ? earlier.damping() : damping,
        normConstraint == null ? earlier.normConstraint() : normConstraint,
        factorDecay == null ? earlier.decay() : factorDecay,
        measureEvery == null ? earlier.measureEvery() : measureEvery,
        invertEvery == null ? earlier.invertEvery() : invertEvery,
        empirical || earlier.empirical(),
        form == null ? earlier.form() : form);
  }

  /** An option without effect is a mistake. */
  void requireNone() {
    for (Given option :
        List.of(
            new Given("--damping", damping != null),
            new Given("--norm-constraint", normConstraint != null),
            new Given("--factor-decay", factorDecay != null),
            new Given("--measure-every", measureEvery != null),
            new Given("--invert-every", invertEvery != null),
            new Given("--empirical-fisher", empirical),
            new Given("--factor-form", form != null))) {
      if (option.given) {
        throw new UsageException(option.name + " has no effect without --optimizer kfac");
      }
    }
  }

  private record Given(String name, boolean given) {}
}
