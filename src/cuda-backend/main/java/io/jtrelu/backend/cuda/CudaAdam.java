package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** adam of optimizer.cu. */
final class CudaAdam extends Adam {
  private final CudaBackend backend;
  private final Kernel kernel;

  CudaAdam(
      CudaBackend backend,
      long elements,
      float beta1,
      float beta2,
      float epsilon,
      float weightDecay) {
    super(backend.device(), elements, beta1, beta2, epsilon, weightDecay);
    this.backend = backend;
    kernel = backend.kernels().get("adam");
  }

  /** struct AdamParameters. */
  @Override
  protected void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor moment1,
      Tensor moment2,
      Tensor scalars,
      Tensor gradientScale) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(parameters)
        .pointer(gradient)
        .pointer(moment1)
        .pointer(moment2)
        .pointer(scalars)
        .pointer(gradientScale)
        .i64(elements())
        .f32(beta1())
        .f32(beta2())
        .f32(epsilon())
        .f32(weightDecay());
    on.launch(kernel, kernel.blocksFor(Math.ceilDiv(elements(), 4L)));
  }
}
