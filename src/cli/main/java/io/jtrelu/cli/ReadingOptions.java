package io.jtrelu.cli;

import io.jtrelu.data.Reading;
import io.jtrelu.data.Reading.OnBadImage;
import io.jtrelu.data.Reading.Place;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** How files of images are read: the options of every command that takes data. */
final class ReadingOptions {
  @Option(
      names = "--data-in",
      paramLabel = "auto|memory|stream",
      defaultValue = "auto",
      description =
          "Where the images of folders and shards are: in memory, or read from disk and decoded each"
              + " time they are needed; auto streams what would take more than half of Java's memory"
              + " (${DEFAULT-VALUE}).")
  Place place = Place.AUTO;

  @Option(
      names = "--loader-threads",
      paramLabel = "N",
      description =
          "Threads that read and decode images of folders and shards (as many as there are cores, up"
              + " to 16). Results do not depend on it.")
  @Nullable Integer threads;

  @Option(
      names = "--on-bad-image",
      paramLabel = "stop|skip",
      defaultValue = "stop",
      description =
          "What a damaged image does: end the run, or be counted, named and passed over"
              + " (${DEFAULT-VALUE}).")
  OnBadImage onBadImage = OnBadImage.STOP;

  /** What they say. */
  Reading reading() {
    return reading(place);
  }

  /** The same, with images where an earlier run has them. */
  Reading reading(Place where) {
    int count = threads == null ? Reading.DEFAULT.threads() : threads;
    try {
      return new Reading(where, onBadImage, count);
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException("--loader-threads: " + outOfRange.getMessage(), outOfRange);
    }
  }
}
