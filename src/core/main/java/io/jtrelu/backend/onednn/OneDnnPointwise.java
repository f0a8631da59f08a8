package io.jtrelu.backend.onednn;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.function.DoubleUnaryOperator;

/** A pass over the elements, through tables of phi and phi': any function costs the same. */
final class OneDnnPointwise extends Pointwise {
  private final DoubleUnaryOperator value;
  private final DoubleUnaryOperator derivative;

  OneDnnPointwise(long elements, DataType type, TransformedActivation function) {
    super(Device.CPU, elements, type, function);
    ActivationFunction phi = function.function();
    boolean rectifier = TransformedActivation.unchanged(phi).negativeSlope() != 0;
    if (rectifier) {
      // Its slope is not phi's own but the transformation's; and it is cheap.
      value = function::value;
      derivative = function::derivative;
    } else {
      FunctionTable values = new FunctionTable(phi::value, phi::derivative, phi.breakpoints());
      FunctionTable slopes =
          new FunctionTable(phi::derivative, phi::secondDerivative, phi.breakpoints());
      double a = function.inputScale();
      double b = function.inputShift();
      double g = function.outputScale();
      double d = function.outputShift();
      value = x -> g * (values.value(a * x + b) + d);
      derivative = x -> g * a * slopes.value(a * x + b);
    }
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    OneDnnStream lane = OneDnnStream.of(stream);
    float[] x = lane.chunk(0);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), src.address() + offset, x, count);
      for (int j = 0; j < count; j++) {
        x[j] = (float) value.applyAsDouble(x[j]);
      }
      Elements.store(type(), x, dst.address() + offset, count);
    }
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor saved, Tensor diffDst, Tensor diffSrc, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    float[] diff = lane.chunk(0);
    float[] at = lane.chunk(2);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), diffDst.address() + offset, diff, count);
      Elements.load(type(), saved.address() + offset, at, count);
      if (savesOutput()) {
        for (int j = 0; j < count; j++) {
          diff[j] *= (float) function().derivativeFromValue(at[j]);
        }
      } else {
        for (int j = 0; j < count; j++) {
          diff[j] *= (float) derivative.applyAsDouble(at[j]);
        }
      }
      if (write == Write.ACCUMULATE) {
        Elements.accumulate(lane, diff, type(), diffSrc.address() + offset, count);
      }
      Elements.store(type(), diff, diffSrc.address() + offset, count);
    }
  }
}
