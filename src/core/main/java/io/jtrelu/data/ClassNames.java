package io.jtrelu.data;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;

/** Names of classes: from a text file with one name a line, or the numbers. */
final class ClassNames {
  private static final int MOST_BYTES = 1 << 20;

  private ClassNames() {}

  static Optional<List<String>> read(Path file) {
    if (!Files.exists(file)) {
      return Optional.empty();
    }
    try (FileInput in = FileInput.open(file)) {
      return Optional.of(parse(in));
    }
  }

  static List<String> parse(FileInput in) {
    List<String> names =
        in.readText(MOST_BYTES).lines().map(String::strip).filter(n -> !n.isEmpty()).toList();
    if (names.isEmpty()) {
      throw in.malformed(0, "expected the name of one class a line, found none");
    }
    return names;
  }

  static List<String> numbers(int count) {
    return IntStream.range(0, count).mapToObj(Integer::toString).toList();
  }
}
