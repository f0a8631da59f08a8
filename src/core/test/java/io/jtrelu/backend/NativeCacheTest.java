package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** The way of native libraries from jars to files, and what can stand in it. */
@EnabledOnOs(OS.LINUX)
class NativeCacheTest {
  private static final byte[] FIRST = {1, 2, 3, 4};
  private static final byte[] SECOND = {5, 6, 7};

  @TempDir private Path folder;
  private Path root;
  private Path temporary;
  private List<URL> sources;

  @BeforeEach
  void makeJar() throws IOException {
    root = folder.resolve("cache");
    temporary = Files.createDirectory(folder.resolve("tmp"));
    sources = jar("natives.jar", FIRST, SECOND);
  }

  private List<URL> jar(String name, byte[] first, byte[] second) throws IOException {
    Path jar = folder.resolve(name);
    try (OutputStream out = Files.newOutputStream(jar);
        ZipOutputStream zip = new ZipOutputStream(out)) {
      zip.putNextEntry(new ZipEntry("natives/libone.so"));
      zip.write(first);
      zip.putNextEntry(new ZipEntry("natives/libtwo.so"));
      zip.write(second);
    }
    List<URL> urls = new ArrayList<>();
    for (String file : List.of("libone.so", "libtwo.so")) {
      urls.add(URI.create("jar:" + jar.toUri() + "!/natives/" + file).toURL());
    }
    return urls;
  }

  private NativeCache cache() {
    return new NativeCache(root.toString(), null, List.of(), temporary.toString());
  }

  /** Loads by reading. */
  private static List<Path> read(List<Path> files) throws IOException {
    assertArrayEquals(FIRST, Files.readAllBytes(files.get(0)));
    assertArrayEquals(SECOND, Files.readAllBytes(files.get(1)));
    return files;
  }

  private List<Path> load() throws IOException {
    return cache().load("set", sources, NativeCacheTest::read);
  }

  private static Object inode(Path file) throws IOException {
    return Files.getAttribute(file, "unix:ino");
  }

