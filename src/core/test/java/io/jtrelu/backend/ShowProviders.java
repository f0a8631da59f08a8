package io.jtrelu.backend;

/** A main class for child processes: a line per provider, then what each argument opens. */
public final class ShowProviders {
  private ShowProviders() {}

  /** Prints {@code name: availability}, and {@code opened: name lanes} for each argument. */
  public static void main(String[] specifications) {
    for (BackendProvider provider : Backends.providers()) {
      System.out.println(provider.name() + ": " + provider.availability());
    }
    for (String specification : specifications) {
      try (Backend backend = Backends.open(specification)) {
        System.out.println("opened: " + backend.name() + " " + backend.lanes());
      }
    }
  }
}
