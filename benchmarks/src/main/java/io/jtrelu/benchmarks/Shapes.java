package io.jtrelu.benchmarks;

import io.jtrelu.backend.Conv2dDescriptor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Reads the shape files, which tests read too. */
final class Shapes {
  /** Folder of the shape files, relative to the benchmarks' own. */
  private static final Path FOLDER = Path.of("shapes");

  private Shapes() {}

  /** Names of all shapes of a file, as {@link #read} takes them. */
  static List<String> names(String file) {
    List<String> names = new ArrayList<>();
    for (String line : lines(file)) {
      names.add(file + "/" + line.split("\\s+")[0]);
    }
    return names;
  }

  /** One shape by {@code file/name}. */
  static Conv2dDescriptor read(String name) {
    int slash = name.indexOf('/');
    for (String line : lines(name.substring(0, slash))) {
      String[] fields = line.split("\\s+");
      if (fields[0].equals(name.substring(slash + 1))) {
        int[] v = Arrays.stream(fields).skip(1).limit(16).mapToInt(Integer::parseInt).toArray();
        return new Conv2dDescriptor(
            v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13],
            v[14], v[15]);
      }
    }
    throw new IllegalArgumentException("no shape " + name + " in " + FOLDER.toAbsolutePath());
  }

  private static List<String> lines(String file) {
    try {
      return Files.readAllLines(FOLDER.resolve(file + ".txt")).stream()
          .map(line -> line.replaceFirst("#.*", "").strip())
          .filter(line -> !line.isEmpty())
          .toList();
    } catch (IOException missing) {
      throw new UncheckedIOException(missing);
    }
  }
}
