package io.jtrelu.tensor;

/** Storage type of a tensor's elements. Arithmetic on 16-bit types accumulates in 32 bits. */
public enum DataType {
  /** IEEE 754 binary32. */
  F32(4),
  /** bfloat16: the upper half of a binary32 (8 exponent bits, 8 significand bits). */
  BF16(2),
  /** IEEE 754 binary16 (5 exponent bits, 11 significand bits). */
  F16(2),
  /** Signed 32-bit integer: labels and counters. */
  I32(4),
  /** Unsigned 8-bit integer: raw images and pooling indices. */
  U8(1);

  private final int bytes;

  DataType(int bytes) {
    this.bytes = bytes;
  }

  /** Bytes per element. */
  public int bytes() {
    return bytes;
  }
}
