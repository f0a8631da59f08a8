package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** A pass over the elements. */
final class OneDnnWeightedSum extends WeightedSum {
  private final CpuKernels.@Nullable ActivationPasses kernels; // null: a loop in Java

  OneDnnWeightedSum(
      CpuKernels.@Nullable ActivationPasses kernels,
      long elements,
      DataType type,
      float weightA,
      float weightB,
      Rectifier activation) {
    super(Device.CPU, elements, type, weightA, weightB, activation);
    this.kernels = kernels;
  }

  @Override
  protected void runForward(Stream stream, Tensor a, Tensor b, Tensor dst) {
    OneDnnStream lane = OneDnnStream.of(stream);
    if (kernels != null) {
      kernels.weightedSum(
          elements(), weightA(), a.address(), weightB(), b.address(), activation(), dst.address());
      return;
    }
    float[] x = lane.chunk(0);
    float[] y = lane.chunk(1);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), a.address() + offset, x, count);
      Elements.load(type(), b.address() + offset, y, count);
      sum(weightA(), x, weightB(), y, count);
      Elements.rectify(activation(), x, count);
      Elements.store(type(), x, dst.address() + offset, count);
    }
  }

  private static void sum(float weightX, float[] x, float weightY, float[] y, int count) {
    for (int i = 0; i < count; i++) {
      x[i] = weightX * x[i] + weightY * y[i];
    }
  }

  @Override
  protected void runBackward(
      Stream stream,
      float weight,
      Tensor diffDst,
      Rectifier srcActivation,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    if (kernels != null) {
      kernels.weightedSumGradient(
          elements(),
          weight,
          diffDst.address(),
          src.address(),
          srcActivation,
          write,
          diffSrc.address());
      return;
    }
    float[] diff = lane.chunk(0);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), diffDst.address() + offset, diff, count);
      Elements.scale(weight, diff, count);
      Elements.storeGradient(
          lane,
          diff,
          srcActivation,
          type(),
          src.address() + offset,
          diffSrc.address() + offset,
          count,
          write);
    }
  }
}
