package io.jtrelu.backend.reference;

import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Plain sums in binary64. */
final class ReferenceMatrixProduct extends MatrixProduct {
  ReferenceMatrixProduct(Sizes sizes) {
    super(Device.CPU, sizes);
  }

  @Override
  protected void compute(Stream stream, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    ReferenceStream.require(stream);
    Sizes s = sizes();
    float[] x = Elements.read(a);
    float[] y = Elements.read(b);
    for (int product = 0; product < s.count(); product++) {
      int atA = Math.toIntExact(product * s.strideA());
      int atB = Math.toIntExact(product * s.strideB());
      long atC = product * s.strideC();
      for (int i = 0; i < s.m(); i++) {
        for (int j = 0; j < s.n(); j++) {
          double sum = 0;
          for (int l = 0; l < s.k(); l++) {
            double left = x[atA + (s.transposeA() ? l * s.lda() + i : i * s.lda() + l)];
            sum += left * y[atB + (s.transposeB() ? j * s.ldb() + l : l * s.ldb() + j)];
          }
          long at = atC + (long) i * s.ldc() + j;
          double old = beta == 0 ? 0 : (double) beta * c.get(at);
          c.put(at, (float) (alpha * sum + old));
        }
      }
    }
  }
}
