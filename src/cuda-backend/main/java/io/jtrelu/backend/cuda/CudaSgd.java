package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** sgd of optimizer.cu. */
final class CudaSgd extends Sgd {
  private final CudaBackend backend;
  private final Kernel kernel;

  CudaSgd(CudaBackend backend, long elements, float momentum, boolean nesterov, float weightDecay) {
    super(backend.device(), elements, momentum, nesterov, weightDecay);
    this.backend = backend;
    kernel = backend.kernels().get("sgd");
  }

  /** struct SgdParameters. */
  @Override
  protected void compute(
      Stream stream,
      Tensor parameters,
      Tensor gradient,
      Tensor velocity,
      Tensor learningRate,
      Tensor gradientScale) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(parameters)
        .pointer(gradient)
        .pointer(velocity)
        .pointer(learningRate)
        .pointer(gradientScale)
        .i64(elements())
        .f32(momentum())
        .f32(weightDecay())
        .flag(nesterov());
    on.launch(kernel, kernel.blocksFor(Math.ceilDiv(elements(), 4L)));
  }
}
