package io.jtrelu.backend.reference;

import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.random.OrthogonalMatrix;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** The matrix of plain Java: one reflection after the other, in binary64. */
final class ReferenceOrthogonal extends Orthogonal {

  ReferenceOrthogonal(int rows, int cols, float gain) {
    super(Device.CPU, rows, cols, gain);
  }

  @Override
  protected void compute(Stream stream, Tensor dst, long seed, long sequence) {
    ReferenceStream.require(stream);
    dst.set(OrthogonalMatrix.of(rows(), cols(), gain(), seed, sequence));
  }
}
