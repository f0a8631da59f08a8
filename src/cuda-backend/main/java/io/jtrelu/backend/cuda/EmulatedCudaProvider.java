package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import java.util.List;

/**
 * The same backend on the emulated driver: for tests on machines without a GPU, and only where it
 * is asked for by name. It is found by the system property {@code jtrelu.emulator} (the library
 * file), else under target/native. A process that uses it cannot use a real GPU.
 */
public final class EmulatedCudaProvider implements BackendProvider {
  /** For {@link java.util.ServiceLoader}. */
  public EmulatedCudaProvider() {}

  @Override
  public String name() {
    return "emulated";
  }

  @Override
  public int priority() {
    return -1;
  }

  @Override
  public Availability availability() {
    String missing = JCudaJar.missing();
    return missing != null ? new Availability.Unavailable(missing) : CudaDevices.availability(true);
  }

  @Override
  public List<String> libraries() {
    return JCudaJar.missing() != null ? List.of() : CudaDevices.libraries(true);
  }

  @Override
  public Backend open(int index) {
    JCudaJar.require();
    Backend backend = CudaDevices.open(name(), index, true);
    System.getLogger("io.jtrelu.backend")
        .log(
            System.Logger.Level.WARNING,
            "THE EMULATED DEVICE IS NOT A GPU: it runs the CUDA kernels on the CPU to check them."
                + " Its results are what a GPU computes, within rounding; its speed means nothing.");
    return backend;
  }
}
