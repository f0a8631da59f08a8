package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.ChildJvm;
import io.jtrelu.backend.ShowProviders;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;

/**
 * Processes in which something that CUDA needs is missing: they say what, and the other backends
 * are there.
 */
@EnabledOnOs(value = OS.LINUX, architectures = "amd64")
class CudaAvailabilityTest {
  private static final String ALLOW = "--enable-native-access=ALL-UNNAMED";

  /** Requires both providers to be unavailable for a reason with some words in it. */
  private static void requireReason(String output, String... words) {
    for (String start : new String[] {"cuda: ", "emulated: "}) {
      String line =
          output
              .lines()
              .filter(l -> l.startsWith(start))
              .findFirst()
              .orElseThrow(() -> new AssertionError("no " + start + " in " + output));
      assertTrue(line.startsWith(start + "Unavailable["), output);
      for (String word : words) {
        assertTrue(line.contains(word), word + " not in: " + line);
      }
    }
    assertTrue(output.contains("reference: Available["), output);
    assertTrue(output.contains("opened: reference"), output);
  }

  private static boolean isJCuda(String entry) {
    return entry.contains("jcuda") && entry.endsWith(".jar") && !entry.contains("natives");
  }

  @Test
  void withoutJCuda() {
    String output =
        new ChildJvm()
            .classPath(entry -> !isJCuda(entry))
            .options(ALLOW)
            .run(ShowProviders.class, "reference");
    requireReason(output, "org.jcuda:jcuda", "jcuda-natives");
  }

  @Test
  void withoutJCudaOnTheModulePath() {
    String output =
        new ChildJvm()
            .classPath(entry -> !isJCuda(entry))
            .modulePath(entry -> entry.contains("jspecify") || entry.contains("jackson"))
            .options(ALLOW)
            .run(ShowProviders.class, "reference");
    requireReason(output, "module path", "org.jcuda:jcuda");
  }

  private static String line(String output, String start) {
    return output.lines().filter(l -> l.startsWith(start)).findFirst().orElse(output);
  }

  @Test
  void withoutItsNatives() {
    String output =
        new ChildJvm()
            .classPath(entry -> !entry.contains("jcuda-natives"))
            .options(ALLOW)
            .run(ShowProviders.class, "reference");
    String cuda = line(output, "cuda: ");
    assertTrue(cuda.contains("Unavailable["), output);
    assertTrue(cuda.contains("org.jcuda:jcuda-natives"), output);
    assertTrue(output.contains("opened: reference"), output);
  }

  @Test
  void withoutNativeAccess() {
    String output =
        new ChildJvm()
            .options("--illegal-native-access=deny")
            .run(ShowProviders.class, "reference");
    String cuda = line(output, "cuda: ");
    assertTrue(cuda.contains("Unavailable["), output);
    assertTrue(cuda.contains("--enable-native-access=ALL-UNNAMED"), output);
    assertTrue(output.contains("opened: reference"), output);
  }
}
