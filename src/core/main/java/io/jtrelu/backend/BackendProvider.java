package io.jtrelu.backend;

/**
 * Says whether a backend is available and opens it. Found by {@link java.util.ServiceLoader};
 * asking loads no more than it must and never throws because something is missing.
 */
public interface BackendProvider {
  /** Name: {@code cuda}, {@code onednn}, {@code reference}. */
  String name();

  /** Rank in automatic choice: the available provider with the highest is taken. */
  int priority();

  /** Whether it can be used here; asks anew on each call, so that a failed load can be retried. */
  Availability availability();

  /**
   * Opens a device. The caller closes the result.
   *
   * @param index which device of this kind, from 0
   * @throws BackendUnavailableException if it cannot be used, with the reason
   */
  Backend open(int index);
}
