package io.jtrelu.backend.reference;

import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** A plain sum of squares in binary64. */
final class ReferenceGradientNorm extends GradientNorm {

  ReferenceGradientNorm(long elements) {
    super(Device.CPU, elements);
  }

  @Override
  protected void compute(Stream stream, Tensor gradient, float maxNorm, Tensor result) {
    ReferenceStream.require(stream);
    double sum = 0;
    for (float g : Elements.read(gradient)) {
      sum += (double) g * g;
    }
    float norm = (float) Math.sqrt(sum);
    double factor = norm == 0 ? 1 : Math.min(1, maxNorm / Math.sqrt(sum));
    boolean good = Float.isFinite(norm) && !Float.isNaN(result.get(1));
    result.set(norm, good ? (float) factor : Float.NaN);
  }
}
