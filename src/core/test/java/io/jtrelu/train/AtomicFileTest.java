package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

class AtomicFileTest {
  @TempDir Path folder;

  private List<String> names() throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files.map(path -> path.getFileName().toString()).sorted().toList();
    }
  }

  @Test
  void writesAndReplaces() throws IOException {
    Path file = folder.resolve("model");
    AtomicFile.writeString(file, "one é");
    AtomicFile.writeString(file, "two");
    assertEquals("two", Files.readString(file));
    assertEquals(List.of("model"), names());
  }

  @Test
  void replacesATemporaryFileThatAKillLeftBehind() throws IOException {
    Files.writeString(folder.resolve("model.tmp"), "half of a much longer text");
    AtomicFile.writeString(folder.resolve("model"), "new");
    assertEquals("new", Files.readString(folder.resolve("model")));
    assertEquals(List.of("model"), names());
  }

  /** A writer that lives keeps its temporary file, however many write. */
  @Test
  void severalWritersAtOnceLeaveAWholeFile() throws Exception {
    Path file = folder.resolve("model");
    AtomicFile.write(
        file,
        channel -> {
          channel.write(StandardCharsets.UTF_8.encode("first, "));
          AtomicFile.writeString(file, "second");
          channel.write(StandardCharsets.UTF_8.encode("but renamed last"));
        });
    assertEquals("first, but renamed last", Files.readString(file));
    assertEquals(List.of("model"), names());
  }

  /** A channel that has room for some bytes only, as on a full disk. */
  private record Full(WritableByteChannel channel, int room) implements WritableByteChannel {
    @Override
    public int write(ByteBuffer bytes) throws IOException {
      channel.write(bytes.slice(bytes.position(), Math.min(room, bytes.remaining())));
      throw new IOException("No space left on device");
    }

    @Override
    public boolean isOpen() {
      return true;
    }

    @Override
    public void close() {}
  }

  @Test
  void aFullDiskLeavesTheOldFileAndNothingElse() throws IOException {
    Path file = folder.resolve("model");
    AtomicFile.writeString(file, "old");
    IOException error =
        assertThrows(
            IOException.class,
            () ->
                AtomicFile.write(
                    file,
                    channel ->
                        new Full(channel, 3).write(StandardCharsets.UTF_8.encode("longer text"))));
    assertEquals("cannot write " + file + ": No space left on device", error.getMessage());
    assertEquals("old", Files.readString(file));
    assertEquals(List.of("model"), names());
  }

  @Test
  void anExceptionInTheContentPassesThrough() throws IOException {
    assertThrows(
        IllegalStateException.class,
        () ->
            AtomicFile.write(
                folder.resolve("model"),
                channel -> {
                  throw new IllegalStateException("closed tensor");
                }));
    assertEquals(List.of(), names());
  }

  @Test
  void aFolderThatCannotTakeTheFileIsNamed() throws IOException {
    Path missing = folder.resolve("nowhere/model");
    IOException error = assertThrows(IOException.class, () -> AtomicFile.writeString(missing, "x"));
    assertEquals(
        "cannot write " + missing + ": the folder " + missing.getParent() + " does not exist",
        error.getMessage());

    Path plain = Files.writeString(folder.resolve("plain"), "not a folder");
    error =
        assertThrows(IOException.class, () -> AtomicFile.writeString(plain.resolve("model"), "x"));
    assertTrue(String.valueOf(error.getMessage()).contains("Not a directory"), error.getMessage());

    Path taken = Files.createDirectories(folder.resolve("taken/inner")).getParent();
    assertThrows(IOException.class, () -> AtomicFile.writeString(taken, "x"));
    assertEquals(List.of("plain", "taken"), names());
  }

  /** A child process that replaces a file again and again with equal bytes, a new value a time. */
  static final class Writer {
    static final int BYTES = 1 << 20;

    private Writer() {}

    public static void main(String[] arguments) throws IOException {
      Path file = Path.of(arguments[0]);
      boolean stopHalfway = arguments.length > 1;
      for (byte value = 1; value < 100; value++) {
        byte[] content = new byte[BYTES];
        Arrays.fill(content, value);
        boolean stop = stopHalfway && value == 2;
        AtomicFile.write(
            file,
            channel -> {
              channel.write(ByteBuffer.wrap(content, 0, BYTES / 2));
              if (stop) {
                System.out.println("half");
                System.out.flush();
                System.in.read(); // for ever: the parent kills
              }
              channel.write(ByteBuffer.wrap(content, BYTES / 2, BYTES / 2));
            });
        System.out.println(value);
      }
    }
  }

  private static Process start(List<String> prefix, Path file, String... more) throws IOException {
    List<String> command = new ArrayList<>(prefix);
    command.addAll(
        List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-Xshare:auto",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            System.getProperty("java.class.path"),
            Writer.class.getName(),
            file.toString()));
    command.addAll(List.of(more));
    return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
  }

  @Test
  void aProcessKilledHalfwayLeavesTheLastGoodFile() throws Exception {
    Path file = folder.resolve("model");
    Process child = start(List.of(), file, "stop");
    try (BufferedReader output = child.inputReader()) {
      assertEquals("1", output.readLine());
      assertEquals("half", output.readLine());
    } finally {
      child.destroyForcibly();
    }
    assertTrue(child.waitFor(20, TimeUnit.SECONDS));
    byte[] expected = new byte[Writer.BYTES];
    Arrays.fill(expected, (byte) 1);
    assertArrayEquals(expected, Files.readAllBytes(file));
    assertEquals(2, names().size(), names().toString());
    AtomicFile.writeString(file, "new");
    assertEquals(List.of("model"), names(), "the next write removes what is left behind");
  }

  @Test
  void aProcessKilledAtAnyMomentLeavesAWholeFile() throws Exception {
    Path file = folder.resolve("model");
    for (int round = 1; round <= 3; round++) {
      Process child = start(List.of(), file);
      try (BufferedReader output = child.inputReader()) {
        for (int line = 0; line < 3 * round; line++) {
          output.readLine();
        }
      } finally {
        child.destroyForcibly();
      }
      assertTrue(child.waitFor(20, TimeUnit.SECONDS));
      byte[] found = Files.readAllBytes(file);
      byte[] expected = new byte[Writer.BYTES];
      Arrays.fill(expected, found[0]);
      assertArrayEquals(expected, found);
      assertTrue(found[0] >= 3 * round, "value " + found[0]);
    }
  }

  /** The operating system itself refuses the second half: a limit on the size of files. */
  @Test
  @DisabledOnOs(OS.WINDOWS)
  void aRealWriteErrorIsReportedAndCleanedUp() throws Exception {
    Path file = folder.resolve("model");
    // In blocks of 512 bytes or of 1 KiB, by shell: at most 768 KiB either way.
    Process child = start(List.of("sh", "-c", "ulimit -f 768; exec \"$@\" 2>&1", "sh"), file);
    String output = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertTrue(child.waitFor(20, TimeUnit.SECONDS));
    assertEquals(1, child.exitValue());
    assertTrue(output.contains("cannot write " + file + ": File too large"), output);
    assertFalse(Files.exists(file));
    assertEquals(List.of(), names());
  }
}
