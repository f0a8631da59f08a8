package io.jtrelu.tensor;

/**
 * Where memory lies.
 *
 * @param kind the kind of device
 * @param index which one of that kind, from 0
 */
public record Device(Kind kind, int index) {
  /** Kinds of memory. */
  public enum Kind {
    /** Host memory, addressable by the JVM. */
    CPU,
    /** Memory of an NVIDIA GPU (or of the emulated one). */
    CUDA
  }

  /** Host memory. */
  public static final Device CPU = new Device(Kind.CPU, 0);

  /** The CUDA device of an index. */
  public static Device cuda(int index) {
    return new Device(Kind.CUDA, index);
  }

  @Override
  public String toString() {
    return kind == Kind.CPU ? "cpu" : "cuda:" + index;
  }
}
