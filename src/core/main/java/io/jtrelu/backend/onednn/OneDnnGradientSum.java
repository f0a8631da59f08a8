package io.jtrelu.backend.onednn;

import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/** All parts in one pass over memory. */
final class OneDnnGradientSum extends GradientSum {
  private final CpuKernels.ParameterPasses kernels;

  OneDnnGradientSum(CpuKernels.ParameterPasses kernels, long elements) {
    super(Device.CPU, elements);
    this.kernels = kernels;
  }

  @Override
  protected void compute(Stream stream, Tensor gradient, List<Tensor> parts) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long addresses = lane.workspace((long) Long.BYTES * parts.size());
    for (int i = 0; i < parts.size(); i++) {
      Elements.putLong(addresses + (long) Long.BYTES * i, parts.get(i).address());
    }
    kernels.sum(elements(), parts.size(), addresses, gradient.address());
  }
}
