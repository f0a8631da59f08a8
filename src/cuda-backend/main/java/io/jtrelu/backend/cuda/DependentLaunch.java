package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Optional;

/**
 * Programmatic dependent launch: a kernel that may start before the one ahead of it in its stream
 * has ended, and waits for that one itself (griddepcontrol.wait) before it touches global memory.
 * What it does before, and the time of a launch, then pass while the last blocks ahead are at work.
 * By cuLaunchKernelEx of the driver, which JCuda does not bind. One thread at a time may use it.
 */
final class DependentLaunch {
  /** Whether kernels are launched so where they can be: true, unless it says false. */
  static final String PROPERTY = "jtrelu.cuda.dependent";

  /** Since when such launches can be recorded into graphs. */
  private static final int FIRST_DRIVER = 12_030;

  private static final int PROGRAMMATIC_STREAM_SERIALIZATION = 6;
  private static final long ATTRIBUTE_BYTES = 72;
  private static final long CONFIG_BYTES = 56;

  private static final Optional<MethodHandle> LAUNCH =
      SymbolLookup.loaderLookup()
          .find("cuLaunchKernelEx")
          .map(
              symbol ->
                  Linker.nativeLinker()
                      .downcallHandle(
                          symbol,
                          FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS)));

  private final boolean available;
  private final MemorySegment config; // CUlaunchConfig

  /**
   * @param arena keeps the native memory
   * @param device that kernels run on
   */
  DependentLaunch(Arena arena, CudaDevice device) {
    available =
        LAUNCH.isPresent()
            && device.capability() == 90 // the kernels that wait are for it alone
            && CudaDevice.driverVersion() >= FIRST_DRIVER
            && !System.getProperty(PROPERTY, "true").equals("false");
    MemorySegment attribute = arena.allocate(ATTRIBUTE_BYTES, 8); // CUlaunchAttribute
    attribute.set(JAVA_INT, 0, PROGRAMMATIC_STREAM_SERIALIZATION);
    attribute.set(JAVA_INT, 8, 1);
    config = arena.allocate(CONFIG_BYTES, 8);
    config.set(ADDRESS, 40, attribute);
    config.set(JAVA_INT, 48, 1); // attributes
  }

  /** Whether there is such a launch here. */
  boolean available() {
    return available;
  }

  /**
   * Launches a kernel that awaits those ahead, behind another kernel.
   *
   * @param stream the driver's handle
   * @param parameters as cuLaunchKernel takes them
   * @return the driver's result
   */
  int launch(Kernel kernel, int blocks, long stream, MemorySegment parameters) {
    int[] sizes = {blocks, 1, 1, kernel.threads(), 1, 1, kernel.sharedMemory()};
    MemorySegment.copy(sizes, 0, config, JAVA_INT, 0, sizes.length);
    config.set(ADDRESS, 32, MemorySegment.ofAddress(stream));
    MemorySegment function = MemorySegment.ofAddress(kernel.function().address());
    try {
      return (int)
          LAUNCH.orElseThrow().invokeExact(config, function, parameters, MemorySegment.NULL);
    } catch (RuntimeException | Error failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible); // C throws nothing
    }
  }
}
