package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** A pass over the elements. */
final class OneDnnRectify extends Rectify {
  private final CpuKernels.@Nullable ActivationPasses kernels; // null: a loop in Java

  OneDnnRectify(
      CpuKernels.@Nullable ActivationPasses kernels,
      long elements,
      DataType type,
      Rectifier rectifier) {
    super(Device.CPU, elements, type, rectifier);
    this.kernels = kernels;
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    OneDnnStream lane = OneDnnStream.of(stream);
    if (kernels != null) {
      kernels.rectify(elements(), src.address(), rectifier(), dst.address());
      return;
    }
    float[] x = lane.chunk(0);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), src.address() + offset, x, count);
      Elements.rectify(rectifier(), x, count);
      Elements.store(type(), x, dst.address() + offset, count);
    }
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor dst, Tensor diffDst, Tensor diffSrc, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    if (kernels != null) {
      kernels.rectifyGradient(
          elements(), dst.address(), diffDst.address(), rectifier(), write, diffSrc.address());
      return;
    }
    float[] diff = lane.chunk(0);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), diffDst.address() + offset, diff, count);
      Elements.differentiate(lane, rectifier(), type(), dst.address() + offset, diff, count);
      if (write == Write.ACCUMULATE) {
        Elements.accumulate(lane, diff, type(), diffSrc.address() + offset, count);
      }
      Elements.store(type(), diff, diffSrc.address() + offset, count);
    }
  }
}
