package io.jtrelu.backend.onednn;

import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** oneDNN's sgemm on the calling thread, so that the order of sums is one. */
final class OneDnnMatrixProduct extends MatrixProduct {
  private final Dnnl library;

  OneDnnMatrixProduct(Dnnl library, Sizes sizes) {
    super(Device.CPU, sizes);
    this.library = library;
  }

  @Override
  protected void compute(Stream stream, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    OneDnnStream.of(stream);
    Sizes s = sizes();
    for (int i = 0; i < s.count(); i++) {
      library.sgemm(
          s.transposeA(),
          s.transposeB(),
          s.m(),
          s.n(),
          s.k(),
          alpha,
          a.address() + i * s.strideA() * Float.BYTES,
          s.lda(),
          b.address() + i * s.strideB() * Float.BYTES,
          s.ldb(),
          beta,
          c.address() + i * s.strideC() * Float.BYTES,
          s.ldc());
    }
  }
}
