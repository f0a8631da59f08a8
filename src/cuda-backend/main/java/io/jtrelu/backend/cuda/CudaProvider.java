package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import java.io.IOException;
import java.util.List;

/** NVIDIA GPUs. */
public final class CudaProvider implements BackendProvider {
  /** For {@link java.util.ServiceLoader}. */
  public CudaProvider() {}

  @Override
  public String name() {
    return "cuda";
  }

  @Override
  public int priority() {
    return 100;
  }

  @Override
  public Availability availability() {
    String missing = JCudaJar.missing();
    return missing != null
        ? new Availability.Unavailable(missing)
        : CudaDevices.availability(false);
  }

  @Override
  public List<String> libraries() {
    return JCudaJar.missing() != null ? List.of() : CudaDevices.libraries(false);
  }

  @Override
  public boolean forgetTuning() throws IOException {
    return TuningFile.ofThisUser().delete();
  }

  @Override
  public Backend open(int index) {
    JCudaJar.require();
    return CudaDevices.open(name(), index, false);
  }
}
