package io.jtrelu.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Writes files that are either complete or untouched.
 *
 * <p>The content goes to a sibling of the writer's own, {@code NAME.PROCESS-NUMBER.tmp}, which is
 * synced and then renamed over the file, and the folder is synced. Whenever the process or the
 * machine stops, a reader finds the last complete version; what a killed process left behind is
 * removed by the next write. Of several writers at once the last one wins, with a whole file.
 */
public final class AtomicFile {
  private static final Pattern TEMPORARY = Pattern.compile("(?:([0-9]{1,18})-[0-9a-f]+\\.)?tmp");

  /** Tells the temporary files of one process apart; nothing else depends on it. */
  private static final AtomicLong NUMBER = new AtomicLong();

  private AtomicFile() {}

  /** What is to be written. */
  @FunctionalInterface
  public interface Content {
    /** Writes all of it; the channel is closed by the caller. */
    void writeTo(WritableByteChannel channel) throws IOException;
  }

  /**
   * Replaces a file, or makes it. On any failure the old file is still there and the temporary one
   * is not.
   *
   * @throws IOException naming the file and the cause (no space, no permission, ...), if it cannot
   *     be written
   */
  public static void write(Path file, Content content) throws IOException {
    Path target = file.toAbsolutePath();
    Path temporary =
        target.resolveSibling(
            target.getFileName()
                + "."
                + ProcessHandle.current().pid()
                + "-"
                + Long.toHexString(NUMBER.getAndIncrement())
                + ".tmp");
    try {
      try (FileChannel channel =
          FileChannel.open(
              temporary,
              StandardOpenOption.WRITE,
              StandardOpenOption.CREATE,
              StandardOpenOption.TRUNCATE_EXISTING)) {
        removeLeftovers(target);
        content.writeTo(channel);
        channel.force(true);
      }
      Files.move(
          temporary, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      syncFolder(target.resolveSibling("."));
    } catch (Throwable failure) {
      try {
        Files.deleteIfExists(temporary);
      } catch (IOException alsoFailed) {
        failure.addSuppressed(alsoFailed);
      }
      if (failure instanceof IOException cause) {
        throw new IOException("cannot write " + file + ": " + reason(target, cause), cause);
      }
      throw failure;
    }
  }

  /**
   * Replaces a file by a text in UTF-8.
   *
   * @throws IOException as {@link #write}
   */
  public static void writeString(Path file, String text) throws IOException {
    write(
        file,
        channel -> {
          ByteBuffer buffer = StandardCharsets.UTF_8.encode(text);
          while (buffer.hasRemaining()) {
            channel.write(buffer);
          }
        });
  }

  /** Removes temporary files of processes that are no more. */
  private static void removeLeftovers(Path target) throws IOException {
    removeTemporary(
        target,
        process ->
            ProcessHandle.of(Long.parseLong(process)).filter(ProcessHandle::isAlive).isEmpty());
  }

  /**
   * Removes all temporary files of one that nobody writes now: also those with the number of a
   * process that lives, which may be another of the same number.
   */
  static void removeAllLeftovers(Path file) throws IOException {
    removeTemporary(file.toAbsolutePath(), process -> true);
  }

  private static void removeTemporary(Path target, Predicate<String> ofProcess) throws IOException {
    String begin = target.getFileName() + ".";
    List<Path> leftovers = new ArrayList<>();
    try (Stream<Path> siblings = Files.list(target.resolveSibling("."))) {
      for (Path path : (Iterable<Path>) siblings::iterator) {
        String name = path.getFileName().toString();
        if (name.startsWith(begin)) {
          Matcher matcher = TEMPORARY.matcher(name.substring(begin.length()));
          if (matcher.matches()
              && (matcher.group(1) == null // of the first version, which had one name for all
                  || ofProcess.test(matcher.group(1)))) {
            leftovers.add(path);
          }
        }
      }
    }
    for (Path leftover : leftovers) {
      Files.deleteIfExists(leftover);
    }
  }

  /** Makes the rename itself durable. */
  private static void syncFolder(Path folder) throws IOException {
    if (System.getProperty("os.name").toLowerCase(Locale.ROOT).startsWith("windows")) {
      return; // Windows neither opens folders nor needs this
    }
    try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
      channel.force(true);
    }
  }

  private static String reason(Path target, IOException cause) {
    Path folder = target.getParent();
    if (cause instanceof NoSuchFileException) {
      return "the folder " + folder + " does not exist";
    }
    if (cause instanceof FileSystemException failure && failure.getReason() != null) {
      return failure.getReason();
    }
    if (cause instanceof java.nio.file.AccessDeniedException) {
      return "no permission to write in " + folder;
    }
    return cause.getMessage() == null ? cause.getClass().getSimpleName() : cause.getMessage();
  }
}
