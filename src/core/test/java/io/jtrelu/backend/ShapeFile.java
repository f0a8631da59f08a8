package io.jtrelu.backend;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * Convolutions of benchmarks/shapes, one a line: {@code name n h w ic oc kh kw sh sw pt pl pb pr dh
 * dw g # comment}.
 */
record ShapeFile(String name, Conv2dDescriptor descriptor) {
  /** All convolutions of a file such as {@code edges}. */
  static List<ShapeFile> read(String file) {
    Path path = Path.of("benchmarks", "shapes", file + ".txt");
    try (var lines = Files.lines(path)) {
      return lines
          .map(line -> line.replaceFirst("#.*", "").strip())
          .filter(line -> !line.isEmpty())
          .map(ShapeFile::parse)
          .toList();
    } catch (IOException failure) {
      throw new UncheckedIOException("cannot read " + path.toAbsolutePath(), failure);
    }
  }

  private static ShapeFile parse(String line) {
    String[] words = line.split("\\s+", -1);
    if (words.length != 17) {
      throw new IllegalArgumentException("a shape needs a name and 16 numbers: " + line);
    }
    int[] v = Arrays.stream(words).skip(1).mapToInt(Integer::parseInt).toArray();
    return new ShapeFile(
        words[0],
        new Conv2dDescriptor(
            v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13],
            v[14], v[15]));
  }
}
