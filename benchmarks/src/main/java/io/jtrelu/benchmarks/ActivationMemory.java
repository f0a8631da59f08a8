package io.jtrelu.benchmarks;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.StructLayout;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;

/**
 * Prints the bytes that a contender holds between the forward and the backward pass of one batch.
 *
 * <p>For this library two figures of its own counter: {@code jtrelu} for the micro-batches in
 * flight, {@code jtrelu-whole} as if the whole batch passed at once. For a peer, what glibc's
 * allocator handed out during the forward pass and had not got back (mallinfo2), which counts every
 * tensor that PyTorch holds.
 */
public final class ActivationMemory {
  /** The JVM's compilers allocate and release by the same allocator: the median counts. */
  private static final int REPETITIONS = 7;

  private static final int MAPPED = 4; // hblkhd
  private static final int IN_USE = 7; // uordblks
  private static final StructLayout MALLINFO2 =
      MemoryLayout.structLayout(
          MemoryLayout.sequenceLayout(10, ValueLayout.JAVA_LONG).withName("fields"));
  private static final MethodHandle FUNCTION =
      Linker.nativeLinker()
          .downcallHandle(
              Linker.nativeLinker().defaultLookup().findOrThrow("mallinfo2"),
              FunctionDescriptor.of(MALLINFO2));

  private ActivationMemory() {}

  /** Bytes in use in all arenas of glibc's allocator. */
  public static long allocated() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment info = (MemorySegment) FUNCTION.invokeExact((SegmentAllocator) arena);
      return info.getAtIndex(ValueLayout.JAVA_LONG, MAPPED)
          + info.getAtIndex(ValueLayout.JAVA_LONG, IN_USE);
    } catch (Throwable failure) {
      throw new IllegalStateException(failure);
    }
  }

  /**
   * Runs.
   *
   * @param args contender, network, batch
   */
  public static void main(String[] args) {
    Workload workload = Workload.of(args[1], Integer.parseInt(args[2]));
    boolean whole = args[0].endsWith("-whole");
    String name = whole ? args[0].substring(0, args[0].length() - "-whole".length()) : args[0];
    try (Contender contender = Contenders.open(name, workload)) {
      contender.step();
      double[] values = new double[REPETITIONS];
      for (int i = 0; i < REPETITIONS; i++) {
        values[i] =
            whole
                ? ((JtreluContender) contender).activationBytesOfBatch()
                : contender.activationBytes();
      }
      System.out.println("value " + Campaign.median(values));
    }
    System.exit(0);
  }
}
