package io.jtrelu.backend.reference;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.BackendUnavailableException;
import java.util.List;

/**
 * Provides the reference backend, which is available everywhere and last in the automatic choice.
 */
public final class ReferenceProvider implements BackendProvider {
  /** For {@link java.util.ServiceLoader}. */
  public ReferenceProvider() {}

  @Override
  public String name() {
    return "reference";
  }

  @Override
  public int priority() {
    return 1;
  }

  @Override
  public boolean onCpu() {
    return true;
  }

  @Override
  public Availability availability() {
    return new Availability.Available(
        "Java " + Runtime.version().feature(),
        List.of("cpu: " + Runtime.getRuntime().availableProcessors() + " cores, plain Java"));
  }

  @Override
  public Backend open(int index) {
    if (index != 0) {
      throw new BackendUnavailableException(
          "the reference backend has one device, of index 0; got index " + index);
    }
    return new ReferenceBackend();
  }

  @Override
  public Backend openWithLanes(int lanes) {
    return new ReferenceBackend(lanes);
  }
}
