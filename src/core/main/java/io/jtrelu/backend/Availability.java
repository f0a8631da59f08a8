package io.jtrelu.backend;

/** Whether a backend can be used on this machine, and if not, why and what to do about it. */
public sealed interface Availability {
  /**
   * It can be used.
   *
   * @param version of the library or driver behind it, for people
   * @param devices a line per device, for people
   */
  record Available(String version, java.util.List<String> devices) implements Availability {}

  /**
   * It cannot.
   *
   * @param reason what is missing and what to do about it, for people
   */
  record Unavailable(String reason) implements Availability {}
}
