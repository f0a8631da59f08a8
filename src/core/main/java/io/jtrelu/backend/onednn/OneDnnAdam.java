package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** A pass over the parameters. */
final class OneDnnAdam extends Adam {
  private final CpuKernels.@Nullable ParameterPasses kernels; // null: a loop in Java

  OneDnnAdam(
      CpuKernels.@Nullable ParameterPasses kernels,
      long elements,
      float beta1,
      float beta2,
      float epsilon,
      float weightDecay) {
    super(Device.CPU, elements, beta1, beta2, epsilon, weightDecay);
    this.kernels = kernels;
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor moment1,
      Tensor moment2,
      Tensor scalars,
      Tensor gradientScale) {
    OneDnnStream lane = OneDnnStream.of(stream);
    float rate = Elements.get(scalars.address());
    double t = Elements.get(scalars.address() + 4);
    float scale = Elements.get(gradientScale.address());
    if (Float.isNaN(scale)) {
      return;
    }
    float correction1 = (float) (1 / (1 - Math.pow(beta1(), t)));
    float correction2 = (float) (1 / (1 - Math.pow(beta2(), t)));
    if (kernels != null) {
      kernels.adam(
          elements(),
          parameters.address(),
          gradient.address(),
          moment1.address(),
          moment2.address(),
          rate,
          scale,
          beta1(),
          beta2(),
          epsilon(),
          weightDecay(),
          correction1,
          correction2);
      return;
    }
    float[] x = lane.chunk(0);
    float[] g = lane.chunk(1);
    float[] m = lane.chunk(2);
    float[] v = lane.chunk(3);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = 4 * i;
      Elements.load(DataType.F32, parameters.address() + offset, x, count);
      Elements.load(DataType.F32, gradient.address() + offset, g, count);
      Elements.load(DataType.F32, moment1.address() + offset, m, count);
      Elements.load(DataType.F32, moment2.address() + offset, v, count);
      Elements.scale(scale, g, count);
      update(x, g, m, v, rate, correction1, correction2, count);
      Elements.store(DataType.F32, x, parameters.address() + offset, count);
      Elements.store(DataType.F32, m, moment1.address() + offset, count);
      Elements.store(DataType.F32, v, moment2.address() + offset, count);
    }
  }

  private void update(
      float[] x,
      float[] g,
      float[] m,
      float[] v,
      float rate,
      float correction1,
      float correction2,
      int count) {
    float keep1 = beta1();
    float keep2 = beta2();
    float take1 = 1 - keep1;
    float take2 = 1 - keep2;
    float small = epsilon();
    float decay = weightDecay();
    for (int i = 0; i < count; i++) {
      float first = keep1 * m[i] + take1 * g[i];
      float second = keep2 * v[i] + take2 * g[i] * g[i];
      m[i] = first;
      v[i] = second;
      float root = (float) Math.sqrt(correction2 * second);
      x[i] -= rate * (correction1 * first / (root + small) + decay * x[i]);
    }
  }
}