  @Test
  void unpacksOnceForTheOwnerAlone() throws IOException {
    List<Path> files = load();
    Path directory = files.get(0).getParent();
    assertTrue(directory.startsWith(root), directory.toString());
    assertTrue(directory.getFileName().toString().startsWith("set-"), directory.toString());
    assertEquals(
        List.of("libone.so", "libtwo.so"),
        files.stream().map(file -> file.getFileName().toString()).toList());
    assertEquals(
        "rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(directory)));
    Object before = inode(files.get(0));
    assertEquals(files, load());
    assertEquals(before, inode(files.get(0)), "written again");
    try (var list = Files.list(directory)) {
      assertEquals(
          List.of("libone.so", "libone.so.verified", "libtwo.so", "libtwo.so.verified"),
          list.map(file -> file.getFileName().toString()).sorted().toList(),
          "something is left over");
    }
    try (var list = Files.list(temporary)) {
      assertEquals(0, list.count(), "something is left over");
    }
  }

  /** A change of contents that keeps the size: seen by the time, found by the digest. */
  @Test
  void replacesAFileThatWasDamaged() throws IOException {
    Path file = load().get(0);
    Files.write(file, new byte[] {1, 2, 9, 4});
    Files.setLastModifiedTime(file, FileTime.from(Instant.now().plusSeconds(5)));
    load(); // reads, hence compares
    Files.write(file, new byte[] {1});
    load();
  }

  /** What is trusted is a state that was verified, not the presence of a file. */
  @Test
  void verifiesWhatItHasNotWritten() throws IOException {
    Path file = load().get(0);
    Files.delete(file.resolveSibling("libone.so.verified"));
    Object before = inode(file);
    load();
    assertEquals(before, inode(file), "it was right: no reason to write it");
    assertTrue(Files.exists(file.resolveSibling("libone.so.verified")), "remembered");
    Files.delete(file.resolveSibling("libone.so.verified"));
    Files.write(file, new byte[] {4, 3, 2, 1});
    load();
    assertNotEquals(before, inode(file), "it was wrong");
  }

  /** Nothing is read that was verified: else each start would take longer. */
  @Test
  void readsNothingTwice() throws IOException {
    Path file = load().get(0);
    Object before = inode(file);
    FileTime time = Files.getLastModifiedTime(file);
    Files.write(file, new byte[] {9, 9, 9, 9});
    Files.setLastModifiedTime(file, time); // only the digest could tell now
    cache().load("set", sources, files -> files);
    assertEquals(before, inode(file));
    assertArrayEquals(new byte[] {9, 9, 9, 9}, Files.readAllBytes(file));
  }

  @Test
  void anotherVersionLiesElsewhere() throws IOException {
    Path file = load().get(0);
    List<URL> newer = jar("newer.jar", new byte[] {4, 3, 2, 1}, SECOND);
    Path other = cache().load("set", newer, files -> files).get(0);
    assertNotEquals(file.getParent(), other.getParent());
    assertArrayEquals(new byte[] {4, 3, 2, 1}, Files.readAllBytes(other));
    assertArrayEquals(FIRST, Files.readAllBytes(file));
  }

  @Test
  void removesWhatWasLeftUnfinishedLongAgo() throws IOException {
    Path directory = load().get(0).getParent();
    Path old = Files.createFile(directory.resolve("libone.so123.part"));
    Files.setLastModifiedTime(old, FileTime.from(Instant.now().minusSeconds(4000)));
    Path young = Files.createFile(directory.resolve("libone.so456.part"));
    Files.delete(directory.resolve("libone.so")); // so that something is written
    load();
    assertFalse(Files.exists(old), "left by a process that was killed");
    assertTrue(Files.exists(young), "another process may be writing it");
  }

  @Test
  void aDirectoryThatOthersMayChangeIsNotUsed() throws IOException {
    Path directory = load().get(0).getParent();
    Files.setPosixFilePermissions(directory, PosixFilePermissions.fromString("rwxrwxrwx"));
    Path elsewhere = load().get(0);
    assertTrue(elsewhere.startsWith(temporary), elsewhere.toString());
    Files.setPosixFilePermissions(directory, PosixFilePermissions.fromString("rwx------"));
    assertEquals(directory, load().get(0).getParent());
  }

  /** Owners are compared by number; the last user here has no name. */
  @Test
  void aDirectoryOfAnotherUserIsNotUsed() throws IOException {
    Path directory = load().get(0).getParent();
    try {
      Files.setAttribute(directory, "unix:uid", 54_321);
    } catch (IOException notRoot) {
      Assumptions.abort("only root can give a directory away");
    }
    Path elsewhere = load().get(0);
    assertTrue(elsewhere.startsWith(temporary), elsewhere.toString());
  }

  @Test
  void fallsBackToATemporaryDirectoryThatIsRemoved() throws IOException {
    Files.createFile(root); // no directory can be made there
    Path file = load().get(0);
    assertTrue(file.startsWith(temporary), file.toString());
    try (var list = Files.list(temporary)) {
      assertEquals(0, list.count(), "removed when it is loaded");
    }
  }

  @Test
  void removesTemporaryDirectoriesThatWereLeftLongAgo() throws IOException {
    Path old = Files.createDirectory(temporary.resolve("jtrelu-natives-1"));
    Files.createFile(old.resolve("libone.so"));
    Files.setLastModifiedTime(old, FileTime.from(Instant.now().minusSeconds(4000)));
    Path young = Files.createDirectory(temporary.resolve("jtrelu-natives-2"));
    Files.createFile(root);
    load();
    assertFalse(Files.exists(old), "left by a process that was killed");
    assertTrue(Files.exists(young), "another process may be loading from it");
  }

  /** The place is at fault where loading fails, as on a file system without execution. */
  @Test
  void fallsBackWhereLoadingFails() throws IOException {
    List<URL> others = jar("others.jar", SECOND, SECOND); // not in memory by another test
    List<Path> tried = new ArrayList<>();
    Path loaded =
        cache()
            .load(
                "set",
                others,
                files -> {
                  Path file = files.getFirst();
                  tried.add(file);
                  if (file.startsWith(folder)) {
                    throw new IOException("no execution in " + file.getParent());
                  }
                  assertArrayEquals(SECOND, Files.readAllBytes(file));
                  return file;
                });
    assertEquals(3, tried.size(), tried.toString());
    assertTrue(tried.get(0).startsWith(root), tried.toString());
    assertTrue(tried.get(1).startsWith(temporary), tried.toString());
    assertTrue(loaded.startsWith("/proc/self/fd"), loaded.toString());
    // It stays there: a second load makes no second file, and looks nowhere in between.
    tried.clear();
    assertEquals(
        loaded,
        cache()
            .load(
                "set",
                others,
                files -> {
                  tried.add(files.getFirst());
                  if (files.getFirst().startsWith(folder)) {
                    throw new IOException("still none");
                  }
                  return files.getFirst();
                }));
    assertEquals(2, tried.size(), tried.toString());
  }

  @Test
  void saysWhyEachPlaceFailed() throws IOException {
    List<URL> others =
        jar(
            "others.jar",
            /* first= */ SECOND,
            /* second= */ FIRST); // not in memory by another test
    IOException refused =
        assertThrows(
            IOException.class,
            () ->
                cache()
                    .load(
                        "set",
                        others,
                        files -> {
                          throw new IOException("not from " + files.getFirst().getParent());
                        }));
    Refusals.requireMessage(
        IOException.class,
        () -> {
          throw refused;
        },
        "not from " + root,
        "not from " + temporary,
        "not from /proc/self/fd",
        "-D" + NativeCache.PROPERTY,
        "noexec");
  }

  /** Anything else than IOException is no matter of places. */
  @Test
  void passesOtherFailuresOn() {
    int[] calls = {0};
    assertThrows(
        UnsupportedException.class,
        () ->
            cache()
                .load(
                    "set",
                    sources,
                    files -> {
                      calls[0]++;
                      throw new UnsupportedException("another version");
                    }));
    assertEquals(1, calls[0]);
  }

  @Test
  void filesAreLoadedWhereTheyLie() throws IOException {
    Path one = Files.write(folder.resolve("libone.so"), FIRST);
    Path two = Files.write(folder.resolve("libtwo.so"), SECOND);
    List<URL> inPlace = List.of(one.toUri().toURL(), two.toUri().toURL());
    assertEquals(List.of(one, two), cache().load("set", inPlace, NativeCacheTest::read));
    assertFalse(Files.exists(root), "nothing was unpacked");
  }

  @Test
  void placesOfTheCache() throws IOException {
    String tmp = temporary.toString();
    Path xdg = folder.resolve("xdg");
    Path home = folder.resolve("home");
    assertTrue(
        new NativeCache(null, xdg.toString(), List.of(home.toString()), tmp)
            .load("set", sources, NativeCacheTest::read)
            .get(0)
            .startsWith(xdg.resolve("jtrelu")));
    // Neither a relative path nor the question mark of a user without an entry is a home.
    assertTrue(
        new NativeCache(null, "relative", List.of("?", home.toString()), tmp)
            .load("set", sources, NativeCacheTest::read)
            .get(0)
            .startsWith(home.resolve(".cache/jtrelu")));
    assertTrue(
        new NativeCache(null, null, List.of("?"), tmp)
            .load("set", sources, NativeCacheTest::read)
            .get(0)
            .startsWith(temporary));
    assertFalse(Files.exists(Path.of("?")), "a directory named by a question mark");
  }
}
