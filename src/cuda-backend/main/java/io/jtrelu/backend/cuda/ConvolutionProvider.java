package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.PrintableText;
import java.util.Locale;

/** Who computes a pass of a convolution. */
enum ConvolutionProvider {
  OWN,
  CUBLAS,
  CUDNN;

  /** As people write it. */
  String word() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The one of that word.
   *
   * @throws IllegalArgumentException where there is none
   */
  static ConvolutionProvider of(String word) {
    for (ConvolutionProvider provider : values()) {
      if (provider.word().equals(word)) {
        return provider;
      }
    }
    throw new IllegalArgumentException(
        "-D"
            + ConvolutionChooser.PROPERTY
            + ": expected own, cublas or cudnn, got "
            + PrintableText.of(word));
  }
}
