package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assumptions.abort;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Subject;
import io.jtrelu.tensor.DataType;

/** The oneDNN backend under the contract tests. */
public final class OneDnnSubject implements Subject {
  /** For {@link java.util.ServiceLoader}. */
  public OneDnnSubject() {}

  @Override
  public String name() {
    return OneDnnProvider.NAME;
  }

  @Override
  public Backend open() {
    OneDnnProvider provider = new OneDnnProvider();
    if (provider.availability() instanceof Availability.Unavailable unavailable) {
      abort(unavailable.reason());
    }
    return provider.open(0);
  }

  @Override
  public boolean roundsTransforms(Backend backend, Conv2dDescriptor descriptor, DataType type) {
    return WinogradConv2d.pays(descriptor) && ((OneDnnBackend) backend).roundsTransforms(type);
  }

  @Override
  public long largestConvolution() {
    return 20_000_000;
  }
}
