package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.UnsupportedException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import org.bytedeco.dnnl.global.dnnl;

/**
 * oneDNN's C API through the JDK's foreign-function interface.
 *
 * <p>Native pointers are longs: on every 64-bit ABI they travel in the same registers, and a long
 * is never garbage. Constants come from {@code org.bytedeco.dnnl.global.dnnl}, whose literals the
 * compiler inlines, so that its native loader never runs. Functions for preparing are called by
 * name with boxed arguments; the few that run in a step have handles of their own.
 *
 * <p>oneDNN runs, and while preparing plans, for as many threads as OpenMP has for the calling
 * thread; here that is one, since parallelism is between lanes. Other libraries in the process
 * share the OpenMP runtime, so each call sets the count and puts back what it was: some
 * nanoseconds.
 */
final class Dnnl implements AutoCloseable {
  private static final Linker LINKER = Linker.nativeLinker();
  private static final MethodHandle EXECUTE =
      LINKER.downcallHandle(
          FunctionDescriptor.of(JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG));
  private static final MethodHandle SET_DATA =
      LINKER.downcallHandle(
          FunctionDescriptor.of(JAVA_INT, JAVA_LONG, JAVA_LONG), Linker.Option.critical(false));
  private static final MethodHandle GET_THREADS =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_INT), Linker.Option.critical(false));
  private static final MethodHandle SET_THREADS =
      LINKER.downcallHandle(FunctionDescriptor.ofVoid(JAVA_INT), Linker.Option.critical(false));
  private static final MethodHandle SGEMM =
      LINKER.downcallHandle(
          FunctionDescriptor.of(
              JAVA_INT,
              JAVA_BYTE,
              JAVA_BYTE,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_LONG));

  private final SymbolLookup library;
  private final MemorySegment execute;
  private final MemorySegment setData;
  private final MemorySegment sgemm;
  private final MemorySegment getThreads; // both NULL where the OpenMP runtime is not found
  private final MemorySegment setThreads;
  private final long engine;
  private final AtomicLong live = new AtomicLong();

  /**
   * Binds a library that is on disk.
   *
   * @param files the last is oneDNN, the others what it stands on
   * @throws IOException if it cannot be loaded
   * @throws UnsupportedException if it is not the version this was built for
   */
  Dnnl(List<Path> files) throws IOException {
    Path path = files.getLast();
    this.library = open(files);
    this.execute = symbol("dnnl_primitive_execute");
    this.setData = symbol("dnnl_memory_set_data_handle");
    this.sgemm = symbol("dnnl_sgemm");
    Optional<MemorySegment> get = openMp("omp_get_max_threads");
    Optional<MemorySegment> set = openMp("omp_set_num_threads");
    boolean both = get.isPresent() && set.isPresent();
    this.getThreads = both ? get.get() : MemorySegment.NULL;
    this.setThreads = both ? set.get() : MemorySegment.NULL;
    int[] version = versionNumbers();
    if (version[0] != dnnl.DNNL_VERSION_MAJOR || version[1] != dnnl.DNNL_VERSION_MINOR) {
      throw new UnsupportedException(
          path
              + " is oneDNN "
              + version()
              + ", this program was built for "
              + dnnl.DNNL_VERSION_MAJOR
              + "."
              + dnnl.DNNL_VERSION_MINOR
              + ": use the org.bytedeco:dnnl jars of one version");
    }
    this.engine = create("dnnl_engine_create", dnnl.dnnl_cpu, 0L);
  }

  /**
   * By itself oneDNN finds what lies beside it, unless the process has it already: an OpenMP of
   * someone else's is then shared. Files in memory lie beside nothing and are loaded one by one.
   */
  private static SymbolLookup open(List<Path> files) throws IOException {
    String last = files.getLast().toString();
    try {
      return SymbolLookup.libraryLookup(last, Arena.global());
    } catch (IllegalArgumentException alone) {
      try {
        for (Path file : files) {
          SymbolLookup.libraryLookup(file.toString(), Arena.global());
        }
        return SymbolLookup.libraryLookup(last, Arena.global());
      } catch (IllegalArgumentException failure) {
        failure.addSuppressed(alone);
        throw new IOException(
            last
                + " cannot be loaded: execution is not allowed there, or a library that it needs is"
                + " missing (ldd lists them)",
            failure);
      }
    }
  }

  /** The CPU. */
  long engine() {
    return engine;
  }

  /** Destroys the engine; the library itself stays loaded, as OpenMP cannot be unloaded. */
  @Override
  public void close() {
    destroy("engine", engine);
  }

  private MemorySegment symbol(String name) {
    return library
        .find(name)
        .orElseThrow(() -> new UnsupportedException("oneDNN has no function " + name));
  }

  // Unix finds a symbol in what the library itself is linked to: the very runtime it will use.
  private Optional<MemorySegment> openMp(String name) {
    Optional<MemorySegment> found = library.find(name);
    if (found.isPresent() || !System.getProperty("os.name").startsWith("Windows")) {
      return found;
    }
    try {
      return SymbolLookup.libraryLookup("vcomp140.dll", Arena.global()).find(name);
    } catch (IllegalArgumentException absent) {
      return Optional.empty();
    }
  }

  /** The library's version, such as 3.11.0. */
  String version() {
    int[] version = versionNumbers();
    return version[0] + "." + version[1] + "." + version[2];
  }

  private int[] versionNumbers() {
    long struct = (long) invoke("dnnl_version", JAVA_LONG);
    MemorySegment numbers = MemorySegment.ofAddress(struct).reinterpret(12);
    return numbers.toArray(JAVA_INT);
  }

  /** The instruction set that oneDNN generates code for, such as avx512_core_bf16 or sve_256. */
  String instructionSet() {
    String machine = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
    return instructionSet((int) invoke("dnnl_get_effective_cpu_isa", JAVA_INT), machine);
  }

  /** On arm64 oneDNN uses numbers again that its header gives to sets of x86. */
  static String instructionSet(int number, String machine) {
    if (machine.equals("aarch64")) {
      return switch (number) {
        case 0x1 -> "asimd";
        case 0x3 -> "sve_128";
        case 0x7 -> "sve_256";
        case 0x27 -> "sve_512";
        default -> machine;
      };
    }
    return switch (number) {
      case dnnl.dnnl_cpu_isa_sse41 -> "sse41";
      case dnnl.dnnl_cpu_isa_avx -> "avx";
      case dnnl.dnnl_cpu_isa_avx2 -> "avx2";
      case dnnl.dnnl_cpu_isa_avx2_vnni -> "avx2_vnni";
      case dnnl.dnnl_cpu_isa_avx2_vnni_2 -> "avx2_vnni_2";
      case dnnl.dnnl_cpu_isa_avx512_core -> "avx512_core";
      case dnnl.dnnl_cpu_isa_avx512_core_vnni -> "avx512_core_vnni";
      case dnnl.dnnl_cpu_isa_avx512_core_bf16 -> "avx512_core_bf16";
      case dnnl.dnnl_cpu_isa_avx512_core_fp16 -> "avx512_core_fp16";
      case dnnl.dnnl_cpu_isa_avx512_core_amx -> "avx512_core_amx";
      case dnnl.dnnl_cpu_isa_avx512_core_amx_fp16 -> "avx512_core_amx_fp16";
      default -> machine;
    };
  }

  /** Whether oneDNN's own threads can be kept out. */
  boolean controlsThreads() {
    return setThreads.address() != 0;
  }

  /** Objects made and not yet destroyed: a leak shows here. */
  long liveObjects() {
    return live.get();
  }

  /**
   * Calls a function that returns a status.
   *
   * @param arguments Integer, Long (also for pointers), Float, or long[] (passed as a pointer)
   * @throws DnnlException if the status is not success
   */
  void call(String function, Object... arguments) {
    int status = (int) invoke(function, JAVA_INT, arguments);
    if (status != dnnl.dnnl_success) {
      throw new DnnlException(function, status);
    }
  }

  /** Calls a function whose first parameter receives a new object, and returns that object. */
  long create(String function, Object... arguments) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment out = arena.allocate(JAVA_LONG);
      Object[] all = new Object[arguments.length + 1];
      all[0] = out.address();
      System.arraycopy(arguments, 0, all, 1, arguments.length);
      call(function, all);
      live.incrementAndGet();
      return out.get(JAVA_LONG, 0);
    }
  }

  /** Destroys an object; the function's name follows from what it is. */
  void destroy(String kind, long object) {
    call("dnnl_" + kind + "_destroy", object);
    live.decrementAndGet();
  }

  /** Memory descriptor of an argument, owned by the primitive descriptor. */
  long argument(long primitiveDescriptor, int argument) {
    return (long)
        invoke(
            "dnnl_primitive_desc_query_md",
            JAVA_LONG,
            primitiveDescriptor,
            dnnl.dnnl_query_exec_arg_md,
            argument);
  }

  /** Size of a memory descriptor's elements with padding, in bytes. */
  long bytes(long memoryDescriptor) {
    return (long) invoke("dnnl_memory_desc_get_size", JAVA_LONG, memoryDescriptor);
  }

  /** Whether two memory descriptors are the same. */
  boolean equal(long a, long b) {
    return (int) invoke("dnnl_memory_desc_equal", JAVA_INT, a, b) != 0;
  }

  /** The serialised form of a memory descriptor, for comparing after it is gone. */
  ByteBuffer blob(long memoryDescriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment size = arena.allocate(JAVA_LONG);
      call("dnnl_memory_desc_get_blob", 0L, size.address(), memoryDescriptor);
      MemorySegment blob = arena.allocate(size.get(JAVA_LONG, 0));
      call("dnnl_memory_desc_get_blob", blob.address(), size.address(), memoryDescriptor);
      return ByteBuffer.wrap(blob.toArray(JAVA_BYTE));
    }
  }

  /** Name of the implementation behind a primitive descriptor. */
  String implementation(long primitiveDescriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment out = arena.allocate(JAVA_LONG);
      call(
          "dnnl_primitive_desc_query",
          primitiveDescriptor,
          dnnl.dnnl_query_impl_info_str,
          0,
          out.address());
      return MemorySegment.ofAddress(out.get(JAVA_LONG, 0)).reinterpret(256).getString(0);
    }
  }

  /** Moves a primitive descriptor on to an implementation that does not use batch-reduce GEMM. */
  void avoidBatchReduceGemm(long primitiveDescriptor) {
    String name = implementation(primitiveDescriptor);
    while (name.contains("brg")) {
      call("dnnl_primitive_desc_next_impl", primitiveDescriptor);
      name = implementation(primitiveDescriptor);
    }
  }

  private Object invoke(String function, ValueLayout result, Object... arguments) {
    try (Arena arena = Arena.ofConfined()) {
      Object[] values = arguments.clone();
      MemoryLayout[] layouts = new MemoryLayout[values.length];
      for (int i = 0; i < values.length; i++) {
        if (values[i] instanceof long[] array) {
          values[i] = arena.allocateFrom(JAVA_LONG, array).address();
        }
        layouts[i] =
            switch (values[i]) {
              case Integer ignored -> JAVA_INT;
              case Float ignored -> JAVA_FLOAT;
              case Long ignored -> JAVA_LONG;
              default -> throw new IllegalArgumentException(Arrays.toString(arguments));
            };
      }
      MethodHandle handle =
          LINKER.downcallHandle(symbol(function), FunctionDescriptor.of(result, layouts));
      int threads = useOneThread();
      try {
        return handle.invokeWithArguments(values);
      } finally {
        restoreThreads(threads);
      }
    } catch (RuntimeException | Error failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Makes oneDNN run on the calling thread only (OpenMP keeps the count per calling thread).
   *
   * @return the count before, for {@link #restoreThreads}
   */
  private int useOneThread() {
    if (setThreads.address() == 0) {
      return 1;
    }
    try {
      int before = (int) GET_THREADS.invokeExact(getThreads);
      if (before != 1) {
        SET_THREADS.invokeExact(setThreads, 1);
      }
      return before;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  private void restoreThreads(int before) {
    if (before != 1) {
      try {
        SET_THREADS.invokeExact(setThreads, before);
      } catch (Throwable impossible) {
        throw new AssertionError(impossible);
      }
    }
  }

  /** Points a memory object at its elements. */
  void setData(long memory, long address) {
    int status;
    try {
      status = (int) SET_DATA.invokeExact(setData, memory, address);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
    if (status != dnnl.dnnl_success) {
      throw new DnnlException("dnnl_memory_set_data_handle", status);
    }
  }

  /** Runs a primitive on the calling thread. */
  void execute(long primitive, long stream, int count, long arguments) {
    int threads = useOneThread();
    int status;
    try {
      status = (int) EXECUTE.invokeExact(execute, primitive, stream, count, arguments);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    } finally {
      restoreThreads(threads);
    }
    if (status != dnnl.dnnl_success) {
      throw new DnnlException("dnnl_primitive_execute", status);
    }
  }

  /**
   * C = alpha * op(A) op(B) + beta * C on row-major matrices, on the calling thread.
   *
   * @param m rows of C
   * @param n columns of C
   * @param k inner extent
   */
  void sgemm(
      boolean transposeA,
      boolean transposeB,
      long m,
      long n,
      long k,
      float alpha,
      long a,
      long lda,
      long b,
      long ldb,
      float beta,
      long c,
      long ldc) {
    int threads = useOneThread();
    int status;
    try {
      status =
          (int)
              SGEMM.invokeExact(
                  sgemm,
                  (byte) (transposeA ? 'T' : 'N'),
                  (byte) (transposeB ? 'T' : 'N'),
                  m,
                  n,
                  k,
                  alpha,
                  a,
                  lda,
                  b,
                  ldb,
                  beta,
                  c,
                  ldc);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    } finally {
      restoreThreads(threads);
    }
    if (status != dnnl.dnnl_success) {
      throw new DnnlException("dnnl_sgemm", status);
    }
  }

  /** Objects that are needed only while something is prepared. */
  final class Scope implements AutoCloseable {
    private record Owned(String kind, long object) {}

    private final Deque<Owned> owned = new ArrayDeque<>();

    /** The library that it makes objects of. */
    Dnnl library() {
      return Dnnl.this;
    }

    /** Makes an object that is destroyed with the scope. */
    long create(String kind, String function, Object... arguments) {
      long object = Dnnl.this.create(function, arguments);
      owned.push(new Owned(kind, object));
      return object;
    }

    /** A memory descriptor of a format tag. */
    long memory(int type, int tag, long... dims) {
      return create(
          "memory_desc", "dnnl_memory_desc_create_with_tag", dims.length, dims, type, tag);
    }

    /** Attributes with the scratchpad supplied by the caller. */
    long attributes() {
      long attributes = create("primitive_attr", "dnnl_primitive_attr_create");
      call("dnnl_primitive_attr_set_scratchpad_mode", attributes, dnnl.dnnl_scratchpad_mode_user);
      return attributes;
    }

    /** Makes what attributes belong to add to its destination. */
    void addSum(long attributes) {
      long operations = postOperations();
      call("dnnl_post_ops_append_sum", operations, 1f, 0, dnnl.dnnl_data_type_undef);
      call("dnnl_primitive_attr_set_post_ops", attributes, operations);
    }

    /** An empty list of post-operations. */
    long postOperations() {
      return create("post_ops", "dnnl_post_ops_create");
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        Owned next = owned.pop();
        destroy(next.kind, next.object);
      }
    }
  }
}
