package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** A pass over the parameters. */
final class OneDnnSgd extends Sgd {
  private final CpuKernels.@Nullable ParameterPasses kernels; // null: a loop in Java

  OneDnnSgd(
      CpuKernels.@Nullable ParameterPasses kernels,
      long elements,
      float momentum,
      boolean nesterov,
      float weightDecay) {
    super(Device.CPU, elements, momentum, nesterov, weightDecay);
    this.kernels = kernels;
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor velocity,
      Tensor learningRate,
      Tensor gradientScale) {
    OneDnnStream lane = OneDnnStream.of(stream);
    float rate = Elements.get(learningRate.address());
    float scale = Elements.get(gradientScale.address());
    if (Float.isNaN(scale)) {
      return;
    }
    if (kernels != null) {
      kernels.sgd(
          elements(),
          parameters.address(),
          gradient.address(),
          velocity.address(),
          rate,
          scale,
          momentum(),
          weightDecay(),
          nesterov());
      return;
    }
    float[] x = lane.chunk(0);
    float[] g = lane.chunk(1);
    float[] v = lane.chunk(2);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = 4 * i;
      Elements.load(DataType.F32, parameters.address() + offset, x, count);
      Elements.load(DataType.F32, gradient.address() + offset, g, count);
      if (momentum() > 0) {
        Elements.load(DataType.F32, velocity.address() + offset, v, count);
      }
      update(x, g, v, rate, scale, count);
      Elements.store(DataType.F32, x, parameters.address() + offset, count);
      if (momentum() > 0) {
        Elements.store(DataType.F32, v, velocity.address() + offset, count);
      }
    }
  }

  private void update(float[] x, float[] g, float[] v, float rate, float scale, int count) {
    float decay = weightDecay();
    float mu = momentum();
    // The step is ownStep * g + mu * v for Nesterov's form and v for the plain one.
    float ownStep = nesterov() ? 1 : 0;
    float velocityStep = nesterov() ? mu : 1;
    for (int i = 0; i < count; i++) {
      float total = scale * g[i] + decay * x[i];
      float next = mu > 0 ? mu * v[i] + total : total;
      v[i] = next;
      x[i] -= rate * (ownStep * total + velocityStep * next);
    }
  }
}
