package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.ChildJvm;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Tuning;
import io.jtrelu.tensor.DataType;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is measured, what is kept, and what is taken without measuring, with costs of a test. */
class AutotunerTest {
  private static final Conv2dDescriptor D = Conv2dDescriptor.of(2, 9, 7, 24, 40, 3, 1, 1);

  @TempDir Path folder;
  private Path file;
  private CudaBackend backend;

  @BeforeEach
  void open() {
    file = folder.resolve("kept/tuning.txt");
    System.setProperty(TuningFile.PROPERTY, file.toString());
    System.setProperty(ConvolutionChooser.PROPERTY, "own");
    backend = (CudaBackend) EmulatedSubject.openPlain();
    EmulatorControl.clear();
  }

  @AfterEach
  void close() {
    System.clearProperty(TuningFile.PROPERTY);
    System.clearProperty(ConvolutionChooser.PROPERTY);
    if (backend != null) {
      assertEquals(0, backend.memory().inUse());
      backend.close();
    }
  }

  /** Prepares a convolution and gives the choice for its forward pass. */
  private String choice(Backend on) {
    return choice(on, "fprop");
  }

  private String choice(Backend on, String pass) {
    on.conv2d(D, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY).close();
    return on.choices().entrySet().stream()
        .filter(entry -> entry.getKey().contains(pass))
        .map(Map.Entry::getValue)
        .findFirst()
        .orElse("none");
  }

  @Test
  void offMeasuresNothing() {
    backend.tune(Tuning.OFF, Map.of());
    EmulatorControl.clearCounters();
    assertEquals("none", choice(backend));
    assertEquals(List.of(), EmulatorControl.counters());
    assertFalse(Files.exists(file));
  }

  /** The emulated device's counters decide, hence the same in every run, and for each pass. */
  @Test
  void onceMeasuresAndKeeps() throws IOException {
    backend.tune(Tuning.ONCE, Map.of());
    String first = choice(backend);
    assertTrue(first.startsWith("own/conv2d_fprop_bf16"), first);
    assertEquals(3, backend.choices().size());
    assertEquals(4, Files.readAllLines(file).size());
    assertEquals(0, EmulatorControl.errors(), EmulatorControl.report());
    EmulatorControl.clearCounters();
    backend.tune(Tuning.ONCE, Map.of());
    assertEquals(first, choice(backend));
    assertEquals(List.of(), EmulatorControl.counters(), "not measured again");
    backend.tune(Tuning.ALWAYS, Map.of());
    assertEquals(first, choice(backend));
    assertFalse(EmulatorControl.counters().isEmpty(), "measured again");
  }

  /** A choice of another run is taken, whatever is faster here; a name that is not known is not. */
  @Test
  void knownChoicesAreTaken() {
    backend.tune(Tuning.ONCE, Map.of());
    String fastest = choice(backend);
    Map<String, String> known = new HashMap<>(backend.choices());
    String other = "own/conv2d_fprop_bf16_64x64x32";
    assertFalse(fastest.equals(other), "then this test shows nothing");
    known.replaceAll((problem, name) -> problem.contains("fprop") ? other : name);
    backend.tune(Tuning.OFF, known);
    assertEquals(other, choice(backend));
    backend.tune(Tuning.ALWAYS, known);
    assertEquals(other, choice(backend));
    known.replaceAll((problem, name) -> "own/of_another_version");
    backend.tune(Tuning.OFF, known);
    assertEquals("none", choice(backend));
    backend.tune(Tuning.ONCE, known);
    assertEquals(fastest, choice(backend));
  }

  /** What is chosen computes the same as what it was chosen over. */
  @Test
  void choicesComputeTheSame() {
    List<float[]> expected = CudaTilesTest.passes(backend, D, DataType.BF16);
    backend.tune(Tuning.ALWAYS, Map.of());
    List<float[]> actual = CudaTilesTest.passes(backend, D, DataType.BF16);
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), actual.get(i), "result " + i);
    }
  }

  /** Libraries that are there are candidates; the emulated device counts none of their work. */
  @Test
  void librariesAreCandidates() {
    try (Backend with =
        LibrariesSubject.with("cuda13", "cudnn", () -> new EmulatedCudaProvider().open(0))) {
      String choice =
          LibrariesSubject.with(
              "cuda13",
              "cudnn",
              () -> {
                with.tune(Tuning.ALWAYS, Map.of());
                return choice(with, "dgrad");
              });
      assertEquals("cudnn/1", choice);
    }
  }

  @Test
  void filesOfOthers() throws IOException {
    TuningFile kept = new TuningFile(file);
    assertEquals(Map.of(), kept.read());
    kept.add(Map.of("a", "1", "b", "2"));
    new TuningFile(file).add(Map.of("b", "3", "c", "4"));
    assertEquals(Map.of("a", "1", "b", "3", "c", "4"), kept.read());
    Files.writeString(file, "jtrelu-tuning 99\na\t1\n");
    assertEquals(Map.of(), kept.read(), "another version");
    kept.add(Map.of("d", "5"));
    assertEquals(Map.of("d", "5"), kept.read());
    Files.write(file, new byte[] {(byte) 0xff, (byte) 0xfe, 10});
    assertEquals(Map.of(), kept.read(), "damaged");
    assertTrue(kept.delete());
    assertFalse(kept.delete());
  }

  /** Threads, each with its own view of the file, lose nothing of each other's. */
  @Test
  void severalAtOnce() throws InterruptedException {
    List<Thread> writers = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      int number = i;
      writers.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int j = 0; j < 5; j++) {
                      new TuningFile(file).add(Map.of(number + " " + j, "x"));
                    }
                  }));
    }
    for (Thread writer : writers) {
      writer.join();
    }
    assertEquals(40, new TuningFile(file).read().size());
  }

  /** Processes as well. */
  @Test
  void severalProcessesAtOnce() throws IOException, InterruptedException {
    List<Process> writers = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      writers.add(new ChildJvm().start(Writer.class, file.toString(), Integer.toString(i)));
    }
    for (Process writer : writers) {
      String output = new String(writer.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertEquals(0, writer.waitFor(), output);
    }
    assertEquals(60, new TuningFile(file).read().size());
  }

  /** Adds twenty choices of its own to a file. */
  static final class Writer {
    private Writer() {}

    public static void main(String[] arguments) {
      for (int i = 0; i < 20; i++) {
        new TuningFile(Path.of(arguments[0])).add(Map.of(arguments[1] + " " + i, "x"));
      }
    }
  }
}
