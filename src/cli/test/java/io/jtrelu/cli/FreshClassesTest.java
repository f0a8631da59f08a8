package io.jtrelu.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.classfile.ClassFile;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import java.util.jar.JarOutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** On picocli's own jar, which is what it is for. */
class FreshClassesTest {
  @TempDir private Path folder;

  private static Path picocli() throws Exception {
    return Path.of(CommandLine.class.getProtectionDomain().getCodeSource().getLocation().toURI());
  }

  @Test
  void writesOldClassesAnewAndLeavesTheRest() throws Exception {
    Path copy = FreshClasses.freshen(folder, picocli());
    assertEquals(folder.resolve(picocli().getFileName()), copy);
    int anew = 0;
    try (ZipFile before = new ZipFile(picocli().toFile());
        ZipFile after = new ZipFile(copy.toFile())) {
      List<? extends ZipEntry> files =
          before.stream().filter(entry -> !entry.isDirectory()).toList();
      for (ZipEntry file : files) {
        byte[] old = before.getInputStream(file).readAllBytes();
        byte[] now = after.getInputStream(after.getEntry(file.getName())).readAllBytes();
        if (FreshClasses.isOld(old)) {
          anew++;
          assertFalse(FreshClasses.isOld(now), file.getName());
          assertEquals(List.of(), ClassFile.of().verify(now), file.getName());
        } else {
          assertArrayEquals(old, now, file.getName());
        }
      }
      assertEquals(files.size() + 1, after.stream().count()); // and says what was changed
      String note =
          new String(
              after.getInputStream(after.getEntry("META-INF/JTRELU-CHANGES.txt")).readAllBytes(),
              UTF_8);
      assertTrue(note.contains(" " + anew + " class files"), note);
    }
    assertTrue(anew > 100, anew + " old classes in picocli: is this still needed?");
    assertArrayEquals(new String[] {copy.getFileName().toString()}, folder.toFile().list());
    assertEquals(copy, FreshClasses.freshen(folder, copy)); // nothing old is left
  }

  /** All of them are loaded, and so verified by the JVM; then one parses a command line. */
  @Test
  void whatIsWrittenRuns() throws Exception {
    Path copy = FreshClasses.freshen(folder, picocli());
    try (URLClassLoader loader =
            new URLClassLoader(
                new URL[] {copy.toUri().toURL()}, ClassLoader.getPlatformClassLoader());
        ZipFile classes = new ZipFile(copy.toFile())) {
      for (ZipEntry entry : Collections.list(classes.entries())) {
        String name = entry.getName();
        if (name.startsWith("picocli/") && name.endsWith(".class")) {
          Class.forName(name.replace('/', '.').replace(".class", ""), true, loader);
        }
      }
      Class<?> type = loader.loadClass("picocli.CommandLine");
      Object spec =
          loader
              .loadClass("picocli.CommandLine$Model$CommandSpec")
              .getMethod("create")
              .invoke(null);
      spec.getClass().getMethod("name", String.class).invoke(spec, "fresh");
      Object command = type.getConstructor(Object.class).newInstance(spec);
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      type.getMethod("usage", PrintStream.class).invoke(command, new PrintStream(out, true, UTF_8));
      assertTrue(out.toString(UTF_8).contains("Usage: fresh"), out.toString(UTF_8));
    }
  }

  @Test
  void printsTheJarsToUseInOrder() throws Exception {
    Path own = folder.resolve("own.jar");
    try (var jar = new JarOutputStream(Files.newOutputStream(own))) {
      jar.putNextEntry(new ZipEntry("data"));
      jar.write(1);
    }
    PrintStream console = System.out;
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    System.setOut(new PrintStream(out, true, UTF_8));
    try {
      FreshClasses.main(
          new String[] {folder.toString(), own.toString(), picocli().toString(), own.toString()});
    } finally {
      System.setOut(console);
    }
    Path copy = folder.resolve(picocli().getFileName());
    assertEquals(List.of(own + "", copy + "", own + ""), out.toString(UTF_8).lines().toList());
  }
}
