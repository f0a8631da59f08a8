package io.jtrelu.pytorch;

import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What layers are called in a file; their parameters then end with .weight and .bias. */
public enum TensorNames {
  /** As in the network. */
  JTRELU {
    @Override
    Optional<String> of(String layer) {
      return Optional.of(layer);
    }
  },

  /**
   * As in the ResNets of timm and torchvision: conv1, layer2.0.conv3, layer2.0.downsample.0, fc.
   * Those networks normalise instead of having biases, so they take the weights alone.
   */
  TIMM {
    @Override
    Optional<String> of(String layer) {
      if (layer.equals("stem")) {
        return Optional.of("conv1");
      }
      if (layer.equals("logits")) {
        return Optional.of("fc");
      }
      Matcher block = BLOCK.matcher(layer);
      if (!block.matches()) {
        return Optional.empty();
      }
      String part = block.group(3).equals("projection") ? "downsample.0" : block.group(3);
      int index = Integer.parseInt(block.group(2)) - 1;
      return Optional.of("layer" + block.group(1) + "." + index + "." + part);
    }
  };

  private static final Pattern BLOCK =
      Pattern.compile("stage([1-9])\\.block([1-9]\\d?)\\.(conv\\d|projection)");

  /** The name of a layer of a {@link io.jtrelu.nn.Networks} network; empty if it has none. */
  abstract Optional<String> of(String layer);
}
