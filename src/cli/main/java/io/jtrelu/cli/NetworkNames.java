package io.jtrelu.cli;

import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Networks;

/** Refuses network names that do not exist, before anything is loaded. */
final class NetworkNames {
  private NetworkNames() {}

  static void requireKnown(String name) {
    try {
      Networks.build(Networks.Options.of(name), new Layer.Extent(64, 64, 4), 2);
    } catch (IllegalArgumentException unknown) {
      if (String.valueOf(unknown.getMessage()).startsWith("unknown network")) {
        throw NearestName.unknown("network", name, Networks.names());
      }
      throw new UsageException(String.valueOf(unknown.getMessage()), unknown);
    }
  }
}
