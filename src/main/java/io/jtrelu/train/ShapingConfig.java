package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.jtrelu.shaping.Tat;

/**
 * How a network's activations get their parameters.
 *
 * @param method {@code tat}, or {@code he} for the unshaped rectifier with He's scale
 * @param activation name of the activation function
 * @param eta target of TAT for leaky_relu
 */
public record ShapingConfig(
    @JsonProperty(required = true) String method,
    @JsonProperty(required = true) String activation,
    @JsonProperty(required = true) double eta) {
  /** TAT with tailored rectifiers, the library's default. */
  public static final ShapingConfig DEFAULT =
      new ShapingConfig("tat", "leaky_relu", Tat.DEFAULT_ETA);

  /** ReLU with He's scale: what shaping is compared with. */
  public static final ShapingConfig HE = new ShapingConfig("he", "relu", Tat.DEFAULT_ETA);
}
