package io.jtrelu.backend.cuda;

import io.jtrelu.backend.NativeCache;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.MalformedInputException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Choices that were measured, for all processes of a user: a line of problem, tab and choice each,
 * under a first line with the version of the format. It is a cache: what cannot be read or written
 * is measured again, and only said in the log. Several processes may add to it at once.
 */
final class TuningFile {
  /** Names another file than {@code tuning.txt} in the cache for native libraries. */
  static final String PROPERTY = "jtrelu.cuda.tuning";

  private static final System.Logger LOG = System.getLogger(TuningFile.class.getPackageName());
  private static final String VERSION = "jtrelu-tuning 1";

  /** Locks of files belong to processes: within one, this. */
  private static final Object IN_PROCESS = new Object();

  private final Path file;

  TuningFile(Path file) {
    this.file = file.toAbsolutePath();
  }

  /**
   * This user's.
   *
   * @throws IOException if the user has no home
   */
  static TuningFile ofThisUser() throws IOException {
    String named = System.getProperty(PROPERTY);
    return new TuningFile(
        named != null
            ? Path.of(named)
            : NativeCache.ofThisProcess().directory().resolve("tuning.txt"));
  }

  /** All choices, by problem; none where there is no file of this version. */
  Map<String, String> read() {
    Map<String, String> choices = new TreeMap<>();
    try {
      List<String> lines = Files.readAllLines(file);
      if (lines.isEmpty() || !lines.getFirst().equals(VERSION)) {
        LOG.log(System.Logger.Level.INFO, "{0} is of another version: not used", file);
        return choices;
      }
      for (String line : lines.subList(1, lines.size())) {
        int tab = line.indexOf('\t');
        if (tab > 0) {
          choices.put(line.substring(0, tab), line.substring(tab + 1));
        }
      }
    } catch (NoSuchFileException none) {
      // nothing was measured yet
    } catch (MalformedInputException damaged) {
      LOG.log(System.Logger.Level.INFO, "{0} is damaged: not used", file);
    } catch (IOException unreadable) {
      LOG.log(System.Logger.Level.INFO, "cannot read " + file, unreadable);
    }
    return choices;
  }

  /** Adds choices to those that are there by then. */
  void add(Map<String, String> choices) {
    synchronized (IN_PROCESS) {
      try {
        Files.createDirectories(file.resolveSibling("."));
        try (FileChannel channel =
                FileChannel.open(
                    file.resolveSibling(file.getFileName() + ".lock"),
                    StandardOpenOption.CREATE,
                    StandardOpenOption.WRITE);
            FileLock lock = channel.lock()) {
          if (!lock.isValid()) {
            throw new IOException("the lock is lost");
          }
          replace(choices);
        }
      } catch (IOException failure) {
        LOG.log(System.Logger.Level.INFO, "cannot write " + file, failure);
      }
    }
  }

  private void replace(Map<String, String> choices) throws IOException {
    Map<String, String> all = read();
    all.putAll(choices);
    StringBuilder text = new StringBuilder(VERSION).append('\n');
    all.forEach((problem, choice) -> text.append(problem).append('\t').append(choice).append('\n'));
    Path part =
        Files.createTempFile(file.resolveSibling("."), file.getFileName().toString(), ".tmp");
    try {
      Files.writeString(part, text);
      Files.move(part, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } finally {
      Files.deleteIfExists(part);
    }
  }

  /**
   * Removes the file.
   *
   * @return whether it was there
   * @throws IOException if it cannot be removed
   */
  boolean delete() throws IOException {
    return Files.deleteIfExists(file);
  }

  @Override
  public String toString() {
    return file.toString();
  }
}
