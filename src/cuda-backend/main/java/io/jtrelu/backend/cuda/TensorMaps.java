package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;
import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.tensor.DataType;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Tensor maps, by which Hopper's bulk copies (TMA) find boxes of a tensor: cuTensorMapEncodeTiled
 * and cuTensorMapEncodeIm2col of the driver, which JCuda does not bind. Rows of a box have 128
 * bytes and are swizzled by as many; what lies outside of the tensor is read as zero.
 */
final class TensorMaps {
  /** Size of a map. */
  static final int BYTES = 128;

  private static final long ALIGNMENT = 64;
  private static final int SWIZZLE_128B = 3;
  private static final int PROMOTION_256B = 3; // of what L2 fetches

  private static final Optional<MethodHandle> TILED =
      function(
          "cuTensorMapEncodeTiled",
          FunctionDescriptor.of(
              JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
              JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));
  private static final Optional<MethodHandle> IM2COL =
      function(
          "cuTensorMapEncodeIm2col",
          FunctionDescriptor.of(
              JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
              JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));

  private static final AtomicLong ENCODED = new AtomicLong();

  private TensorMaps() {}

  /** How many this process has encoded. */
  static long encoded() {
    return ENCODED.get();
  }

  private static Optional<MethodHandle> function(String name, FunctionDescriptor type) {
    return SymbolLookup.loaderLookup()
        .find(name)
        .map(symbol -> Linker.nativeLinker().downcallHandle(symbol, type));
  }

  /** Whether the driver that is loaded can encode them: since CUDA 12. */
  static boolean available() {
    return TILED.isPresent() && IM2COL.isPresent();
  }

  private static int code(DataType type) {
    return switch (type) {
      case F16 -> 6;
      case BF16 -> 9;
      default -> throw new IllegalArgumentException("no rows of 64 elements of " + type);
    };
  }

  private static MemorySegment ints(Arena arena, int... values) {
    return arena.allocateFrom(JAVA_INT, values);
  }

  private static MemorySegment longs(Arena arena, long... values) {
    return arena.allocateFrom(JAVA_LONG, values);
  }

  private static int call(Optional<MethodHandle> function, Object... arguments) {
    try {
      return (int) function.orElseThrow().invokeWithArguments(arguments);
    } catch (RuntimeException | Error failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible); // C throws nothing
    }
  }

  /**
   * Boxes of 64 columns of one of several dense matrices whose rows lie side by side.
   *
   * @param arena keeps the map
   * @param address of the first element, a multiple of 16
   * @param matrices how many, one after the other in each row
   * @param columns of each, a multiple of 8
   * @param boxRows at most 256
   */
  static MemorySegment tiled(
      Arena arena,
      DataType type,
      long address,
      long rows,
      long matrices,
      long columns,
      int boxRows) {
    MemorySegment map = arena.allocate(BYTES, ALIGNMENT);
    ENCODED.incrementAndGet();
    try (Arena call = Arena.ofConfined()) {
      int result =
          call(
              TILED,
              map,
              code(type),
              3,
              address,
              longs(call, columns, matrices, rows),
              longs(call, columns * type.bytes(), matrices * columns * type.bytes()),
              ints(call, 64, 1, boxRows),
              ints(call, 1, 1, 1),
              0,
              SWIZZLE_128B,
              PROMOTION_256B,
              0);
      check(result, "cuTensorMapEncodeTiled of " + rows + " x " + matrices + " x " + columns);
    }
    return map;
  }

  /**
   * What a filter's tap sees of an NHWC tensor, 64 channels of so many places of the filter: they
   * are walked through along the row, by the strides, from the corners of the filter's first places
   * to those of its last ones.
   *
   * @param arena keeps the map
   * @param address of its first element, a multiple of 16
   * @param first where the filter's corner begins, H and W
   * @param last where it ends, H and W
   * @param pixels places in a box, at most 1024
   */
  static MemorySegment im2col(
      Arena arena,
      DataType type,
      long address,
      int[] nhwc,
      int[] first,
      int[] last,
      int[] strides,
      int pixels) {
    MemorySegment map = arena.allocate(BYTES, ALIGNMENT);
    ENCODED.incrementAndGet();
    long n = nhwc[0];
    long h = nhwc[1];
    long w = nhwc[2];
    long c = nhwc[3];
    long pixel = c * type.bytes();
    try (Arena call = Arena.ofConfined()) {
      int result =
          call(
              IM2COL,
              map,
              code(type),
              4,
              address,
              longs(call, c, w, h, n),
              longs(call, pixel, pixel * w, pixel * w * h),
              ints(call, first[1], first[0]), // W H, whatever cuda.h says of D H W
              ints(call, last[1] - nhwc[2] + 1, last[0] - nhwc[1] + 1), // from the far edge
              64,
              pixels,
              ints(call, 1, strides[1], strides[0], 1),
              0,
              SWIZZLE_128B,
              PROMOTION_256B,
              0);
      check(result, "cuTensorMapEncodeIm2col of " + n + " x " + h + " x " + w + " x " + c);
    }
    return map;
  }
}
