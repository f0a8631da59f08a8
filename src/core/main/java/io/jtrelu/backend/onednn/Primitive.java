package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * A oneDNN primitive with up to four operands. Each lane has argument objects of its own, made when
 * it first runs there, so that any number of lanes may run it at once.
 */
final class Primitive implements AutoCloseable {
  private static final long ARGUMENT_BYTES = 16; // struct { int argument; dnnl_memory_t memory; }
  private static final long MEMORY_OFFSET = 8;

  private static final long NO_DATA = 0; // a memory object gets its address at each run

  private final Dnnl library;
  private final Arena arena;
  private final long descriptor;
  private final long primitive;
  private final int[] arguments; // operands, then the scratchpad
  private final long scratchpadBytes;
  private volatile @Nullable MemorySegment[] lanes = new MemorySegment[0]; // each an array

  /**
   * Compiles a primitive.
   *
   * @param descriptor primitive descriptor, owned by this object from now on
   * @param operands argument numbers in the order in which {@link #run} takes addresses
   */
  @SuppressWarnings("MustBeClosedChecker") // this object owns the arena
  Primitive(Dnnl library, long descriptor, int... operands) {
    this.library = library;
    this.descriptor = descriptor;
    this.arguments = Arrays.copyOf(operands, operands.length + 1);
    this.arguments[operands.length] = dnnl.DNNL_ARG_SCRATCHPAD;
    try {
      this.primitive = library.create("dnnl_primitive_create", descriptor);
    } catch (RuntimeException failure) {
      library.destroy("primitive_desc", descriptor);
      throw failure;
    }
    this.scratchpadBytes = library.bytes(memory(dnnl.DNNL_ARG_SCRATCHPAD));
    this.arena = Arena.ofShared();
  }

  /** The primitive descriptor, for hints. */
  long descriptor() {
    return descriptor;
  }

  /** Memory descriptor of an operand; lives as long as this object. */
  long memory(int argument) {
    return library.argument(descriptor, argument);
  }

  /** Size of an operand in bytes. */
  long bytes(int argument) {
    return library.bytes(memory(argument));
  }

  /** Working memory that a run needs. */
  long scratchpadBytes() {
    return scratchpadBytes;
  }

  /** Name of oneDNN's implementation. */
  String implementation() {
    return library.implementation(descriptor);
  }

  /**
   * Runs on the calling thread.
   *
   * @param scratchpad address of at least {@link #scratchpadBytes}
   * @param a address of the first operand, and so on; those beyond the last are not read
   */
  void run(OneDnnStream stream, long scratchpad, long a, long b, long c, long d) {
    MemorySegment structs = structs(stream.lane());
    int count = arguments.length;
    setData(structs, 0, a);
    setData(structs, 1, b);
    if (count > 3) {
      setData(structs, 2, c);
    }
    if (count > 4) {
      setData(structs, 3, d);
    }
    setData(structs, count - 1, scratchpad);
    library.execute(primitive, stream.handle(), count, structs.address());
  }

  private void setData(MemorySegment structs, int index, long address) {
    library.setData(memoryOf(structs, index), address);
  }

  private static long memoryOf(MemorySegment structs, int index) {
    return structs.get(JAVA_LONG, index * ARGUMENT_BYTES + MEMORY_OFFSET);
  }

  private MemorySegment structs(int lane) {
    MemorySegment[] known = lanes;
    MemorySegment structs = lane < known.length ? known[lane] : null;
    return structs != null ? structs : bind(lane);
  }

  private synchronized MemorySegment bind(int lane) {
    MemorySegment structs = arena.allocate(arguments.length * ARGUMENT_BYTES, Long.BYTES);
    for (int i = 0; i < arguments.length; i++) {
      long memory =
          library.create("dnnl_memory_create", memory(arguments[i]), library.engine(), NO_DATA);
      structs.set(JAVA_INT, i * ARGUMENT_BYTES, arguments[i]);
      structs.set(JAVA_LONG, i * ARGUMENT_BYTES + MEMORY_OFFSET, memory);
    }
    MemorySegment[] grown = Arrays.copyOf(lanes, Math.max(lanes.length, lane + 1));
    grown[lane] = structs;
    lanes = grown;
    return structs;
  }

  /** Destroys it; no lane may be running it. Called once. */
  @Override
  public synchronized void close() {
    for (MemorySegment structs : lanes) {
      for (int i = 0; structs != null && i < arguments.length; i++) {
        library.destroy("memory", memoryOf(structs, i));
      }
    }
    lanes = new MemorySegment[0];
    library.destroy("primitive", primitive);
    library.destroy("primitive_desc", descriptor);
    arena.close();
  }
}
