package io.jtrelu.backend.cuda;

import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;

/**
 * Picks who does a pass of a convolution: our kernels or a library's. A choice is a function of the
 * problem, the device and what is installed, so that a run can be repeated on it.
 */
interface ConvolutionChooser {
  /**
   * Names who is to do a pass where they can, separated by commas, the first that can: own
   * (default), cublas, cudnn. Where none can, our kernels do it.
   */
  String PROPERTY = "jtrelu.cuda.provider";

  /**
   * A way to do a pass.
   *
   * @param provider who computes
   * @param name the same for the same way in every process: own, own/TILE, cublas, cudnn/1
   * @param passes makes it; only that pass is asked of the result
   */
  record Candidate(ConvolutionProvider provider, String name, Supplier<ConvolutionPasses> passes) {}

  /** Whether it would take a candidate of a provider: others need not be found. */
  boolean considers(ConvolutionProvider provider);

  /** Whether a provider is wanted for all it can do, without being compared with our kernels. */
  default boolean wants(ConvolutionProvider provider) {
    return false;
  }

  /** Whether it wants our kernels' tiles as candidates of their own. */
  default boolean searches() {
    return false;
  }

  /**
   * The way to take.
   *
   * @param candidates at least one, ours first
   */
  Candidate choose(ConvolutionProblem problem, List<Candidate> candidates);

  /** Takes the first provider's first candidate, where there is one, and so on; else ours. */
  static ConvolutionChooser preferring(List<ConvolutionProvider> wanted) {
    return new ConvolutionChooser() {
      @Override
      public boolean considers(ConvolutionProvider provider) {
        return wanted.contains(provider);
      }

      @Override
      public boolean wants(ConvolutionProvider provider) {
        int own = wanted.indexOf(ConvolutionProvider.OWN);
        int at = wanted.indexOf(provider);
        return at >= 0 && (own < 0 || at < own);
      }

      @Override
      public Candidate choose(ConvolutionProblem problem, List<Candidate> candidates) {
        return wanted.stream()
            .flatMap(one -> candidates.stream().filter(candidate -> candidate.provider() == one))
            .findFirst()
            .orElse(candidates.getFirst());
      }
    };
  }

  /**
   * As {@link #PROPERTY} says.
   *
   * @throws IllegalArgumentException where it names no provider
   */
  static ConvolutionChooser configured() {
    String words = System.getProperty(PROPERTY, ConvolutionProvider.OWN.word());
    return preferring(Arrays.stream(words.split(",", -1)).map(ConvolutionProvider::of).toList());
  }
}
