package io.jtrelu.endurance;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** Folders of trials. */
final class Folders {
  private Folders() {}

  /** A new folder for a trial's files, in one that is given or that of the system. */
  static Path create(@Nullable Path parent) throws IOException {
    if (parent == null) {
      return Files.createTempDirectory("jtrelu-endurance");
    }
    return Files.createTempDirectory(Files.createDirectories(parent), "trial").toRealPath();
  }

  /** Removes a folder with all in it, if it is there. */
  static void remove(Path folder) throws IOException {
    if (!Files.exists(folder)) {
      return;
    }
    List<Path> all;
    try (Stream<Path> paths = Files.walk(folder)) {
      all = paths.sorted(Comparator.reverseOrder()).toList();
    }
    for (Path path : all) {
      Files.delete(path);
    }
  }

  /** Copies a folder that holds files alone. */
  static void copy(Path from, Path to) throws IOException {
    Files.createDirectories(to);
    List<Path> files;
    try (Stream<Path> paths = Files.list(from)) {
      files = paths.toList();
    }
    for (Path file : files) {
      Files.copy(file, to.resolve(file.getFileName()));
    }
  }
}
