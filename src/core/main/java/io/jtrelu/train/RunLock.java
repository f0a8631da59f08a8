package io.jtrelu.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * Keeps a run's folder to one writer: a lock of the operating system on the file {@value #FILE} in
 * it, which ends with the process whatever ends that. The file names the process that holds it, and
 * goes when the lock does.
 */
final class RunLock implements AutoCloseable {
  static final String FILE = "run.lock";

  private final Path file;
  private final FileChannel channel;

  private RunLock(Path file, FileChannel channel) {
    this.file = file;
    this.channel = channel;
  }

  /**
   * Takes a folder.
   *
   * @throws IOException if another writer has it, with its process; or if the file cannot be made
   */
  static RunLock take(Path folder) throws IOException {
    Path file = folder.resolve(FILE);
    String owner =
        "process " + ProcessHandle.current().pid() + " writes here (" + UUID.randomUUID() + ")\n";
    while (true) {
      FileChannel channel =
          FileChannel.open(
              file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
      try {
        if (lock(channel) == null) {
          throw new IOException(
              folder
                  + " is in use by another run ("
                  + holder(file)
                  + "): wait for it, or choose another folder");
        }
        channel.truncate(0);
        channel.write(ByteBuffer.wrap(owner.getBytes(StandardCharsets.UTF_8)));
        // Between opening and locking, whoever had the lock may have removed the file.
        if (owner.equals(read(file))) {
          return new RunLock(file, channel);
        }
        channel.close();
      } catch (Throwable failure) {
        channel.close();
        throw failure;
      }
    }
  }

  private static @Nullable FileLock lock(FileChannel channel) throws IOException {
    try {
      return channel.tryLock();
    } catch (OverlappingFileLockException heldByThisProcess) {
      return null;
    }
  }

  private static String holder(Path file) throws IOException {
    String text = read(file);
    int end = text == null ? -1 : text.indexOf(" writes here");
    return end < 0 ? "its process is not known" : String.valueOf(text).substring(0, end);
  }

  private static @Nullable String read(Path file) throws IOException {
    try {
      return Files.readString(file);
    } catch (NoSuchFileException gone) {
      return null;
    }
  }

  @Override
  public void close() throws IOException {
    if (channel.isOpen()) {
      Files.deleteIfExists(file); // while it is locked, so that nobody else's is removed
      channel.close();
    }
  }
}
