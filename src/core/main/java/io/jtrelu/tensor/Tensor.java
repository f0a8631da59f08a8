package io.jtrelu.tensor;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;

/**
 * A dense row-major array on a device: shape, type and layout over a piece of a {@link Memory}
 * block.
 *
 * <p><b>Ownership.</b> A tensor made by {@link #allocate} or by a backend owns its memory: close
 * it. A {@linkplain #slice view} or a {@linkplain #wrap wrapped} tensor owns nothing: closing it
 * does nothing, and using it after its owner was closed throws {@link IllegalStateException}.
 *
 * <p><b>Threads.</b> The object is immutable; its elements are plain memory, ordered by whoever
 * shares it between threads.
 */
public final class Tensor implements AutoCloseable {
  private final Memory memory;
  private final long offset;
  private final Shape shape;
  private final DataType type;
  private final Layout layout;
  private final boolean owner;

  private Tensor(
      Memory memory, long offset, Shape shape, DataType type, Layout layout, boolean owner) {
    long bytes = byteSize(shape, type);
    if (offset < 0 || offset > memory.bytes() || bytes > memory.bytes() - offset) {
      throw new IllegalArgumentException(
          "a "
              + type
              + shape
              + " tensor needs "
              + bytes
              + " bytes at offset "
              + offset
              + "; the memory block has "
              + memory.bytes());
    }
    if (layout != Layout.ROW_MAJOR && shape.rank() != 4) {
      throw new IllegalArgumentException(layout + " needs four axes, got " + shape);
    }
    this.memory = memory;
    this.offset = offset;
    this.shape = shape;
    this.type = type;
    this.layout = layout;
    this.owner = owner;
  }

  /**
   * Bytes that a dense tensor takes.
   *
   * @throws IllegalArgumentException if the size passes 2^63 bytes
   */
  public static long byteSize(Shape shape, DataType type) {
    try {
      return Math.multiplyExact(shape.elements(), (long) type.bytes());
    } catch (ArithmeticException overflow) {
      throw new IllegalArgumentException(type + "" + shape + " is too large", overflow);
    }
  }

  /** Allocates a zeroed tensor in host memory, owned by the result. */
  public static Tensor allocate(Shape shape, DataType type, Layout layout) {
    return owning(HostMemory.allocate(byteSize(shape, type)), shape, type, layout);
  }

  /** A tensor over a whole block, which it owns from now on (for backends). */
  public static Tensor owning(Memory memory, Shape shape, DataType type, Layout layout) {
    return new Tensor(memory, 0, shape, type, layout, true);
  }

  /**
   * A view of a piece of a block, which stays its owner's (for planners that place many tensors in
   * one block).
   *
   * @param byteOffset where the first element lies in the block
   * @throws IllegalArgumentException if the tensor passes the end of the block
   */
  public static Tensor view(
      Memory memory, long byteOffset, Shape shape, DataType type, Layout layout) {
    return new Tensor(memory, byteOffset, shape, type, layout, false);
  }

  /**
   * Wraps direct memory of the caller without a copy. The caller keeps it alive and releases it;
   * see {@link HostMemory} for what it may be used for.
   *
   * @throws IllegalArgumentException if the segment is on the heap or smaller than the tensor
   */
  public static Tensor wrap(MemorySegment segment, Shape shape, DataType type, Layout layout) {
    return new Tensor(HostMemory.wrap(segment), 0, shape, type, layout, false);
  }

  /**
   * Wraps a direct buffer (from its position to its limit) without a copy. The elements are in the
   * machine's byte order, whatever the buffer's order says.
   *
   * @throws IllegalArgumentException if the buffer is not direct or smaller than the tensor
   */
  public static Tensor wrap(ByteBuffer buffer, Shape shape, DataType type, Layout layout) {
    return wrap(MemorySegment.ofBuffer(buffer), shape, type, layout);
  }

  /**
   * A view of consecutive elements under another shape. It owns nothing.
   *
   * @param firstElement index of the view's first element in this tensor
   * @param newShape shape of the view
   * @param newLayout meaning of its axes
   * @throws IllegalArgumentException if the view passes the end of this tensor
   */
  public Tensor slice(long firstElement, Shape newShape, Layout newLayout) {
    if (firstElement < 0 || newShape.elements() > shape.elements() - firstElement) {
      throw new IllegalArgumentException(
          "a view " + newShape + " at element " + firstElement + " does not fit into " + this);
    }
    return new Tensor(
        memory, offset + firstElement * type.bytes(), newShape, type, newLayout, false);
  }

  /** Shape. */
  public Shape shape() {
    return shape;
  }

  /** Storage type. */
  public DataType type() {
    return type;
  }

