package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import jcuda.Pointer;

/**
 * The one parameter block of a kernel, packed as the C struct of the same field order: each field
 * at the next multiple of its size. Reused for every launch of a stream; a launch copies it.
 */
final class Arguments {
  private static final long CAPACITY = 4096; // what any architecture takes

  private final MemorySegment block;
  private final Pointer kernelParameters;
  private final MemorySegment nativeParameters;
  private long size;
  private long alignment;

  /**
   * @param arena keeps the native memory
   */
  Arguments(Arena arena) {
    block = arena.allocate(CAPACITY, 16);
    MemorySegment pointers = arena.allocate(ValueLayout.ADDRESS);
    pointers.set(ValueLayout.ADDRESS, 0, block);
    kernelParameters = Driver.host(pointers.address());
    nativeParameters = pointers;
  }

  /** Starts a new block. */
  Arguments begin() {
    size = 0;
    alignment = 1;
    return this;
  }

  /** A pointer to a tensor's first element. */
  Arguments pointer(Tensor tensor) {
    return i64(tensor.address());
  }

  /** A pointer, or null where address is 0. */
  Arguments pointer(long address) {
    return i64(address);
  }

  /** A 64-bit integer. */
  Arguments i64(long value) {
    block.set(ValueLayout.JAVA_LONG, take(8), value);
    return this;
  }

  /** A 32-bit integer. */
  Arguments i32(int value) {
    block.set(ValueLayout.JAVA_INT, take(4), value);
    return this;
  }

  /** A flag, as a 32-bit integer. */
  Arguments flag(boolean value) {
    return i32(value ? 1 : 0);
  }

  /** A 32-bit float. */
  Arguments f32(float value) {
    block.set(ValueLayout.JAVA_FLOAT, take(4), value);
    return this;
  }

  /** A 64-bit float. */
  Arguments f64(double value) {
    block.set(ValueLayout.JAVA_DOUBLE, take(8), value);
    return this;
  }

  /** The struct TensorMap of ptx_sm90.cuh, aligned to 64 bytes. */
  Arguments tensorMap(MemorySegment map) {
    size = align(size, 64);
    MemorySegment.copy(map, 0, block, size, TensorMaps.BYTES);
    size += TensorMaps.BYTES;
    alignment = Math.max(alignment, 64);
    return this;
  }

  /** The struct Rectifier of storage.cuh. */
  Arguments rectifier(Rectifier rectifier) {
    return f32(rectifier.slope()).f32(rectifier.scale());
  }

  /** Bytes that the kernel does not read. */
  Arguments skip(int bytes) {
    block.asSlice(size, bytes).fill((byte) 0);
    size += bytes;
    return this;
  }

  private long take(int bytes) {
    long offset = align(size, bytes);
    size = offset + bytes;
    alignment = Math.max(alignment, bytes);
    return offset;
  }

  private static long align(long offset, long unit) {
    return (offset + unit - 1) & -unit;
  }

  /** Size of the struct, padding included. */
  long bytes() {
    return align(size, alignment);
  }

  /** As {@link #kernelParameters}, where JCuda is not asked. */
  MemorySegment nativeParameters() {
    return nativeParameters;
  }

  /** What cuLaunchKernel takes: a native array of one pointer. */
  Pointer kernelParameters() {
    return kernelParameters;
  }
}
