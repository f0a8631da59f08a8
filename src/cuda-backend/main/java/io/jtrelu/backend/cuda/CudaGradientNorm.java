package io.jtrelu.backend.cuda;

import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** gradient_norm of optimizer.cu. */
final class CudaGradientNorm extends GradientNorm {
  private static final long ELEMENTS_PER_BLOCK = 256 * 16;
  private static final int MOST_PARTIALS = 1024;

  private final CudaBackend backend;
  private final Kernel partial;
  private final Kernel total;
  private final int partials;

  CudaGradientNorm(CudaBackend backend, long elements) {
    super(backend.device(), elements);
    this.backend = backend;
    partial = backend.kernels().get("gradient_norm_partial");
    total = backend.kernels().get("gradient_norm");
    // A function of the size alone, so that every device adds in the same order.
    partials = (int) Math.min(MOST_PARTIALS, Math.ceilDiv(elements, ELEMENTS_PER_BLOCK));
  }

  /** struct GradientNormParameters. */
  @Override
  protected void compute(Stream stream, Tensor gradient, float maxNorm, Tensor result) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(gradient)
        .pointer(on.workspace(MOST_PARTIALS * Double.BYTES))
        .pointer(result)
        .i64(elements())
        .i32(partials)
        .f32(maxNorm);
    on.launch(partial, partials);
    on.launch(total, 1);
  }
}
