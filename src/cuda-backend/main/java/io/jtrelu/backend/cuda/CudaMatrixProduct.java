package io.jtrelu.backend.cuda;

import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * matrix_product.cu; or cuBLAS, where that is asked for, for what is not thin and whose factors the
 * host knows. cuBLAS sees C', as it counts columns first.
 */
final class CudaMatrixProduct extends MatrixProduct {
  private static final int THIN = 16;

  private final CudaBackend backend;
  private final Blas.@Nullable Product byLibrary;
  private final Kernel kernel;
  private final long blocks;

  CudaMatrixProduct(CudaBackend backend, Sizes sizes) {
    super(backend.device(), sizes);
    this.backend = backend;
    int m = sizes.m();
    int n = sizes.n();
    byLibrary =
        backend.chooser().wants(ConvolutionProvider.CUBLAS)
                && Math.min(Math.min(m, n), sizes.k()) >= THIN
            ? new Blas.Product(
                sizes.transposeB(),
                sizes.transposeA(),
                n,
                m,
                sizes.k(),
                sizes.ldb(),
                sizes.lda(),
                sizes.ldc(),
                DataType.F32,
                DataType.F32,
                false)
            : null;
    if ((n == 1 && !sizes.transposeA()) || (m == 1 && sizes.transposeB())) {
      kernel = backend.kernels().get("matrix_product_thin");
      blocks = Math.max(m, n);
    } else if (tiles(m, n, 64) * sizes.count() >= backend.cudaDevice().multiprocessors()) {
      kernel = backend.kernels().get("matrix_product_64");
      blocks = tiles(m, n, 64);
    } else { // more blocks, so that a small product is spread over the device
      kernel = backend.kernels().get("matrix_product_32", 64, 0);
      blocks = tiles(m, n, 32);
    }
  }

  private static long tiles(int m, int n, int extent) {
    return (long) Math.ceilDiv(m, extent) * Math.ceilDiv(n, extent);
  }

  @Override
  protected void compute(Stream stream, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    CudaStream on = backend.own(stream);
    if (byLibrary == null) {
      launch(on, a, b, c, 0, alpha, beta);
    } else {
      multiply(on, byLibrary, alpha, a.address(), b.address(), beta, c.address());
    }
  }

  private void multiply(
      CudaStream on, Blas.Product product, float alpha, long a, long b, float beta, long c) {
    LibraryHandles libraries = on.libraries();
    long workspace = on.workspace(libraries.blasWorkspace());
    for (int i = 0; i < sizes().count(); i++) {
      libraries.multiply(
          product,
          alpha,
          b + i * sizes().strideB() * Float.BYTES,
          a + i * sizes().strideA() * Float.BYTES,
          beta,
          c + i * sizes().strideC() * Float.BYTES,
          workspace);
    }
  }

  @Override
  protected void compute(Stream stream, Tensor scale, Tensor a, Tensor b, Tensor c) {
    launch(backend.own(stream), a, b, c, scale.address(), 0, 0);
  }

  /** struct MatrixProductParameters. */
  private void launch(
      CudaStream on, Tensor a, Tensor b, Tensor c, long scale, float alpha, float beta) {
    Sizes s = sizes();
    on.arguments()
        .pointer(a)
        .pointer(b)
        .pointer(c)
        .pointer(scale)
        .i64(s.transposeA() ? 1 : s.lda())
        .i64(s.transposeA() ? s.lda() : 1)
        .i64(s.transposeB() ? 1 : s.ldb())
        .i64(s.transposeB() ? s.ldb() : 1)
        .i64(s.ldc())
        .i64(s.strideA())
        .i64(s.strideB())
        .i64(s.strideC())
        .i32(s.m())
        .i32(s.n())
        .i32(s.k())
        .f32(alpha)
        .f32(beta);
    on.launch(kernel, blocks, s.count());
  }
}
