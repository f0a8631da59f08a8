package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.ChildJvm;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** Which files are taken for NVIDIA's libraries, and what is said of the others. */
@EnabledOnOs(value = OS.LINUX, architectures = "amd64")
class NvidiaLibraryTest {
  @TempDir Path folder;

  /** The stand-ins need the emulated driver in the process. */
  @BeforeAll
  static void driver() {
    EmulatedSubject.openPlain().close();
  }

  private static NvidiaLibrary open(Path libraries, String stem, boolean emulated, Integer... of) {
    return LibrariesSubject.with(
        libraries, "own", () -> NvidiaLibrary.open(stem, List.of(of), emulated));
  }

  private static String refused(Path libraries, String stem, boolean emulated, Integer... of) {
    return assertThrows(
            BackendUnavailableException.class, () -> open(libraries, stem, emulated, of))
        .getMessage();
  }

  private static Path standin(String generation, String name) {
    return LibrariesSubject.folder(generation).resolve(name);
  }

  @Test
  void theFirstMajorThatIsThere() {
    NvidiaLibrary library = open(LibrariesSubject.folder("cuda12"), "cublas", true, 13, 12);
    assertEquals(12, library.major());
    assertEquals("12.0.0", library.version());
    assertEquals(standin("cuda12", "libcublas.so.12").toString(), library.path());
  }

  @Test
  void packagesOfPython() throws IOException {
    Path lib = Files.createDirectories(folder.resolve("nvidia/cudnn/lib"));
    Files.createSymbolicLink(lib.resolve("libcudnn.so.9"), standin("cuda13", "libcudnn.so.9"));
    NvidiaLibrary library = open(folder.resolve("nvidia"), "cudnn", true, 9, 8);
    assertEquals(lib.resolve("libcudnn.so.9").toString(), library.path());
  }

  /** What is bound to another version by a link would kill the process. */
  @Test
  void aLinkToAnotherVersion() throws IOException {
    Files.createSymbolicLink(
        folder.resolve("libcublas.so.12"), standin("cuda13", "libcublas.so.13"));
    String reason = refused(folder, "cublas", true, 12);
    assertTrue(reason.contains("calls itself version 13, against its name"), reason);
    assertTrue(reason.contains(folder.resolve("libcublas.so.12").toString()), reason);
  }

  @Test
  void noLibraryAtAll() throws IOException {
    Files.writeString(folder.resolve("libcublas.so.13"), "not a library");
    String reason = refused(folder, "cublas", true, 13);
    assertTrue(reason.contains("libcublas.so.13 cannot be opened"), reason);
  }

  @Test
  void nothingThere() {
    String reason = refused(folder, "cudnn", true, 77);
    assertTrue(reason.contains("no libcudnn.so.77"), reason);
    assertTrue(reason.contains("CUDA_HOME"), reason);
    assertTrue(reason.contains("-Djtrelu.cuda.libraries"), reason);
  }

  /**
   * A stand-in computes nothing on a GPU, and NVIDIA's libraries nothing on the emulated device.
   */
  @Test
  void standinsAreForTheEmulatedDevice() {
    String reason = refused(LibrariesSubject.folder("cuda13"), "cublas", false, 13);
    assertTrue(reason.contains("is a stand-in"), reason);
  }

  @Test
  void aProviderThatDoesNotExist() {
    assertThrows(
        IllegalArgumentException.class,
        () -> LibrariesSubject.with(folder, "mkl", () -> new EmulatedCudaProvider().open(0)));
  }

  @Test
  void devicesTell() {
    List<String> lines =
        LibrariesSubject.with("cuda12", "own", new EmulatedCudaProvider()::libraries);
    assertEquals(3, lines.size(), lines.toString());
    assertTrue(lines.get(0).startsWith("cuBLAS 12.0.0 (/"), lines.get(0));
    assertTrue(lines.get(0).endsWith("), called through JCublas"), lines.get(0));
    assertTrue(lines.get(1).startsWith("cuDNN 8.0.0 (/"), lines.get(1));
    assertTrue(lines.get(1).endsWith("), called through JCudnn"), lines.get(1));
    assertTrue(lines.get(2).startsWith("NCCL 2.9.0 (/"), lines.get(2));
  }

  /** In a process that has opened none: what is in a process is found by its name. */
  @Test
  void whereTheyAreMissing() {
    String output =
        new ChildJvm()
            .options("--enable-native-access=ALL-UNNAMED")
            .run(ShowLibraries.class, folder.toString());
    assertTrue(
        output.contains("cuBLAS is not used: no libcublas.so.13 or libcublas.so.12"), output);
    assertTrue(output.contains("cuDNN is not used: no libcudnn.so.9 or libcudnn.so.8"), output);
    assertTrue(output.contains("NCCL is not used: no libnccl.so.2:"), output);
    assertTrue(output.contains("refused: no libcublas.so.13"), output);
  }

  /** Prints what the emulated device's provider says of libraries, and opens it for cuBLAS. */
  static final class ShowLibraries {
    private ShowLibraries() {}

    public static void main(String[] folder) {
      EmulatedSubject.openPlain().close();
      LibrariesSubject.with(Path.of(folder[0]), "own", new EmulatedCudaProvider()::libraries)
          .forEach(System.out::println);
      // Whoever names a library wants that one.
      try {
        LibrariesSubject.with(
                Path.of(folder[0]), "cublas", () -> new EmulatedCudaProvider().open(0))
            .close();
      } catch (BackendUnavailableException reason) {
        System.out.println("refused: " + reason.getMessage());
      }
    }
  }
}
