package io.jtrelu.backend.cuda;

import io.jtrelu.backend.PolarFactor;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** polar_factor.cu, and matrix_product.cu for all matrices at once. */
final class CudaPolarFactor extends PolarFactor {
  private static final int PART = 4096; // elements of a block

  private final CudaBackend backend;
  private final Kernel squares;
  private final Kernel scale;
  private final int parts;

  CudaPolarFactor(CudaBackend backend, int rows, int columns, int count, float scale) {
    super(backend, rows, columns, count, scale);
    this.backend = backend;
    this.squares = backend.kernels().get("polar_squares");
    this.scale = backend.kernels().get("polar_scale");
    this.parts = Math.toIntExact(Math.ceilDiv((long) rows * columns, (long) PART));
  }

  /** struct PolarFactorParameters. */
  @Override
  protected void normalize(Stream stream, Tensor matrices, Tensor normalized) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(matrices)
        .pointer(normalized)
        .pointer(on.workspace((long) count() * parts * Double.BYTES))
        .i64((long) rows() * columns())
        .i32(parts);
    on.launch(squares, parts, count());
    on.launch(scale, parts, count());
  }
}
