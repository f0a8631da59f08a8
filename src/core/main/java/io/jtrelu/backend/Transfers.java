package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Checks of the operands of {@link Backend#copy} and {@link Backend#fill}, for backends. */
public final class Transfers {
  private Transfers() {}

  /**
   * Requires operands of a copy.
   *
   * @param device the backend's
   * @throws OperandException if counts differ, a type is not floating while types differ, a tensor
   *     lies on another device, or the two overlap without being the same
   * @throws IllegalStateException if one of them is closed
   */
  public static void requireCopy(Device device, @Nullable Tensor src, @Nullable Tensor dst) {
    Tensor from = require("copy", "src", src, device, true);
    Tensor to = require("copy", "dst", dst, device, true);
    if (from.shape().elements() != to.shape().elements()) {
      throw new OperandException("copy: element counts differ: src is " + from + ", dst is " + to);
    }
    boolean converts = from.type() != to.type();
    if (converts && !(isFloating(from.type()) && isFloating(to.type()))) {
      throw new OperandException(
          "copy: only floating types can be converted: src is " + from + ", dst is " + to);
    }
    boolean same = !converts && from.address() == to.address();
    if (from.device().equals(to.device()) && !same && Operands.overlap(from, to)) {
      throw new OperandException(
          "copy: src and dst overlap in memory; they must be one or apart: src is "
              + from
              + ", dst is "
              + to);
    }
  }

  /**
   * Requires the operand of a fill.
   *
   * @param device the backend's
   * @throws OperandException if it lies on another device
   */
  public static void requireFill(Device device, @Nullable Tensor dst) {
    require("fill", "dst", dst, device, false);
  }

  private static Tensor require(
      String operation, String name, @Nullable Tensor tensor, Device device, boolean orHost) {
    if (tensor == null) { // a caller without null checks
      throw new OperandException(operation + ": " + name + " is null");
    }
    if (!tensor.device().equals(device) && !(orHost && tensor.device().equals(Device.CPU))) {
      throw new OperandException(
          operation + ": " + name + " must lie on " + device + ", got " + tensor);
    }
    return tensor;
  }

  private static boolean isFloating(DataType type) {
    return switch (type) {
      case F32, BF16, F16 -> true;
      case I32, U8 -> false;
    };
  }
}
