package io.jtrelu.backend;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * One run of an operation under suspicion: operands lie on the device between guard zones, outputs
 * are poisoned, the work is done twice. Guards and inputs must be untouched and both runs bitwise
 * equal.
 */
final class Trial implements AutoCloseable {
  /** Elements before and after each operand; a multiple of 64 bytes in every type. */
  private static final int GUARD = 64;

  /** Every byte of guards and poisoned outputs: a NaN in all floating types. */
  private static final byte POISON = (byte) 0xff;

  /** Errors of a sum of reals, in units of the binary32 epsilon times the sum of its |terms|. */
  static final double SUM = 8;

  private final Backend backend;
  private final String description;
  private final List<Operand> operands = new ArrayList<>();

  /**
   * @param description what the case is, for failure messages
   */
  Trial(Backend backend, Object description) {
    this.backend = backend;
    this.description = description.toString();
  }

  /** A tensor of the device between guard zones. */
  final class Operand {
    private final String name;
    private final boolean readOnly;
    private final Tensor host;
    private final Tensor whole;
    private final Tensor tensor;
    private final byte[] before;
    private byte[] after = {};

    private Operand(
        String name, DataType type, Shape shape, Layout layout, boolean readOnly, float[] values) {
      this.name = name;
      this.readOnly = readOnly;
      Shape guarded = Shape.of(GUARD + Math.toIntExact(shape.elements()) + GUARD);
      host = Tensor.allocate(guarded, type, Layout.ROW_MAJOR);
      whole = backend.allocate(guarded, type, Layout.ROW_MAJOR);
      tensor = whole.slice(GUARD, shape, layout);
      host.segment().fill(POISON);
      if (values != null) {
        host.slice(GUARD, shape, layout).set(values);
      }
      before = host.segment().toArray(JAVA_BYTE);
    }

    /** The operand itself, on the device. */
    Tensor tensor() {
      return tensor;
    }

    /** Its elements after the run. */
    float[] values() {
      host.segment().copyFrom(java.lang.foreign.MemorySegment.ofArray(after));
      return host.slice(GUARD, tensor.shape(), tensor.layout()).toFloatArray();
    }

    private void upload(Stream stream) {
      host.segment().copyFrom(java.lang.foreign.MemorySegment.ofArray(before));
      backend.copy(stream, host, whole);
      stream.synchronize();
    }

    private void download(Stream stream, boolean again) {
      backend.copy(stream, whole, host);
      stream.synchronize();
      byte[] bytes = host.segment().toArray(JAVA_BYTE);
      int guard = GUARD * tensor.type().bytes();
      int end = bytes.length - guard;
      for (int i = 0; i < bytes.length; i++) {
        if (bytes[i] != before[i] && (readOnly || i < guard || i >= end)) {
          int element = Math.floorDiv(i - guard, tensor.type().bytes());
          fail(
              (i < guard || i >= end ? "written outside " : "changed the input ")
                  + name
                  + " of "
                  + tensor.shape().elements()
                  + " elements, at element "
                  + element);
        }
      }
      if (again && !Arrays.equals(bytes, after) && !sameButForNan(bytes, after)) {
        fail(name + " differs between two runs, at byte " + Arrays.mismatch(bytes, after));
      }
      after = bytes;
    }

    /** What kind of NaN it is, compilers of Java and devices are free to choose. */
    private boolean sameButForNan(byte[] a, byte[] b) {
      host.segment().copyFrom(java.lang.foreign.MemorySegment.ofArray(a));
      float[] first = host.toFloatArray();
      host.segment().copyFrom(java.lang.foreign.MemorySegment.ofArray(b));
      return tensor.type() != DataType.I32 && Arrays.equals(first, host.toFloatArray());
    }
  }

  private Operand add(Operand operand) {
    operands.add(operand);
    return operand;
  }

  /** An operand that must not change. */
  Operand input(String name, DataType type, Shape shape, Layout layout, float[] values) {
    return add(new Operand(name, type, shape, layout, true, values));
  }

  /** An operand that is written; poisoned before. */
  Operand output(String name, DataType type, Shape shape, Layout layout) {
    return add(new Operand(name, type, shape, layout, false, null));
  }

  /** An operand that is read and written. */
  Operand inout(String name, DataType type, Shape shape, Layout layout, float[] values) {
    return add(new Operand(name, type, shape, layout, false, values));
  }

  /** An operand that is written or added to: poisoned, or with old values. */
  Operand result(String name, DataType type, Shape shape, Layout layout, Write write, float[] old) {
    return write == Write.ACCUMULATE
        ? inout(name, type, shape, layout, old)
        : output(name, type, shape, layout);
  }

  /** A vector that must not change. */
  Operand input(String name, DataType type, float[] values) {
    return input(name, type, Shape.of(values.length), Layout.ROW_MAJOR, values);
  }

  /** An operand of any bits that must not change. */
  Operand input(String name, DataType type, Shape shape, Layout layout, byte[] bytes) {
    Operand operand = input(name, type, shape, layout, (float[]) null);
    System.arraycopy(bytes, 0, operand.before, GUARD * type.bytes(), bytes.length);
    return operand;
  }

  /** A vector of integers of all 32 bits that must not change. */
  Operand input(String name, int[] values) {
    Operand operand = input(name, DataType.I32, new float[values.length]);
    java.nio.ByteBuffer.wrap(operand.before, GUARD * 4, values.length * 4)
        .order(java.nio.ByteOrder.nativeOrder())
        .asIntBuffer()
        .put(values);
    return operand;
  }

