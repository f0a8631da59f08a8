package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.UnsupportedException;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.List;

/** Provides the oneDNN backend: the CPU default. */
public final class OneDnnProvider implements BackendProvider {
  static final String NAME = "onednn";

  /** For {@link java.util.ServiceLoader}. */
  public OneDnnProvider() {}

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public int priority() {
    return 50;
  }

  @Override
  public Availability availability() {
    try (Dnnl library = load()) {
      return new Availability.Available(
          "oneDNN " + library.version() + ", " + describeKernels(),
          List.of(
              "cpu: "
                  + Runtime.getRuntime().availableProcessors()
                  + " cores, "
                  + library.instructionSet()));
    } catch (BackendUnavailableException failure) {
      return new Availability.Unavailable(failure.getMessage());
    }
  }

  @Override
  public Backend open(int index) {
    if (index != 0) {
      throw new BackendUnavailableException(
          "the onednn backend has one device, of index 0; got index " + index);
    }
    Dnnl library = load();
    try {
      return new OneDnnBackend(library, CpuKernels.load(0));
    } catch (IOException | UnsupportedException failure) {
      System.getLogger(OneDnnProvider.class.getPackageName())
          .log(Level.INFO, "training is slower than it could be: " + failure.getMessage());
      return new OneDnnBackend(library, null);
    }
  }

  private static String describeKernels() {
    try (CpuKernels kernels = CpuKernels.load(0)) {
      return "own kernels for " + kernels.instructionSet();
    } catch (IOException | UnsupportedException failure) {
      return "no kernels of its own: " + failure.getMessage();
    }
  }

  static Dnnl load() {
    try {
      return new Dnnl(LibraryFiles.forThisPlatform().unpack());
    } catch (IOException | RuntimeException failure) {
      throw new BackendUnavailableException("oneDNN: " + failure.getMessage(), failure);
    }
  }
}
