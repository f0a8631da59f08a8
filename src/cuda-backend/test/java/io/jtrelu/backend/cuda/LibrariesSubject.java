package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Supplier;
import org.junit.jupiter.api.Assumptions;

/**
 * The CUDA backend on the emulated device, whose convolutions are done by stand-ins for NVIDIA's
 * libraries wherever these can: by cuBLAS, else by cuDNN.
 */
abstract class LibrariesSubject implements Subject {
  private static final Path STANDINS = Path.of("target/native/standins");

  private final String generation;

  /**
   * @param generation of the libraries: cuda12 or cuda13
   */
  LibrariesSubject(String generation) {
    this.generation = generation;
  }

  @Override
  public String name() {
    return generation;
  }

  @Override
  public int randomCases() {
    return 40;
  }

  @Override
  public long largestConvolution() {
    return 100_000;
  }

  @Override
  public Backend open() {
    return with(generation, "cublas,cudnn", new EmulatedSubject()::open);
  }

  @Override
  public String toString() {
    return name();
  }

  /** Where the stand-ins of a generation lie; skips the test where they are not built. */
  static Path folder(String generation) {
    Path folder = STANDINS.resolve(generation).toAbsolutePath();
    Assumptions.assumeTrue(Files.isDirectory(folder), "no stand-ins in " + folder);
    return folder;
  }

  /** Opens something while providers are asked for. */
  static <T> T with(String generation, String providers, Supplier<T> open) {
    return with(folder(generation), providers, open);
  }

  /** Opens something while providers are asked for. */
  static <T> T with(Path libraries, String providers, Supplier<T> open) {
    System.setProperty(NvidiaLibrary.PATH_PROPERTY, libraries.toString());
    System.setProperty(ConvolutionChooser.PROPERTY, providers);
    try {
      return open.get();
    } finally {
      System.clearProperty(NvidiaLibrary.PATH_PROPERTY);
      System.clearProperty(ConvolutionChooser.PROPERTY);
    }
  }
}
