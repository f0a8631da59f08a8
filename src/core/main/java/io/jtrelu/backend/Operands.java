package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Checks of an operation's operands; package-private because operations check, backends trust. */
final class Operands {
  private final String operation;
  private final Device device;

  Operands(String operation, Device device) {
    this.operation = operation;
    this.device = device;
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

  /** Requires two operands not to overlap in memory. */
  void requireDistinct(String name, Tensor tensor, String otherName, Tensor other) {
    if (tensor.bytes() > 0
        && other.bytes() > 0
        && tensor.address() < other.address() + other.bytes()
        && other.address() < tensor.address() + tensor.bytes()) {
      throw new OperandException(
          operation + ": " + name + " and " + otherName + " overlap in memory; they must not");
    }
  }
}
