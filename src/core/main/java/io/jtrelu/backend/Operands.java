package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Lifetime;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Checks of an operation's operands, and its uses of them; package-private because operations
 * check, backends trust.
 */
final class Operands {
  private final String operation;
  private final Device device;
  private final Lifetime lifetime;

  Operands(String operation, Device device) {
    this.operation = operation;
    this.device = device;
    this.lifetime = new Lifetime(operation);
  }

  /** The operation's. */
  Lifetime lifetime() {
    return lifetime;
  }

  /**
   * Begins a run of the operation on a stream: everything that an operation works on is given to
   * the result, which holds it until its close.
   *
   * @throws IllegalArgumentException if the stream is null or no backend's
   * @throws IllegalStateException if operation or stream are closed, or the stream is in use
   */
  BackendStream.Use use(Stream stream) {
    if (!(stream instanceof BackendStream own)) {
      throw new IllegalArgumentException(
          operation
              + ": an operation runs on its own streams, those of its backend's newStream, got "
              + stream);
    }
    BackendStream.Use use = own.use(operation);
    try {
      own.hold(lifetime);
      return use;
    } catch (RuntimeException closed) {
      use.close();
      throw closed;
    }
  }

  private void requirePresent(String name, @Nullable Tensor tensor) {
    if (tensor == null) { // a caller without null checks
      throw new OperandException(operation + ": " + name + " is null");
    }
  }

  /** Requires an exact shape, type and layout on this device. */
  void require(String name, Tensor tensor, Shape shape, DataType type, Layout layout) {
    requirePresent(name, tensor);
    if (!tensor.shape().equals(shape)
        || tensor.type() != type
        || tensor.layout() != layout
        || !tensor.device().equals(device)) {
      throw new OperandException(
          operation
              + ": "
              + name
              + " must be "
              + type
              + shape
              + " "
              + layout
              + " on "
              + device
              + ", got "
              + tensor);
    }
  }

  /** Requires an element count and type on this device, under any shape. */
  void requireElements(String name, Tensor tensor, long elements, DataType type) {
    requirePresent(name, tensor);
    if (tensor.shape().elements() != elements
        || tensor.type() != type
        || !tensor.device().equals(device)) {
      throw new OperandException(
          operation
              + ": "
              + name
              + " must hold "
              + elements
              + " elements of "
              + type
              + " on "
              + device
              + ", got "
              + tensor);
    }
  }

  /** Requires at least so many elements of a type on this device, under any shape. */
  void requireAtLeast(String name, Tensor tensor, long elements, DataType type) {
    requirePresent(name, tensor);
    if (tensor.shape().elements() < elements
        || tensor.type() != type
        || !tensor.device().equals(device)) {
      throw new OperandException(
          operation
              + ": "
              + name
              + " must hold at least "
              + elements
              + " elements of "
              + type
              + " on "
              + device
              + ", got "
              + tensor);
    }
  }

  /** Requires two operands not to overlap in memory. */
  void requireDistinct(String name, Tensor tensor, String otherName, Tensor other) {
    if (overlap(tensor, other)) {
      throw new OperandException(
          operation + ": " + name + " and " + otherName + " overlap in memory; they must not");
    }
  }

  /** Requires two operands to begin at the same element, or not to overlap in memory. */
  void requireSameOrDistinct(String name, Tensor tensor, String otherName, Tensor other) {
    if (overlap(tensor, other) && tensor.address() != other.address()) {
      throw new OperandException(
          operation
              + ": "
              + name
              + " and "
              + otherName
              + " overlap in memory in part; they must be one or apart");
    }
  }

  /** Whether two tensors of one device share memory. */
  static boolean overlap(Tensor a, Tensor b) {
    return a.bytes() > 0
        && b.bytes() > 0
        && a.address() < b.address() + b.bytes()
        && b.address() < a.address() + a.bytes();
  }

  /** Requires a number of elements of 0 or more. */
  static long requireCount(String operation, long elements) {
    if (elements < 0) {
      throw new IllegalArgumentException(
          operation + ": elements must be 0 or more, got " + elements);
    }
    return elements;
  }

  /** Requires a factor in [0, 1); NaN is none. */
  static float requireBelowOne(String operation, String name, float value) {
    if (!(value >= 0 && value < 1)) {
      throw new IllegalArgumentException(
          operation + ": " + name + " must lie in [0, 1), got " + value);
    }
    return value;
  }

  /** Requires a finite number of 0 or more; NaN is none. */
  static float requireNotNegative(String operation, String name, float value) {
    if (!(value >= 0 && value < Float.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          operation + ": " + name + " must be finite and 0 or more, got " + value);
    }
    return value;
  }
}
