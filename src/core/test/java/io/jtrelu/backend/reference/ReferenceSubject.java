package io.jtrelu.backend.reference;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;

/** The reference backend under the contract tests. */
public final class ReferenceSubject implements Subject {
  /** For {@link java.util.ServiceLoader}. */
  public ReferenceSubject() {}

  @Override
  public String name() {
    return "reference";
  }

  @Override
  public Backend open() {
    return new ReferenceBackend();
  }
}
