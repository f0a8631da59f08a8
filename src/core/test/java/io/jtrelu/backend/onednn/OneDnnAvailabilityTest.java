package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.ChildJvm;
import io.jtrelu.backend.ShowProviders;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/**
 * Processes in which something that oneDNN needs is missing, or an unusual place is all there is:
 * they say what is missing and go on, or they compute as fast as ever.
 */
@EnabledOnOs(value = OS.LINUX, architectures = "amd64")
class OneDnnAvailabilityTest {
  private static final String ALLOW = "--enable-native-access=ALL-UNNAMED";

  @TempDir private Path folder;

  /** The second and third line of the output: those of the two providers of this module. */
  private record Shown(String onednn, String reference, String all) {
    static Shown of(String output) {
      return new Shown(line(output, "onednn: "), line(output, "reference: "), output);
    }

    private static String line(String output, String start) {
      return output
          .lines()
          .filter(line -> line.startsWith(start))
          .findFirst()
          .orElseThrow(() -> new AssertionError("no " + start + " in " + output));
    }

    void requireOneDnnAlone() {
      assertTrue(onednn.contains("Available[") && onednn.contains("own kernels for"), all);
      assertTrue(reference.contains("Available["), all);
      assertTrue(all.contains("opened: onednn"), all);
      assertFalse(all.contains("slower") || all.contains("computes with"), all);
    }
  }

  @BeforeEach
  void kernelsAreBuilt() {
    String here = new OneDnnProvider().availability().toString();
    Assumptions.assumeTrue(here.contains("own kernels for"), here);
  }

  private static boolean isNatives(String entry) {
    return entry.contains("dnnl") && entry.endsWith("linux-x86_64.jar");
  }

  /** One number, two sets of instructions. */
  @Test
  void instructionSetsAreNamedByTheMachine() {
    assertEquals("avx512_core", Dnnl.instructionSet(0x27, "amd64"));
    assertEquals("sve_512", Dnnl.instructionSet(0x27, "aarch64"));
    assertEquals("sve_256", Dnnl.instructionSet(0x7, "aarch64"));
    assertEquals("asimd", Dnnl.instructionSet(0x1, "aarch64"));
    assertEquals("aarch64", Dnnl.instructionSet(0, "aarch64"));
  }

  @Test
  void asItShouldBe() {
    Shown.of(new ChildJvm().options(ALLOW).run(ShowProviders.class, "cpu")).requireOneDnnAlone();
  }

  @Test
  void withoutTheNatives() {
    String output =
        new ChildJvm()
            .classPath(entry -> !isNatives(entry))
            .options(ALLOW)
            .run(ShowProviders.class, "cpu", "auto", "cpu");
    Shown shown = Shown.of(output);
    assertTrue(shown.onednn.contains("Unavailable["), output);
    assertTrue(shown.onednn.contains("org.bytedeco:dnnl with classifier linux-x86_64"), output);
    assertEquals(3, output.lines().filter(line -> line.startsWith("opened: reference")).count());
    // Slower than it could be: a warning, once.
    assertEquals(1, output.lines().filter(line -> line.startsWith("WARNING")).count(), output);
    assertTrue(output.contains("computes with reference: onednn is not available"), output);
  }

  @Test
  void withoutNativeAccess() {
    String output =
        new ChildJvm()
            .options("--illegal-native-access=deny")
            .run(ShowProviders.class, "cpu", "reference:3");
    Shown shown = Shown.of(output);
    assertTrue(shown.onednn.contains("Unavailable["), output);
    assertTrue(shown.onednn.contains("--enable-native-access=ALL-UNNAMED"), output);
    assertTrue(output.contains("opened: reference 3"), output);
  }

  private static boolean isModule(String entry) {
    return entry.contains("dnnl") || entry.contains("jspecify") || entry.contains("jackson");
  }

  /** On the module path, oneDNN's jars are modules that nothing requires. */
  @Test
  void onTheModulePath() {
    Shown.of(
            new ChildJvm()
                .modulePath(OneDnnAvailabilityTest::isModule)
                .options(ALLOW)
                .run(ShowProviders.class, "cpu"))
        .requireOneDnnAlone();
  }

  @Test
  void onTheModulePathWithoutTheNatives() {
    String output =
        new ChildJvm()
            .classPath(entry -> !isNatives(entry))
            .modulePath(OneDnnAvailabilityTest::isModule)
            .options(ALLOW)
            .run(ShowProviders.class);
    assertTrue(Shown.of(output).onednn.contains("class path or module path"), output);
  }

  /** Neither a cache nor a place for temporary files: what is left is memory. */
  @Test
  void withoutAPlace() throws IOException {
    Path file = Files.createFile(folder.resolve("file"));
    Shown.of(
            new ChildJvm()
                .options(ALLOW, "-Dio.jtrelu.cache=" + file, "-Djava.io.tmpdir=" + file)
                .run(ShowProviders.class, "cpu", "cpu"))
        .requireOneDnnAlone();
  }

  /** A path that the locale cannot write is no reason to be slow. */
  @Test
  void withAPathBeyondTheLocale() throws IOException {
    Path home = Files.createDirectory(folder.resolve("home"));
    Shown.of(
            new ChildJvm()
                .options(ALLOW, "-Dio.jtrelu.cache=" + home + "/h\u00f6hle")
                .environment("LC_ALL", "POSIX")
                .run(ShowProviders.class, "cpu"))
        .requireOneDnnAlone();
  }

  /** A user without a home, a name or an entry in the list of users, as containers have them. */
  @Test
  void asAUserWithoutAName() {
    Shown.of(
            new ChildJvm()
                .options(ALLOW, "-Duser.name=?", "-Duser.home=?", "-Djava.io.tmpdir=" + folder)
                .environment("HOME", folder.toString())
                .environment("XDG_CACHE_HOME", "")
                .run(ShowProviders.class, "cpu"))
        .requireOneDnnAlone();
    assertTrue(Files.isDirectory(folder.resolve(".cache/jtrelu")), "the cache is in $HOME");
  }

  /** One cache wherever digits are others. */
  @Test
  void withOtherDigits() throws IOException {
    for (String locale : new String[] {"en-US", "ar-SA-u-nu-arab"}) {
      String[] parts = locale.split("-", 2);
      Shown.of(
              new ChildJvm()
                  .options(
                      ALLOW,
                      "-Dio.jtrelu.cache=" + folder,
                      "-Duser.language=" + parts[0],
                      "-Duser.region=" + parts[1].substring(0, 2),
                      "-Duser.extensions=" + (parts[1].length() > 2 ? "u-nu-arab" : ""))
                  .run(ShowProviders.class, "cpu"))
          .requireOneDnnAlone();
    }
    try (var sets = Files.list(folder)) {
      assertEquals(1, sets.filter(set -> set.toString().contains("onednn")).count());
    }
  }

  @Test
  void availabilityIsAskedAnew() {
    OneDnnProvider provider = new OneDnnProvider();
    assertEquals(provider.availability(), provider.availability());
    assertTrue(provider.availability() instanceof Availability.Available);
  }
}
