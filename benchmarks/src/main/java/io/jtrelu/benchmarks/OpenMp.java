package io.jtrelu.benchmarks;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;

/** Threads of the OpenMP runtime that a native library uses. */
final class OpenMp {
  private OpenMp() {}

  /** Sets them for the calling thread; the runtime must be loaded already. */
  static void threads(int count) {
    MemorySegment function =
        SymbolLookup.libraryLookup("libgomp.so.1", Arena.global())
            .find("omp_set_num_threads")
            .orElseThrow(() -> new IllegalStateException("no OpenMP runtime"));
    try {
      Linker.nativeLinker()
          .downcallHandle(function, FunctionDescriptor.ofVoid(ValueLayout.JAVA_INT))
          .invokeExact(count);
    } catch (Throwable failure) {
      throw new IllegalStateException(failure);
    }
  }
}
