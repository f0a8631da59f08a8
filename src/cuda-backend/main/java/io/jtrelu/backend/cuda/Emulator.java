package io.jtrelu.backend.cuda;

/** What tells the emulated driver from a real one. */
final class Emulator {
  /** A symbol that only the emulated libcuda has. */
  static final String MARKER = "jtreluEmulatorVersion";

  private Emulator() {}
}
