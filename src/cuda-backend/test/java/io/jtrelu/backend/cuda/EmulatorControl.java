package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;

/** The emulated driver's own functions (native/emulator/jtrelu_emulator.h), once it is loaded. */
final class EmulatorControl {
  private EmulatorControl() {}

  private static MethodHandle function(String name, FunctionDescriptor type) {
    MemorySegment symbol = SymbolLookup.loaderLookup().findOrThrow("jtreluEmulator" + name);
    return Linker.nativeLinker().downcallHandle(symbol, type);
  }

  private static void set(String name, Object... arguments) {
    MemoryLayout[] layouts = new MemoryLayout[arguments.length];
    for (int i = 0; i < layouts.length; i++) {
      layouts[i] = arguments[i] instanceof Integer ? JAVA_INT : JAVA_LONG;
    }
    try {
      function(name, FunctionDescriptor.ofVoid(layouts)).invokeWithArguments(arguments);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  private static long get(String name) {
    try {
      return (long) function(name, FunctionDescriptor.of(JAVA_LONG)).invokeExact();
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  private static String text(String name) {
    MethodHandle function = function(name, FunctionDescriptor.of(JAVA_LONG, ADDRESS, JAVA_LONG));
    try (Arena arena = Arena.ofConfined()) {
      long length = (long) function.invokeExact(MemorySegment.NULL, 0L);
      MemorySegment buffer = arena.allocate(length + 1);
      long again = (long) function.invokeExact(buffer, length + 1);
      if (again != length) {
        throw new AssertionError(name + " changed while it was read");
      }
      return buffer.getString(0);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** Forgets findings, counters and injected failures. */
  static void clear() {
    set("Clear");
  }

  /** Faults found since {@link #clear}. */
  static long errors() {
    return get("ErrorCount");
  }

  /** The faults, for people. */
  static String report() {
    return text("ReportsText");
  }

  /** Order of blocks, warps and lanes. */
  static void seed(long seed) {
    set("SetSeed", seed);
  }

  /**
   * When work is done that streams are given: 0 when it is given, what was given before included, 1
   * as late as synchronisation allows, others in an order by that seed.
   */
  static void delay(long delay) {
    set("SetDelay", delay);
  }

  /** Size of the device's memory. */
  static void memory(long bytes) {
    set("SetMemory", bytes);
  }

  /** Whether counters tell the bytes that a launch touches at least once. */
  static void footprint(boolean on) {
    set("SetFootprint", on ? 1 : 0);
  }

  /** First-level cache that each block has for the counter of sectors that it does not answer. */
  static void firstLevelCache(long bytes) {
    set("SetFirstLevelCache", bytes);
  }

  /** What devices opened from now on say they can do. */
  static void computeCapability(int major, int minor) {
    set("SetComputeCapability", major, minor);
  }

  /** Number of multiprocessors; devices opened from now on have it. */
  static void multiprocessors(int count) {
    set("SetMultiprocessors", count);
  }

  /** The n-th allocation from now fails. */
  static void failAllocation(long n) {
    set("FailAllocation", n);
  }

  /** The n-th launch from now fails with a code. */
  static void failLaunch(long n, int code) {
    set("FailLaunch", n, code);
  }

  /** Every call that needs the device fails with a code; 0 ends it. */
  static void loseDevice(int code) {
    set("LoseDevice", code);
  }

  /** Marks memory as never written. */
  static void markUninitialised(long address, long bytes) {
    set("MarkUninitialised", address, bytes);
  }

  /** Bytes that are allocated. */
  static long used() {
    return get("UsedBytes");
  }

  /** Device allocations that are not freed. */
  static long liveAllocations() {
    return get("LiveAllocations");
  }

  /** Forgets the counters of former launches. */
  static void clearCounters() {
    set("CountersClear");
  }

  /** Calls of the driver since {@link #clearCounters}, by name. */
  static JsonNode calls() {
    try {
      return new ObjectMapper().readTree(text("CallsJson"));
    } catch (JsonProcessingException broken) {
      throw new AssertionError(broken);
    }
  }

  /** The CUDA version that the driver claims. */
  static void driverVersion(int version) {
    set("SetDriverVersion", version);
  }

  /** Compute capability of the device. */
  static void capability(int major, int minor) {
    set("SetComputeCapability", major, minor);
  }

  /** Counters of each launch since {@link #clearCounters}, oldest first. */
  static List<JsonNode> counters() {
    try {
      List<JsonNode> launches = new ArrayList<>();
      new ObjectMapper().readTree(text("CountersJson")).forEach(launches::add);
      return launches;
    } catch (JsonProcessingException broken) {
      throw new AssertionError(broken);
    }
  }
}
