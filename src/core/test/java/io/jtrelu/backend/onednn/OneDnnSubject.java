package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assumptions.abort;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;

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
  public long largestConvolution() {
    return 20_000_000;
  }
}
