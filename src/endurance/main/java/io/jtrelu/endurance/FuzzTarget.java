package io.jtrelu.endurance;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * What Jazzer calls, by the names of these methods: the {@link Target} that the system property
 * {@value #NAME} names.
 */
public final class FuzzTarget {
  /** The property. */
  static final String NAME = "jtrelu.fuzz.target";

  /** The property with the folder for files. */
  static final String FOLDER = "jtrelu.fuzz.folder";

  private static @Nullable Target target;
  private static @Nullable Path folder;

  private FuzzTarget() {}

  /** Called once. */
  public static void fuzzerInitialize() throws IOException {
    target = Target.valueOf(System.getProperty(NAME, "").toUpperCase(Locale.ROOT));
    folder = Files.createDirectories(Path.of(System.getProperty(FOLDER, "")));
    target.prepare(folder);
  }

  /**
   * Called for every input.
   *
   * @throws AssertionError if the target breaks its word
   */
  public static void fuzzerTestOneInput(byte[] input) {
    if (target == null || folder == null) {
      throw new IllegalStateException("fuzzerInitialize comes first");
    }
    target.check(input, folder);
  }
}
