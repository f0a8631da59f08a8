package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * Misuse through the public API ends with the right result or an exception of a documented type:
 * {@link HostileCases} says what is tried. As that may kill a JVM, it runs in another one, which
 * tells of each case; after a crash a new one goes on behind it.
 *
 * <p>{@code -Djtrelu.hostile=N} repeats all cases N times, each time with another seed.
 */
class HostileContractTest extends Contract {
  private static final long CASE_SECONDS = 120;
  private static final int LINES = 40; // of output that are shown with a crash

  @TestFactory
  Stream<DynamicTest> misuseIsRefused() throws Exception {
    String wanted = System.getProperty("jtrelu.case");
    List<String> ids =
        HostileCases.of(subject, backend).stream()
            .map(HostileCases.Case::id)
            .filter(id -> wanted == null || wanted.equals(id))
            .collect(Collectors.toList());
    Map<String, String> failures = new HashMap<>();
    int repeats = Integer.getInteger("jtrelu.hostile", 1);
    for (int i = 0; i < repeats; i++) {
      runAll(ids, Long.getLong("jtrelu.seed", 1) + i, failures);
    }
    return tests(
        ids.stream()
            .map(id -> new Case(id, () -> assertEquals("", failures.getOrDefault(id, "")))));
  }

  /** No id is there twice: a crash is told by it. */
  @org.junit.jupiter.api.Test
  void idsAreUnique() {
    List<String> ids =
        HostileCases.of(subject, backend).stream().map(HostileCases.Case::id).toList();
    assertEquals(ids.size(), ids.stream().distinct().count());
    assertTrue(ids.size() > 140, "cases: " + ids.size());
  }

  private void runAll(List<String> ids, long seed, Map<String, String> failures)
      throws IOException, InterruptedException {
    List<String> left = new ArrayList<>(ids);
    while (!left.isEmpty()) {
      int before = left.size();
      runSome(left, seed, failures);
      if (left.size() == before) {
        throw new AssertionError("the process of the hostile cases does not even begin one");
      }
    }
  }

  /** Runs cases in a process until it ends, and takes those away that it began. */
  private void runSome(List<String> left, long seed, Map<String, String> failures)
      throws IOException, InterruptedException {
    ChildJvm child =
        new ChildJvm()
            .options("-Xmx1g", "-XX:-CreateCoredumpOnCrash", "-XX:ErrorFile=/dev/null")
            .options("--enable-native-access=ALL-UNNAMED")
            // glibc unmaps what is freed from this size on, and spoils what is smaller.
            .environment("MALLOC_MMAP_THRESHOLD_", "65536")
            .environment("MALLOC_PERTURB_", "165");
    System.getProperties()
        .forEach(
            (name, value) -> {
              if (name.toString().startsWith("jtrelu.") && !name.equals("jtrelu.case")) {
                child.options("-D" + name + "=" + value);
              }
            });
    List<String> arguments = new ArrayList<>(List.of(subject.name(), Long.toString(seed)));
    arguments.addAll(left);
    Process process = child.start(HostileCases.class, arguments.toArray(String[]::new));
    AtomicLong lastLine = new AtomicLong(System.nanoTime());
    Thread watch =
        Thread.ofPlatform()
            .daemon()
            .start(
                () -> {
                  while (process.isAlive()) {
                    long quiet = System.nanoTime() - lastLine.get();
                    if (quiet > TimeUnit.SECONDS.toNanos(CASE_SECONDS)) {
                      process.destroyForcibly();
                    }
                    java.util.concurrent.locks.LockSupport.parkNanos(100_000_000);
                  }
                });
    String current = null;
    Deque<String> tail = new ArrayDeque<>();
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        lastLine.set(System.nanoTime());
        if (line.startsWith(HostileCases.BEGIN)) {
          current = line.substring(HostileCases.BEGIN.length());
          left.remove(current);
        } else if (line.startsWith(HostileCases.GOOD)) {
          current = null;
        } else if (line.startsWith(HostileCases.BAD)) {
          String[] parts = line.substring(HostileCases.BAD.length()).split("\t", 2);
          failures.put(parts[0], parts[1]);
          current = null;
        } else {
          tail.addLast(line);
          if (tail.size() > LINES) {
            tail.removeFirst();
          }
        }
      }
    }
    int status = process.waitFor();
    watch.join();
    if (current != null) {
      failures.put(
          current,
          "the process ended within this case, with status "
              + status
              + " (137: it was ended after "
              + CASE_SECONDS
              + " s without a sign):\n"
              + String.join("\n", tail));
    }
  }
}
