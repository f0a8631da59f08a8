package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Finding and opening backends by name. */
class BackendsTest {
  @Test
  void bestFirst() {
    List<BackendProvider> providers = Backends.providers();
    assertTrue(
        providers.stream().anyMatch(provider -> provider.name().equals("reference")),
        "the reference backend is always there");
    for (int i = 1; i < providers.size(); i++) {
      assertTrue(providers.get(i - 1).priority() >= providers.get(i).priority(), "sorted");
    }
  }

  @Test
  void referenceIsAlwaysAvailable() {
    for (BackendProvider provider : Backends.providers()) {
      if (provider.name().equals("reference")) {
        assertInstanceOf(Availability.Available.class, provider.availability());
      }
    }
    for (String name : List.of("reference", " Reference ", "reference:1")) {
      try (Backend backend = Backends.open(name)) {
        assertEquals("reference", backend.name());
      }
    }
  }

  @Test
  void somethingOpensOnEveryMachine() {
    try (Backend backend = Backends.open("cpu")) {
      assertEquals(io.jtrelu.tensor.Device.CPU, backend.device());
    }
    try (Backend backend = Backends.open("auto")) {
      assertTrue(backend.lanes() >= 1);
    }
  }

  @Test
  void refusals() {
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> Backends.open("tpu").close(),
        "tpu",
        "auto",
        "cpu",
        "reference");
    Refusals.requireMessage(
        IllegalArgumentException.class, () -> Backends.open("reference:x").close(), "number");
    Refusals.requireMessage(
        IllegalArgumentException.class, () -> Backends.open("auto:2").close(), "auto:2", "cpu:4");
    for (String number : List.of("0", "257", "4294967295")) {
      for (String name : List.of("cpu", "reference")) {
        Refusals.requireMessage(
            IllegalArgumentException.class,
            () -> Backends.open(name + ":" + number).close(),
            name + ":" + number,
            "lanes",
            "256",
            "got " + number);
      }
    }
    Refusals.requireMessage(
        IllegalArgumentException.class, () -> Backends.open("cpu:-1").close(), "cpu:-1", "lanes");
    BackendProvider elsewhere = new Elsewhere();
    Refusals.requireMessage(
        BackendUnavailableException.class,
        () -> elsewhere.openWithLanes(2).close(),
        "elsewhere",
        "lanes");
  }

  /** More lanes than cores are allowed. */
  @Test
  void lanesAreThoseThatAreAskedFor() {
    for (int lanes : new int[] {1, 4, 256}) {
      for (String name : List.of("cpu", "reference")) {
        try (Backend backend = Backends.open(name + ":" + lanes)) {
          assertEquals(lanes, backend.lanes(), name);
        }
      }
    }
    for (String name : List.of("cpu", "reference")) {
      try (Backend backend = Backends.open(name)) {
        assertEquals(Runtime.getRuntime().availableProcessors(), backend.lanes(), name);
      }
    }
  }

  /** A provider that only the context loader knows. */
  public static final class Elsewhere implements BackendProvider {
    /** For {@link java.util.ServiceLoader}. */
    public Elsewhere() {}

    @Override
    public String name() {
      return "elsewhere";
    }

    @Override
    public int priority() {
      return -5;
    }

    @Override
    public Availability availability() {
      return new Availability.Unavailable("it is a test's");
    }

    @Override
    public Backend open(int index) {
      throw new BackendUnavailableException("it is a test's");
    }
  }

  /** A class loader that adds lines to the list of providers. */
  private static List<BackendProvider> providersWith(String services, Path folder)
      throws IOException {
    return with(services, folder, Backends::providers);
  }

  private static <T> T with(String services, Path folder, Supplier<T> work) throws IOException {
    Path file = folder.resolve("META-INF/services/" + BackendProvider.class.getName());
    Files.createDirectories(file.getParent());
    Files.writeString(file, services);
    Thread thread = Thread.currentThread();
    ClassLoader before = thread.getContextClassLoader();
    URL[] urls = {folder.toUri().toURL()};
    try (URLClassLoader loader = new URLClassLoader(urls, before)) {
      thread.setContextClassLoader(loader);
      return work.get();
    } finally {
      thread.setContextClassLoader(before);
    }
  }

  /** Three GPUs, which tell which of them was asked for. */
  public static final class Three implements BackendProvider {
    /** For {@link java.util.ServiceLoader}. */
    public Three() {}

    @Override
    public String name() {
      return "three";
    }

    @Override
    public int priority() {
      return -5;
    }

    @Override
    public Availability availability() {
      return new Availability.Available("1", List.of("three:0", "three:1", "three:2"));
    }

    @Override
    public Backend open(int index) {
      throw new BackendUnavailableException("asked for " + index);
    }
  }

  @Test
  void processesOfAMachineTakeGpusInTurn(@TempDir Path folder) throws IOException {
    String services = Three.class.getName() + "\n";
    for (int process = 0; process < 5; process++) {
      int number = process;
      assertEquals(
          "asked for " + process % 3, with(services, folder, () -> refusal("three", number)));
      assertEquals("asked for 1", with(services, folder, () -> refusal("three:1", number)));
    }
    try (Backend cpu = Backends.open("reference:2", 7)) {
      assertEquals(2, cpu.lanes());
    }
    assertThrows(IllegalArgumentException.class, () -> Backends.open("reference", -1));
  }

  private static String refusal(String device, int process) {
    return String.valueOf(
        assertThrows(BackendUnavailableException.class, () -> Backends.open(device, process))
            .getMessage());
  }

  private static List<String> names(List<BackendProvider> providers) {
    return providers.stream().map(BackendProvider::name).toList();
  }

  @Test
  void providersOfTheContextLoaderAreSeenOnce(@TempDir Path folder) throws IOException {
    List<String> usual = names(Backends.providers());
    assertEquals(usual, usual.stream().distinct().toList(), "doubles");
    List<String> more = new ArrayList<>(usual);
    more.add("elsewhere");
    String services =
        Elsewhere.class.getName() + "\nio.jtrelu.backend.reference.ReferenceProvider\n";
    assertEquals(more, names(providersWith(services, folder)));
    Thread thread = Thread.currentThread();
    ClassLoader before = thread.getContextClassLoader();
    try { // as in a thread of an application server, or none at all
      thread.setContextClassLoader(ClassLoader.getPlatformClassLoader());
      assertEquals(usual, names(Backends.providers()));
      thread.setContextClassLoader(null);
      assertEquals(usual, names(Backends.providers()));
    } finally {
      thread.setContextClassLoader(before);
    }
  }

  @Test
  void aProviderThatCannotBeLoadedIsAReason(@TempDir Path folder) throws IOException {
    List<BackendProvider> providers =
        providersWith("com.example.Absent\n" + Elsewhere.class.getName() + "\n", folder);
    BackendProvider absent = providers.getFirst();
    assertEquals("com.example.Absent", absent.name());
    String reason =
        assertInstanceOf(Availability.Unavailable.class, absent.availability()).reason();
    assertTrue(reason.contains("com.example.Absent") && reason.contains("jar"), reason);
    Refusals.requireMessage(
        BackendUnavailableException.class, () -> absent.open(0).close(), "com.example.Absent");
    assertTrue(names(providers).contains("reference"), "the others are there");
    assertTrue(names(providers).contains("elsewhere"), "those behind it too");
    assertEquals(
        "unknown", providersWith("not a class name\n", folder).getFirst().name(), "syntax error");
  }

  /** What is missing is said once in a process. */
  @Test
  void aLineIsLoggedOnce() {
    String output = new ChildJvm().run(OpensOften.class);
    assertEquals(2, output.lines().filter(line -> line.contains("said once")).count(), output);
    assertEquals(1, output.lines().filter(line -> line.contains("first")).count(), output);
  }

  /** A main class that says two things three times. */
  public static final class OpensOften {
    private OpensOften() {}

    /** Says them. */
    public static void main(String[] arguments) {
      for (int i = 0; i < 3; i++) {
        Backends.logOnce(System.Logger.Level.WARNING, "first, said once");
        Backends.logOnce(System.Logger.Level.WARNING, "second, said once");
      }
    }
  }
}
