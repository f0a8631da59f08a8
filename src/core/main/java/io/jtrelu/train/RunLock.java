package io.jtrelu.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.Set;

/**
 * Keeps a run's folder to one writer: a lock of the operating system on the file {@value #FILE} in
 * it, which ends with the process whatever ends that. The file names the process that holds it, and
 * stays, empty: removing it could take it from under someone who has just opened it.
 */
final class RunLock implements AutoCloseable {
  static final String FILE = ".lock";

  /**
   * Folders that this process writes in. Locks belong to processes, and on POSIX systems a process
   * loses one when it closes any other channel to the file: so it must not even be opened twice.
   */
  private static final Set<Path> HELD = new HashSet<>();

  private final Path folder;
  private final FileChannel channel;

  private RunLock(Path folder, FileChannel channel) {
    this.folder = folder;
    this.channel = channel;
  }

  /**
   * Takes a folder.
   *
   * @throws IOException if another writer has it, with its process; or if the file cannot be made
   */
  static RunLock take(Path folder) throws IOException {
    Path real = folder.toRealPath();
    long own = ProcessHandle.current().pid();
    synchronized (HELD) {
      if (HELD.contains(real)) {
        throw inUse(folder, "this process, " + own);
      }
      Path file = real.resolve(FILE);
      FileChannel channel =
          FileChannel.open(
              file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
      try {
        if (channel.tryLock() == null) {
          String text = Files.readString(file).strip();
          throw inUse(folder, text.isEmpty() ? "a process that is not known" : text);
        }
        write(channel, file, "process " + own);
        HELD.add(real);
        return new RunLock(real, channel);
      } catch (Throwable failure) {
        channel.close();
        throw failure;
      }
    }
  }

  private static void write(FileChannel channel, Path file, String holder) throws IOException {
    try {
      channel.truncate(0);
      ByteBuffer bytes = StandardCharsets.UTF_8.encode(holder);
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    } catch (IOException cause) {
      throw new IOException("cannot write " + file + ": " + cause.getMessage(), cause);
    }
  }

  private static IOException inUse(Path folder, String holder) {
    return new IOException(
        folder
            + " is in use by another run ("
            + holder
            + "): wait for it, or choose another folder");
  }

  @Override
  public void close() throws IOException {
    synchronized (HELD) {
      if (HELD.remove(folder)) {
        channel.truncate(0);
        channel.close();
      }
    }
  }
}
