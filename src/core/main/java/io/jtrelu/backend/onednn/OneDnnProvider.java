package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.NativeCache;
import io.jtrelu.backend.UnsupportedException;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Objects;

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
  public boolean onCpu() {
    return true;
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
    return openWithLanes(Runtime.getRuntime().availableProcessors());
  }

  @Override
  public Backend openWithLanes(int lanes) {
    Dnnl library = load();
    try {
      return new OneDnnBackend(library, CpuKernels.best(), lanes);
    } catch (IOException | UnsupportedException failure) {
      Backends.logOnce(
          Level.WARNING,
          "training is several times slower than it could be, as this library's own kernels for"
              + " the CPU are not used: "
              + failure.getMessage());
      return new OneDnnBackend(library, null, lanes);
    }
  }

  private static String describeKernels() {
    try (CpuKernels kernels = CpuKernels.best()) {
      return "own kernels for " + kernels.instructionSet();
    } catch (IOException | UnsupportedException failure) {
      return "no kernels of its own: " + failure.getMessage();
    }
  }

  static Dnnl load() {
    requireNativeAccess();
    try {
      LibraryFiles files = LibraryFiles.forThisPlatform();
      return NativeCache.ofThisProcess().load(files.set(), files.find(), Dnnl::new);
    } catch (IOException | RuntimeException | LinkageError failure) {
      throw new BackendUnavailableException("oneDNN: " + failure.getMessage(), failure);
    }
  }

  /** Found out first: a class that is refused while it initialises cannot be used ever after. */
  private static void requireNativeAccess() {
    try {
      Objects.requireNonNull(MemorySegment.NULL.reinterpret(0));
    } catch (IllegalCallerException refused) {
      Module module = OneDnnProvider.class.getModule();
      throw new BackendUnavailableException(
          "oneDNN: the JVM refuses native code (--illegal-native-access=deny): start it with"
              + " --enable-native-access="
              + (module.isNamed() ? module.getName() : "ALL-UNNAMED"),
          refused);
    }
  }
}
