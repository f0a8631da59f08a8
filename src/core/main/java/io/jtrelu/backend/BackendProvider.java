package io.jtrelu.backend;

import java.io.IOException;
import java.util.List;

/**
 * Says whether a backend is available and opens it. Found by {@link java.util.ServiceLoader};
 * asking loads no more than it must and never throws because something is missing.
 */
public interface BackendProvider {
  /** Name: {@code cuda}, {@code onednn}, {@code reference}. */
  String name();

  /** Rank in automatic choice: the available provider with the highest is taken. */
  int priority();

  /**
   * Whether it computes on the CPU. Then {@code cpu} stands for it too, and the number in a
   * specification such as {@code cpu:4} is that of its lanes.
   */
  default boolean onCpu() {
    return false;
  }

  /** Whether it can be used here; asks anew on each call, so that a failed load can be retried. */
  Availability availability();

  /**
   * Libraries that it can use beside its own kernels: a line each, for people, with version and
   * place, or why it is not used. They are opened to be asked.
   */
  default List<String> libraries() {
    return List.of();
  }

  /**
   * Forgets what {@link Tuning#ONCE} has kept for this user.
   *
   * @return whether there was anything
   * @throws IOException if it cannot be removed
   */
  default boolean forgetTuning() throws IOException {
    return false;
  }

  /**
   * Opens a device. The caller closes the result.
   *
   * @param index which device of this kind, from 0
   * @throws BackendUnavailableException if it cannot be used, with the reason
   */
  Backend open(int index);

  /**
   * Opens the CPU with a number of lanes other than that of its cores. The caller closes the
   * result.
   *
   * @param lanes from 1 to {@link Backends#LARGEST_LANES}
   * @throws BackendUnavailableException if it cannot be used, with the reason; this default, for
   *     providers that are not {@link #onCpu}, always does
   */
  default Backend openWithLanes(int lanes) {
    throw new BackendUnavailableException(
        "the " + name() + " backend does not compute on the CPU: it has no lanes to choose");
  }
}
