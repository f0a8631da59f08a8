package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.UnsupportedException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** Unpacking of the shared library, and what can go wrong. */
@EnabledOnOs(value = OS.LINUX, architectures = "amd64")
class LibraryFilesTest {
  private static final LibraryFiles SMALL =
      new LibraryFiles("linux-x86_64", List.of("libgomp.so.1"));

  @TempDir private Path cache;

  @Test
  void unpacksOnceForTheOwnerAlone() throws IOException {
    Path file = SMALL.unpack(cache);
    assertEquals("libgomp.so.1", file.getFileName().toString());
    assertEquals(
        "rwx------",
        PosixFilePermissions.toString(Files.getPosixFilePermissions(file.getParent())));
    Object identity = Files.readAttributes(file, "unix:ino").get("ino");
    assertEquals(file, SMALL.unpack(cache));
    assertEquals(identity, Files.readAttributes(file, "unix:ino").get("ino"), "written again");
    try (var files = Files.list(file.getParent())) {
      assertEquals(List.of(file), files.toList(), "something was left over");
    }
  }

  @Test
  void replacesAFileThatWasCutOff() throws IOException {
    Path file = SMALL.unpack(cache);
    byte[] whole = Files.readAllBytes(file);
    Files.write(file, new byte[100]);
    assertArrayEquals(whole, Files.readAllBytes(SMALL.unpack(cache)));
  }

  @Test
  void refusesADirectoryThatOthersMayChange() throws IOException {
    Path directory = SMALL.unpack(cache).getParent();
    Files.setPosixFilePermissions(directory, PosixFilePermissions.fromString("rwxrwxrwx"));
    IOException refused = assertThrows(IOException.class, () -> SMALL.unpack(cache));
    assertTrue(refused.getMessage().contains("others"), refused.getMessage());
    Files.setPosixFilePermissions(directory, PosixFilePermissions.fromString("rwx------"));
    assertTrue(Files.exists(SMALL.unpack(cache)), "a retry works");
  }

  @Test
  void saysWhatIsMissing() {
    assertThrows(UnsupportedException.class, () -> LibraryFiles.forPlatform("Plan 9", "vax"));
    LibraryFiles absent = new LibraryFiles("linux-vax", List.of("libdnnl.so.3"));
    FileNotFoundException missing =
        assertThrows(FileNotFoundException.class, () -> absent.unpack(cache));
    assertTrue(missing.getMessage().contains("classifier linux-vax"), missing.getMessage());
  }
}
