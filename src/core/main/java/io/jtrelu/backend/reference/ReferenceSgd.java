package io.jtrelu.backend.reference;

import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Parameter by parameter. */
final class ReferenceSgd extends Sgd {

  ReferenceSgd(long elements, float momentum, boolean nesterov, float weightDecay) {
    super(Device.CPU, elements, momentum, nesterov, weightDecay);
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor velocity,
      Tensor learningRate,
      Tensor gradientScale) {
    ReferenceStream.require(stream);
    if (Float.isNaN(gradientScale.get(0))) {
      return;
    }
    float[] p = Elements.read(parameters);
    float[] gradients = Elements.read(gradient);
    float[] v = Elements.read(velocity);
    double rate = learningRate.get(0);
    double scale = gradientScale.get(0);
    for (int i = 0; i < p.length; i++) {
      double g = scale * gradients[i] + (double) weightDecay() * p[i];
      double moved = momentum() > 0 ? (double) momentum() * v[i] + g : g;
      if (momentum() > 0) {
        v[i] = (float) moved;
      }
      p[i] = (float) (p[i] - rate * (nesterov() ? g + momentum() * moved : moved));
    }
    parameters.set(p);
    velocity.set(v);
  }
}