  /** Meaning of the axes. */
  public Layout layout() {
    return layout;
  }

  /** Where the elements lie. */
  public Device device() {
    return memory.device();
  }

  /** Size of the elements in bytes. */
  public long bytes() {
    return shape.elements() * type.bytes();
  }

  /**
   * Native address of the first element, in the device's address space.
   *
   * @throws IllegalStateException after the owner was closed
   */
  public long address() {
    return memory.address() + offset;
  }

  /** The memory block that this tensor looks at (for backends). */
  public Memory memory() {
    return memory;
  }

  /**
   * The elements as host memory, without a copy.
   *
   * @throws IllegalStateException after the owner was closed, or for a tensor on another device
   *     (copy it to a host tensor first)
   */
  public MemorySegment segment() {
    return memory.segment().asSlice(offset, bytes());
  }

  /**
   * Copies values in, rounding to this tensor's type (to nearest even for 16-bit floats).
   *
   * @return this tensor
   * @throws IllegalArgumentException if the count differs from the tensor's
   * @throws IllegalStateException if this is not a host tensor or it is closed
   */
  public Tensor set(float... values) {
    if (values.length != shape.elements()) {
      throw new IllegalArgumentException(
          values.length + " values for " + this + " of " + shape.elements() + " elements");
    }
    MemorySegment segment = segment();
    if (type == DataType.F32) {
      MemorySegment.copy(values, 0, segment, JAVA_FLOAT_UNALIGNED, 0, values.length);
    } else {
      for (int i = 0; i < values.length; i++) {
        put(segment, i, values[i]);
      }
    }
    return this;
  }

  /**
   * Copies all elements out, widened to float (exact but for I32 beyond 2^24).
   *
   * @throws IllegalStateException if this is not a host tensor or it is closed
   */
  public float[] toFloatArray() {
    MemorySegment segment = segment();
    float[] values = new float[Math.toIntExact(shape.elements())];
    if (type == DataType.F32) {
      MemorySegment.copy(segment, JAVA_FLOAT_UNALIGNED, 0, values, 0, values.length);
    } else {
      for (int i = 0; i < values.length; i++) {
        values[i] = get(segment, i);
      }
    }
    return values;
  }

  /**
   * One element by its row-major index, widened to float. For looking, not for loops: each call
   * checks the owner.
   *
   * @throws IndexOutOfBoundsException if there is no such element
   * @throws IllegalStateException if this is not a host tensor or it is closed
   */
  public float get(long index) {
    return get(segmentOf(index), index);
  }

  /**
   * Sets one element by its row-major index, rounded to this tensor's type.
   *
   * @throws IndexOutOfBoundsException if there is no such element
   * @throws IllegalStateException if this is not a host tensor or it is closed
   */
  public void put(long index, float value) {
    put(segmentOf(index), index, value);
  }

  private MemorySegment segmentOf(long index) {
    MemorySegment segment = segment();
    if (index < 0 || index >= shape.elements()) {
      throw new IndexOutOfBoundsException(
          "there is no element " + index + " in " + this + ", which has " + shape.elements());
    }
    return segment;
  }

  private float get(MemorySegment segment, long index) {
    return switch (type) {
      case F32 -> segment.getAtIndex(JAVA_FLOAT_UNALIGNED, index);
      case BF16 -> Bfloat16.toFloat(segment.getAtIndex(JAVA_SHORT_UNALIGNED, index));
      case F16 -> Float.float16ToFloat(segment.getAtIndex(JAVA_SHORT_UNALIGNED, index));
      case I32 -> segment.getAtIndex(JAVA_INT_UNALIGNED, index);
      case U8 -> segment.get(JAVA_BYTE, index) & 0xff;
    };
  }

  private void put(MemorySegment segment, long index, float value) {
    switch (type) {
      case F32 -> segment.setAtIndex(JAVA_FLOAT_UNALIGNED, index, value);
      case BF16 -> segment.setAtIndex(JAVA_SHORT_UNALIGNED, index, Bfloat16.fromFloat(value));
      case F16 -> segment.setAtIndex(JAVA_SHORT_UNALIGNED, index, Float.floatToFloat16(value));
      case I32 -> segment.setAtIndex(JAVA_INT_UNALIGNED, index, (int) value);
      case U8 -> segment.set(JAVA_BYTE, index, (byte) (int) value);
    }
  }

  /**
   * Closes the memory if this tensor owns it; otherwise does nothing. Idempotent.
   *
   * @throws IllegalStateException if an operation or a recording uses the memory; it stays open
   */
  @Override
  public void close() {
    if (owner) {
      memory.close();
    }
  }

  @Override
  public String toString() {
    return type + "" + shape + " " + layout + " on " + device();
  }
}
