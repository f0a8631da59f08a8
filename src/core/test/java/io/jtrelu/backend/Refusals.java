package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Memory;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.function.Consumer;
import org.junit.jupiter.api.function.Executable;

/** Gives an operation every kind of unsuitable operand, and reads what it says about them. */
final class Refusals {
  private final Backend backend;

  Refusals(Backend backend) {
    this.backend = backend;
  }

  /** Memory of a device that no backend of the tests has. */
  private static final class ForeignMemory extends Memory {
    ForeignMemory(long bytes) {
      super(Device.cuda(93), bytes, false);
    }

    @Override
    protected long rawAddress() {
      return 4096;
    }

    @Override
    protected MemorySegment hostSegment() {
      throw new IllegalStateException("not host memory");
    }

    @Override
    protected void release() {}
  }

  /**
   * An operand that must have an exact shape, type and layout: wrong ones are refused with a
   * message that names the operand, what was expected and what was found.
   */
  void require(String name, Tensor good, Consumer<Tensor> use) {
    Shape shape = good.shape();
    int[] dims = shape.dims();
    dims[dims.length - 1]++;
    refuse(name, good, Shape.of(dims), good.type(), good.layout(), use);
    if (good.layout() != Layout.ROW_MAJOR) {
      refuse(name, good, shape, good.type(), Layout.ROW_MAJOR, use);
    }
    requireElements(name, good, use);
  }

  /** An operand that must have a number of elements and a type. */
  void requireElements(String name, Tensor good, Consumer<Tensor> use) {
    DataType other = good.type() == DataType.I32 ? DataType.F32 : DataType.I32;
    refuse(name, good, good.shape(), other, good.layout(), use);
    Shape more = Shape.of(Math.toIntExact(good.shape().elements() + 1));
    refuse(name, good, more, good.type(), Layout.ROW_MAJOR, use);
    requirePlaced(good, use);
  }

  /** An operand that must lie on this device and be open. */
  void requirePlaced(Tensor good, Consumer<Tensor> use) {
    Memory elsewhere = new ForeignMemory(good.bytes());
    Tensor foreign = Tensor.owning(elsewhere, good.shape(), good.type(), good.layout());
    requireMessage(OperandException.class, () -> use.accept(foreign), "cuda:93");
    Tensor closed = backend.allocate(good.shape(), good.type(), good.layout());
    closed.close();
    requireMessage(IllegalStateException.class, () -> use.accept(closed), "close");
  }

  private void refuse(
      String name, Tensor good, Shape shape, DataType type, Layout layout, Consumer<Tensor> use) {
    try (Tensor bad = backend.allocate(shape, type, layout)) {
      requireMessage(
          OperandException.class,
          () -> use.accept(bad),
          name,
          good.type().name(),
          good.device().toString(),
          bad.toString());
    }
  }

  /** Closes an operation, twice, after which its use must be refused. */
  static void requireClosing(Operation operation, Executable use) {
    operation.close();
    operation.close();
    requireMessage(IllegalStateException.class, use, "close");
  }

  /** Requires an exception whose message contains all of some words. */
  static void requireMessage(Class<? extends Exception> type, Executable action, String... words) {
    String message = assertThrows(type, action).getMessage();
    for (String word : words) {
      assertTrue(message != null && message.contains(word), "'" + word + "' not in: " + message);
    }
  }
}