  /** A vector that is written; poisoned before. */
  Operand output(String name, DataType type, int elements) {
    return output(name, type, Shape.of(elements), Layout.ROW_MAJOR);
  }

  /** A vector that is read and written. */
  Operand inout(String name, DataType type, float[] values) {
    return inout(name, type, Shape.of(values.length), Layout.ROW_MAJOR, values);
  }

  /** A vector that is written or added to. */
  Operand result(String name, DataType type, Write write, float[] old) {
    return result(name, type, Shape.of(old.length), Layout.ROW_MAJOR, write, old);
  }

  /** Does the work twice, from the same beginning. */
  void run(Consumer<Stream> work) {
    try (Stream stream = backend.newStream()) {
      for (int run = 0; run < 2; run++) {
        for (Operand operand : operands) {
          operand.upload(stream);
        }
        work.accept(stream);
        stream.synchronize();
        for (Operand operand : operands) {
          operand.download(stream, run == 1);
        }
      }
    }
  }

  /**
   * Requires exact values.
   *
   * @param magnitude sum of the absolute values of an element's terms; where it is 0 the element is
   *     zero whatever the data
   */
  void expectExactly(Operand operand, double[] expected, double[] magnitude) {
    requireTrustworthy(operand, expected, magnitude);
    expectWithin(operand, expected, new double[expected.length]);
  }

  /** Requires exact values that are meant to be zero as often as they are. */
  void expectExactly(Operand operand, double[] expected) {
    expectWithin(operand, expected, new double[expected.length]);
  }

  /**
   * Requires values within three roundings of the storage type (of a sum, of an accumulated value,
   * of a product).
   *
   * @param magnitude sum of the absolute values of an element's terms
   */
  void expectRounded(Operand operand, double[] expected, double[] magnitude) {
    requireTrustworthy(operand, expected, magnitude);
    DataType type = operand.tensor.type();
    double[] bound = new double[expected.length];
    for (int i = 0; i < bound.length; i++) {
      bound[i] = magnitude[i] == 0 ? 0 : 1.5 * Data.epsilon(type) * magnitude[i] + Data.tiny(type);
    }
    expectWithin(operand, expected, bound);
  }

  /** Requires the very bits. */
  void expectBytes(Operand operand, byte[] expected) {
    int bytes = operand.tensor.type().bytes();
    int begin = GUARD * bytes;
    byte[] found = Arrays.copyOfRange(operand.after, begin, operand.after.length - begin);
    int at = Arrays.mismatch(found, expected);
    if (at >= 0) {
      String place =
          at < found.length ? index(operand.tensor.shape(), at / bytes) : "count of bytes";
      fail(operand.name + "[" + place + "] differs from what is expected, at byte " + at);
    }
  }

  /**
   * Requires gradients that are sums: exact ones, or within their own additions' bound and errors
   * of what is added up.
   *
   * @param old what they are added to, or null
   */
  void expectSums(
      Operand operand,
      boolean exact,
      NaiveConv2d.Sums sums,
      NaiveConv2d.Sums error,
      float @Nullable [] old) {
    double[] expected = sums.value().clone();
    double[] bound = new double[expected.length];
    for (int i = 0; i < expected.length; i++) {
      double before = old == null ? 0 : old[i];
      expected[i] += before;
      bound[i] =
          error.value()[i]
              + SUM * Data.epsilon(DataType.F32) * (sums.magnitude()[i] + Math.abs(before));
    }
    if (exact) {
      expectExactly(operand, expected);
    } else {
      expectWithin(operand, expected, bound);
    }
  }

  /** Requires |value - expected| <= bound for each element. */
  void expectWithin(Operand operand, double[] expected, double[] bound) {
    float[] values = operand.values();
    if (values.length != expected.length) {
      fail(operand.name + " has " + values.length + " elements, expected " + expected.length);
    }
    for (int i = 0; i < values.length; i++) {
      double difference = Math.abs(values[i] - expected[i]);
      if (!(difference <= bound[i])) {
        fail(
            String.format(
                "%s[%s] is %s, expected %s within %s",
                operand.name, index(operand.tensor.shape(), i), values[i], expected[i], bound[i]));
      }
    }
  }

  /**
   * Data under which most results are zero hide errors, so they fail the case. Elements without
   * terms do not count.
   */
  void requireTrustworthy(Operand operand, double[] expected, double[] magnitude) {
    int telling = 0;
    int zeros = 0;
    for (int i = 0; i < expected.length; i++) {
      if (magnitude[i] > 0) {
        telling++;
        zeros += expected[i] == 0 ? 1 : 0;
      }
    }
    if (telling >= 16 && zeros > 0.75 * telling) {
      fail(
          String.format(
              "%s is expected to be zero at %d of %d elements: such a case proves nothing",
              operand.name, zeros, telling));
    }
  }

  /** Position of a row-major index, as text. */
  private static String index(Shape shape, int flat) {
    StringBuilder text = new StringBuilder();
    int rest = flat;
    for (int axis = shape.rank() - 1; axis >= 0; axis--) {
      text.insert(0, rest % shape.dim(axis) + (axis == shape.rank() - 1 ? "" : ","));
      rest /= shape.dim(axis);
    }
    return text.toString();
  }

  /** Fails with the case's description. */
  void fail(String message) {
    throw new AssertionError(description + ": " + message);
  }

  @Override
  public void close() {
    for (Operand operand : operands) {
      operand.whole.close();
      operand.host.close();
    }
  }
}
