package io.jtrelu.endurance;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * {@code native/faults.c} in this process, which was started with it in LD_PRELOAD: makes system
 * calls fail.
 */
final class FaultLibrary {
  private final MethodHandle arm;
  private final MethodHandle disarm;
  private final MethodHandle seen;
  private final MethodHandle failed;
  private final MethodHandle path;

  /** The library that is preloaded. */
  FaultLibrary(Path library) {
    SymbolLookup symbols = SymbolLookup.libraryLookup(library, Arena.global());
    Linker linker = Linker.nativeLinker();
    arm =
        linker.downcallHandle(
            symbols.findOrThrow("jtrelu_faults_arm"),
            FunctionDescriptor.ofVoid(
                ValueLayout.ADDRESS,
                ValueLayout.ADDRESS,
                ValueLayout.JAVA_LONG,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT));
    disarm =
        linker.downcallHandle(
            symbols.findOrThrow("jtrelu_faults_disarm"), FunctionDescriptor.ofVoid());
    FunctionDescriptor count = FunctionDescriptor.of(ValueLayout.JAVA_LONG);
    seen = linker.downcallHandle(symbols.findOrThrow("jtrelu_faults_seen"), count);
    failed = linker.downcallHandle(symbols.findOrThrow("jtrelu_faults_failed"), count);
    path =
        linker.downcallHandle(
            symbols.findOrThrow("jtrelu_faults_path"), FunctionDescriptor.of(ValueLayout.ADDRESS));
  }

  /** Why faults cannot be injected on this machine; empty where they can. */
  static Optional<String> missing() {
    if (!System.getProperty("os.name").toLowerCase(Locale.ROOT).startsWith("linux")) {
      return Optional.of("faults are injected with LD_PRELOAD, on Linux alone");
    }
    for (String folder : System.getenv().getOrDefault("PATH", "").split(":", -1)) {
      if (!folder.isEmpty() && Files.isExecutable(Path.of(folder, "cc"))) {
        return Optional.empty();
      }
    }
    return Optional.of("there is no C compiler, cc, in the PATH");
  }

  /**
   * Compiles it.
   *
   * @param source {@code native/faults.c}
   * @param folder where the library goes
   * @return the library
   * @throws IOException with what the compiler says, if it fails
   */
  static Path compile(Path source, Path folder) throws IOException {
    Path library = folder.resolve("libjtrelu_faults.so");
    Process cc =
        new ProcessBuilder(
                "cc",
                "-shared",
                "-fPIC",
                "-O2",
                "-o",
                library.toString(),
                source.toString(),
                "-ldl")
            .redirectErrorStream(true)
            .start();
    String said = new String(cc.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    try {
      if (!cc.waitFor(60, TimeUnit.SECONDS) || cc.exitValue() != 0) {
        throw new IOException("cc cannot compile " + source + ":\n" + said);
      }
    } catch (InterruptedException stopped) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", stopped);
    }
    return library;
  }

  /**
   * Begins to count calls and makes one fail.
   *
   * @param prefix of the paths that they are about
   * @param number of the call, from 1 on; 0 for none
   */
  void arm(Path prefix, Fault fault, long number) {
    try (Arena arena = Arena.ofConfined()) {
      arm.invokeExact(
          arena.allocateFrom(prefix.toString()),
          arena.allocateFrom(fault.call()),
          number == 0 ? Long.MAX_VALUE : number,
          fault.error(),
          fault.lasting() ? 1 : 0);
    } catch (Throwable impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  /** Ends it. */
  void disarm() {
    try {
      disarm.invokeExact();
    } catch (Throwable impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  /** Calls of the kind since {@link #arm}. */
  long seen() {
    return count(seen);
  }

  /** Those that failed. */
  long failed() {
    return count(failed);
  }

  /** What the first that failed was about. */
  Path path() {
    try {
      MemorySegment text = (MemorySegment) path.invokeExact();
      return Path.of(text.reinterpret(1 << 12).getString(0));
    } catch (Throwable impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private static long count(MethodHandle handle) {
    try {
      return (long) handle.invokeExact();
    } catch (Throwable impossible) {
      throw new IllegalStateException(impossible);
    }
  }
}
