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
  private volatile @Nullable Binding[] lanes = new Binding[0];

  private record Binding(MemorySegment arguments, long[] memories) {}

  /**
   * Compiles a primitive.
   *
   * @param descriptor primitive descriptor, owned by this object from now on
   * @param operands argument numbers in the order in which {@link #run} takes addresses
   */
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
    Binding binding = binding(stream.lane());
    long[] memories = binding.memories;
    int operands = memories.length - 1;
    library.setData(memories[0], a);
    library.setData(memories[1], b);
    if (operands > 2) {
      library.setData(memories[2], c);
    }
    if (operands > 3) {
      library.setData(memories[3], d);
    }
    library.setData(memories[operands], scratchpad);
    library.execute(primitive, stream.handle(), memories.length, binding.arguments.address());
  }

  private Binding binding(int lane) {
    Binding[] known = lanes;
    Binding binding = lane < known.length ? known[lane] : null;
    return binding != null ? binding : bind(lane);
  }

  private synchronized Binding bind(int lane) {
    long[] memories = new long[arguments.length];
    MemorySegment structs = arena.allocate(arguments.length * ARGUMENT_BYTES, 8);
    for (int i = 0; i < memories.length; i++) {
      memories[i] =
          library.create("dnnl_memory_create", memory(arguments[i]), library.engine(), NO_DATA);
      structs.set(JAVA_INT, i * ARGUMENT_BYTES, arguments[i]);
      structs.set(JAVA_LONG, i * ARGUMENT_BYTES + MEMORY_OFFSET, memories[i]);
    }
    Binding binding = new Binding(structs, memories);
    Binding[] grown = Arrays.copyOf(lanes, Math.max(lanes.length, lane + 1));
    grown[lane] = binding;
    lanes = grown;
    return binding;
  }

  /** Destroys it; no lane may be running it. Called once. */
  @Override
  public synchronized void close() {
    for (Binding binding : lanes) {
      if (binding != null) {
        for (long memory : binding.memories) {
          library.destroy("memory", memory);
        }
      }
    }
    lanes = new Binding[0];
    library.destroy("primitive", primitive);
    library.destroy("primitive_desc", descriptor);
    arena.close();
  }
}
