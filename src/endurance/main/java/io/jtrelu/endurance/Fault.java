package io.jtrelu.endurance;

import java.util.List;

/**
 * How a system call fails.
 *
 * @param call write, fsync, rename, open, or create, which is open of a file that may be new
 * @param name what people call it
 * @param error errno; 0 for a call that does half of its work
 * @param said what the operating system says of it; empty for one that is to pass unnoticed
 * @param lasting whether later calls fail too
 */
record Fault(String call, String name, int error, String said, boolean lasting) {
  private static final int EIO = 5;
  private static final int ENOSPC = 28;

  /** A broken disk, once; a full one, from then on; and calls that do less than asked for. */
  static final List<Fault> ALL =
      List.of(
          broken("open"),
          broken("write"),
          broken("fsync"),
          broken("rename"),
          full("create"),
          full("write"),
          full("fsync"),
          full("rename"),
          new Fault("write", "half", 0, "", false));

  private static Fault broken(String call) {
    return new Fault(call, "EIO", EIO, "Input/output error", false);
  }

  private static Fault full(String call) {
    return new Fault(call, "ENOSPC", ENOSPC, "No space left on device", true);
  }

  /** Such as {@code write:ENOSPC}. */
  @Override
  public String toString() {
    return call + ":" + name;
  }
}
