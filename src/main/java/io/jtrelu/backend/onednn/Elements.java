package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.tensor.DataType;
import java.lang.foreign.MemorySegment;

/**
 * Elements between native memory and float arrays. Loops work on chunks that stay in the first
 * level cache: arithmetic is written once, in float, on arrays, which the compiler vectorises.
 */
final class Elements {
  /** Elements in a chunk; three of them fit into the first level cache. */
  static final int CHUNK = 2048;

  // Operations have checked their tensors; an address needs no segment object of its own.
  private static final MemorySegment MEMORY = MemorySegment.NULL.reinterpret(Long.MAX_VALUE);

  private Elements() {}

  /** Reads elements, widened to float. */
  static void load(DataType type, long address, float[] to, int count) {
    switch (type) {
      case F32 -> MemorySegment.copy(MEMORY, JAVA_FLOAT_UNALIGNED, address, to, 0, count);
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          to[i] =
              Float.intBitsToFloat(MEMORY.get(JAVA_SHORT_UNALIGNED, address + 2L * i) << 16);
        }
      }
      case F16 -> {
        for (int i = 0; i < count; i++) {
          to[i] = Float.float16ToFloat(MEMORY.get(JAVA_SHORT_UNALIGNED, address + 2L * i));
        }
      }
      default -> throw new IllegalArgumentException(type + " is not a floating type");
    }
  }

  /** Writes elements, rounded to nearest even. */
  static void store(DataType type, float[] from, long address, int count) {
    switch (type) {
      case F32 -> MemorySegment.copy(from, 0, MEMORY, JAVA_FLOAT_UNALIGNED, address, count);
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          int bits = Float.floatToRawIntBits(from[i]);
          int nan = (0x7f800000 - (bits & 0x7fffffff)) >> 31; // all ones for a NaN
          int rounded = bits + 0x7fff + ((bits >>> 16) & 1);
          int quiet = bits | 0x400000;
          MEMORY.set(
              JAVA_SHORT_UNALIGNED,
              address + 2L * i,
              (short) (((rounded & ~nan) | (quiet & nan)) >> 16));
        }
      }
      case F16 -> {
        for (int i = 0; i < count; i++) {
          MEMORY.set(JAVA_SHORT_UNALIGNED, address + 2L * i, Float.floatToFloat16(from[i]));
        }
      }
      default -> throw new IllegalArgumentException(type + " is not a floating type");
    }
  }

  /** Zeroes memory. */
  static void zero(long address, long bytes) {
    MEMORY.asSlice(address, bytes).fill((byte) 0);
  }

  /** Copies bytes. */
  static void copy(long from, long to, long bytes) {
    MemorySegment.copy(MEMORY, from, MEMORY, to, bytes);
  }

  /** One float. */
  static float get(long address) {
    return MEMORY.get(JAVA_FLOAT_UNALIGNED, address);
  }

  /** Sets one float. */
  static void put(long address, float value) {
    MEMORY.set(JAVA_FLOAT_UNALIGNED, address, value);
  }

  /** x = phi(x). */
  static void rectify(Rectifier phi, float[] x, int count) {
    if (phi.isIdentity()) {
      return;
    }
    float scale = phi.scale();
    float slope = phi.slope();
    for (int i = 0; i < count; i++) {
      x[i] = scale * (Math.max(x[i], 0) + slope * Math.min(x[i], 0));
    }
  }

  /** diff = diff * phi'(y), with y = phi(x). */
  static void differentiate(Rectifier phi, float[] y, float[] diff, int count) {
    if (phi.isIdentity()) {
      return;
    }
    int positive = Float.floatToRawIntBits(phi.scale());
    int negative = Float.floatToRawIntBits(phi.scale() * phi.slope());
    for (int i = 0; i < count; i++) {
      int bits = Float.floatToRawIntBits(y[i]);
      int mask = ((bits - 1) | bits) >> 31; // all ones where y <= 0; a branch would mispredict
      diff[i] *= Float.intBitsToFloat((negative & mask) | (positive & ~mask));
    }
  }
}
