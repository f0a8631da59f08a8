package io.jtrelu.distributed;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.NativeCache;
import io.jtrelu.distributed.Launcher.Family;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.net.URL;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/**
 * What is called of MPI, through the JDK's foreign-function interface: {@code
 * native/mpi/mpi_shim.h}, built once for each kind of MPI. Stays loaded for as long as the process
 * lives, as MPI cannot be started twice.
 */
final class MpiLibrary {
  private static final int VERSION = 1;
  private static final int TEXT_BYTES = 1024;

  static final int OK = 0;
  static final int DEADLINE = 1;

  private static final Linker LINKER = Linker.nativeLinker();

  private final Family family;
  private final MethodHandle library;
  private final MethodHandle error;
  private final MethodHandle start;
  private final MethodHandle exchange;
  private final MethodHandle sum;
  private final MethodHandle abort;
  private final MethodHandle finish;

  private MpiLibrary(Family family, SymbolLookup in) {
    this.family = family;
    int version = (int) call(function(in, "jtreluMpiVersion", FunctionDescriptor.of(JAVA_INT)));
    if (version != VERSION) {
      throw new DistributedException(
          "what calls " + family.title() + " has version " + version + ", not " + VERSION);
    }
    FunctionDescriptor text = FunctionDescriptor.ofVoid(ADDRESS, JAVA_INT);
    library = function(in, "jtreluMpiLibrary", text);
    error = function(in, "jtreluMpiError", text);
    start = function(in, "jtreluMpiStart", FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS));
    exchange =
        function(
            in,
            "jtreluMpiExchange",
            FunctionDescriptor.of(
                JAVA_INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS, JAVA_INT, JAVA_DOUBLE, ADDRESS));
    sum =
        function(
            in, "jtreluMpiSum", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_LONG, JAVA_DOUBLE));
    abort = function(in, "jtreluMpiAbort", FunctionDescriptor.ofVoid(JAVA_INT));
    finish = function(in, "jtreluMpiFinish", FunctionDescriptor.of(JAVA_INT));
  }

  /**
   * Loads what calls an MPI, and that MPI.
   *
   * @throws DistributedException saying what is missing and what to do
   */
  static MpiLibrary load(Family family) {
    String key = family.name().toLowerCase(Locale.ROOT);
    URL source = MpiLibrary.class.getResource(platform() + "/libjtrelu_mpi_" + key + ".so");
    if (source == null) {
      throw new DistributedException(
          "this build cannot call "
              + family.title()
              + " on "
              + platform()
              + ": it is built where its compiler is found (Debian: apt-get install "
              + (family == Family.OPENMPI
                  ? "openmpi-bin libopenmpi-dev; mpicc.openmpi"
                  : "mpich libmpich-dev; mpicc.mpich")
              + " or mpicc, with cmake and a C++ compiler)");
    }
    if (family == Family.MPICH) {
      // Its UCX would take the signal by which the virtual machine finds null pointers.
      setEnvironment("UCX_ERROR_SIGNALS", "");
    }
    try {
      return NativeCache.ofThisProcess()
          .load(
              "mpi-" + key + "-" + platform(),
              List.of(source),
              files -> new MpiLibrary(family, open(files.getFirst())));
    } catch (IOException failure) {
      throw new DistributedException(
          family.title() + " cannot be loaded: " + failure.getMessage(), failure);
    }
  }

  private static SymbolLookup open(Path file) throws IOException {
    try {
      return SymbolLookup.libraryLookup(file.toString(), Arena.global());
    } catch (IllegalArgumentException failure) {
      throw new IOException(
          file + " cannot be loaded: is the MPI that it was built with still installed?", failure);
    }
  }

  private static String platform() {
    String system = System.getProperty("os.name").startsWith("Linux") ? "linux" : "macosx";
    return switch (System.getProperty("os.arch")) {
      case "amd64", "x86_64" -> system + "-x86_64";
      default -> system + "-arm64";
    };
  }

  private static void setEnvironment(String name, String value) {
    MethodHandle setenv =
        function(
            LINKER.defaultLookup(),
            "setenv",
            FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS, JAVA_INT));
    try (Arena arena = Arena.ofConfined()) {
      call(setenv, arena.allocateFrom(name), arena.allocateFrom(value), 0);
    }
  }

  private static MethodHandle function(SymbolLookup in, String name, FunctionDescriptor type) {
    return LINKER.downcallHandle(
        in.find(name).orElseThrow(() -> new DistributedException("no function " + name)), type);
  }

  private static Object call(MethodHandle function, Object... arguments) {
    try {
      return function.invokeWithArguments(arguments);
    } catch (Throwable failure) {
      throw unchecked(failure);
    }
  }

  private static RuntimeException unchecked(Throwable failure) {
    if (failure instanceof Error error) {
      throw error;
    }
    return failure instanceof RuntimeException runtime
        ? runtime
        : new IllegalStateException(failure);
  }

  private static String text(MethodHandle function) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment text = arena.allocate(TEXT_BYTES);
      call(function, text, TEXT_BYTES);
      return text.getString(0);
    }
  }

  /** Name and version, such as "Open MPI 4.1.4" or "MPICH 4.0.2". */
  String title() {
    String first = text(library).lines().findFirst().orElse(family.title());
    return first.replaceFirst(",.*", "").replaceFirst("\\s+(?:v|Version:\\s*)", " ").strip();
  }

  /** What was wrong in the call before. */
  String error() {
    return text(error);
  }

  int start(MemorySegment rank, MemorySegment size) {
    return (int) call(start, rank, size);
  }

  int exchange(
      MemorySegment send,
      MemorySegment sendBytes,
      MemorySegment receive,
      MemorySegment receiveBytes,
      int tag,
      double seconds,
      MemorySegment missing) {
    try {
      return (int)
          exchange.invokeExact(send, sendBytes, receive, receiveBytes, tag, seconds, missing);
    } catch (Throwable failure) {
      throw unchecked(failure);
    }
  }

  int sum(MemorySegment values, long count, double seconds) {
    return (int) call(sum, values, count, seconds);
  }

  void abort(int status) {
    call(abort, status);
  }

  int finish() {
    return (int) call(finish);
  }
}
