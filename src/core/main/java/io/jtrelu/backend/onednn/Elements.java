package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Bfloat16;
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
          to[i] = Float.intBitsToFloat(MEMORY.get(JAVA_SHORT_UNALIGNED, address + 2L * i) << 16);
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

  /** One byte, unsigned. */
  static int getByte(long address) {
    return MEMORY.get(JAVA_BYTE, address) & 0xff;
  }

  /** Sets one byte. */
  static void putByte(long address, int value) {
    MEMORY.set(JAVA_BYTE, address, (byte) value);
  }

  /** One integer. */
  static int getInt(long address) {
    return MEMORY.get(JAVA_INT_UNALIGNED, address);
  }

  /** Sets one integer. */
  static void putInt(long address, int value) {
    MEMORY.set(JAVA_INT_UNALIGNED, address, value);
  }

  /** Sets one long integer. */
  static void putLong(long address, long value) {
    MEMORY.set(JAVA_LONG_UNALIGNED, address, value);
  }

  /** Zeroes memory. */
  static void zero(long address, long bytes) {
    MEMORY.asSlice(address, bytes).fill((byte) 0);
  }

  /** Sets elements of any type. */
  static void fill(DataType type, long address, long elements, float value) {
    switch (type) {
      case F32 -> {
        for (long i = 0; i < elements; i++) {
          MEMORY.set(JAVA_FLOAT_UNALIGNED, address + 4 * i, value);
        }
      }
      case BF16 -> fill(address, elements, Bfloat16.fromFloat(value));
      case F16 -> fill(address, elements, Float.floatToFloat16(value));
      case I32 -> {
        for (long i = 0; i < elements; i++) {
          MEMORY.set(JAVA_INT_UNALIGNED, address + 4 * i, (int) value);
        }
      }
      case U8 -> MEMORY.asSlice(address, elements).fill((byte) (int) value);
    }
  }

  private static void fill(long address, long elements, short bits) {
    for (long i = 0; i < elements; i++) {
      MEMORY.set(JAVA_SHORT_UNALIGNED, address + 2 * i, bits);
    }
  }

  /** Copies bytes. */
  static void copy(long from, long to, long bytes) {
    MemorySegment.copy(MEMORY, from, MEMORY, to, bytes);
  }

  /**
   * Transposes a matrix of elements of 1, 2 or 4 bytes: to[c][r] = from[r][c].
   *
   * @param fromPitch elements between rows of what is read
   * @param toPitch elements between rows of what is written
   * @param rows of what is read
   * @param cols of what is read
   */
  static void transpose(
      int bytes, long from, long fromPitch, long to, long toPitch, int rows, int cols) {
    // The inner loop runs along the longer side: an image has few channels.
    boolean down = rows >= cols;
    int outer = down ? cols : rows;
    int inner = down ? rows : cols;
    long rowStep = fromPitch * bytes;
    long columnStep = toPitch * bytes;
    long readStep = down ? rowStep : bytes;
    long writeStep = down ? bytes : columnStep;
    for (int o = 0; o < outer; o++) {
      long read = from + o * (down ? bytes : rowStep);
      long written = to + o * (down ? columnStep : bytes);
      switch (bytes) {
        case 1 -> {
          for (int i = 0; i < inner; i++) {
            MEMORY.set(
                JAVA_BYTE, written + i * writeStep, MEMORY.get(JAVA_BYTE, read + i * readStep));
          }
        }
        case 2 -> {
          for (int i = 0; i < inner; i++) {
            short bits = MEMORY.get(JAVA_SHORT_UNALIGNED, read + i * readStep);
            MEMORY.set(JAVA_SHORT_UNALIGNED, written + i * writeStep, bits);
          }
        }
        default -> {
          for (int i = 0; i < inner; i++) {
            int bits = MEMORY.get(JAVA_INT_UNALIGNED, read + i * readStep);
            MEMORY.set(JAVA_INT_UNALIGNED, written + i * writeStep, bits);
          }
        }
      }
    }
  }

  /** One float. */
  static float get(long address) {
    return MEMORY.get(JAVA_FLOAT_UNALIGNED, address);
  }

  /** Sets one float. */
  static void put(long address, float value) {
    MEMORY.set(JAVA_FLOAT_UNALIGNED, address, value);
  }

  /** x = factor * x. */
  static void scale(float factor, float[] x, int count) {
    for (int i = 0; i < count; i++) {
      x[i] *= factor;
    }
  }

  /** x = phi(x). */
  static void rectify(Rectifier phi, float[] x, int count) {
    if (phi.isIdentity()) {
      return;
    }
    float scale = phi.scale();
    float slope = phi.slope();
    if (slope == 0) { // apart, as 0 * infinity is not 0
      for (int i = 0; i < count; i++) {
        x[i] = scale * Math.max(x[i], 0);
      }
    } else {
      for (int i = 0; i < count; i++) {
        x[i] = scale * Math.max(x[i], slope * x[i]); // slope is at most 1
      }
    }
  }

  /**
   * diff = diff * phi'(y), with y = phi(x), for a chunk.
   *
   * <p>The factor is chosen by the sign of y's bits: the compiler vectorises integer arithmetic,
   * but neither a choice between floats nor a cast between the two, hence the copy. A NaN counts by
   * its sign.
   *
   * @param y address of the outputs
   */
  static void differentiate(
      OneDnnStream lane, Rectifier phi, DataType type, long y, float[] diff, int count) {
    if (phi.isIdentity()) {
      return;
    }
    int[] bits = lane.bits();
    float[] factors = lane.chunk(2);
    loadBits(type, y, bits, count);
    int positive = Float.floatToRawIntBits(phi.scale());
    int difference = positive ^ Float.floatToRawIntBits(phi.scale() * phi.slope());
    for (int i = 0; i < count; i++) {
      int b = bits[i];
      int notPositive = ((b - 1) | b) >> 31; // all ones or all zeros
      bits[i] = positive ^ (difference & notPositive);
    }
    lane.bitsToChunk2(count);
    for (int i = 0; i < count; i++) {
      diff[i] *= factors[i];
    }
  }

  /** Reads bit patterns; those of 16 bits are sign-extended. */
  private static void loadBits(DataType type, long address, int[] to, int count) {
    if (type == DataType.F32) {
      MemorySegment.copy(MEMORY, JAVA_INT_UNALIGNED, address, to, 0, count);
    } else {
      for (int i = 0; i < count; i++) {
        to[i] = MEMORY.get(JAVA_SHORT_UNALIGNED, address + 2L * i);
      }
    }
  }

  /**
   * diff_src = ([diff_src +] gradient) * psi'(src), for a chunk.
   *
   * @param gradient in the lane's first chunk; changed
   * @param src address of the source, read only where psi is not the identity
   */
  static void storeGradient(
      OneDnnStream lane,
      float[] gradient,
      Rectifier psi,
      DataType type,
      long src,
      long diffSrc,
      int count,
      Write write) {
    if (write == Write.ACCUMULATE) {
      accumulate(lane, gradient, type, diffSrc, count);
    }
    differentiate(lane, psi, type, src, gradient, count);
    store(type, gradient, diffSrc, count);
  }

  /** x = x + what memory holds, for a chunk. */
  static void accumulate(OneDnnStream lane, float[] x, DataType type, long address, int count) {
    float[] held = lane.chunk(1);
    load(type, address, held, count);
    for (int i = 0; i < count; i++) {
      x[i] += held[i];
    }
  }

  /** to = to + from, any number of F32 elements. */
  static void add(OneDnnStream lane, long from, long to, long elements) {
    float[] x = lane.chunk(0);
    for (long i = 0; i < elements; i += CHUNK) {
      int count = (int) Math.min(CHUNK, elements - i);
      load(DataType.F32, from + 4 * i, x, count);
      accumulate(lane, x, DataType.F32, to + 4 * i, count);
      store(DataType.F32, x, to + 4 * i, count);
    }
  }
}
