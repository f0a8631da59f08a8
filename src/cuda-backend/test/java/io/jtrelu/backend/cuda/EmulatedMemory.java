package io.jtrelu.backend.cuda;

/** The emulated device's memory, for tests of other packages. */
public final class EmulatedMemory {
  private EmulatedMemory() {}

  /** Size of the device's memory. */
  public static void limit(long bytes) {
    EmulatorControl.memory(bytes);
  }

  /** Bytes that are allocated. */
  public static long used() {
    return EmulatorControl.used();
  }
}
