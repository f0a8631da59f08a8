package io.jtrelu.backend.reference;

import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Parameter by parameter. */
final class ReferenceAdam extends Adam {

  ReferenceAdam(long elements, float beta1, float beta2, float epsilon, float weightDecay) {
    super(Device.CPU, elements, beta1, beta2, epsilon, weightDecay);
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
    ReferenceStream.require(stream);
    if (Float.isNaN(gradientScale.get(0))) {
      return;
    }
    float[] p = Elements.read(parameters);
    float[] gradients = Elements.read(gradient);
    float[] m = Elements.read(moment1);
    float[] v = Elements.read(moment2);
    double rate = scalars.get(0);
    double t = scalars.get(1);
    double scale = gradientScale.get(0);
    double correction1 = 1 - Math.pow(beta1(), t);
    double correction2 = 1 - Math.pow(beta2(), t);
    for (int i = 0; i < p.length; i++) {
      double g = scale * gradients[i];
      double mean = beta1() * (double) m[i] + (1.0 - beta1()) * g;
      double square = beta2() * (double) v[i] + (1.0 - beta2()) * g * g;
      double direction = (mean / correction1) / (Math.sqrt(square / correction2) + epsilon());
      m[i] = (float) mean;
      v[i] = (float) square;
      p[i] = (float) (p[i] - rate * (direction + (double) weightDecay() * p[i]));
    }
    parameters.set(p);
    moment1.set(m);
    moment2.set(v);
  }
}
