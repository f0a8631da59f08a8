package io.jtrelu.backend.cuda;

import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** softmax_cross_entropy.cu. */
final class CudaSoftmaxCrossEntropy extends SoftmaxCrossEntropy {
  private static final int THREADS = 128;

  private final CudaBackend backend;
  private final Kernel kernel;

  CudaSoftmaxCrossEntropy(CudaBackend backend, int n, int classes, DataType type, float smoothing) {
    super(backend.device(), n, classes, type, smoothing);
    this.backend = backend;
    kernel = backend.kernels().get("softmax_cross_entropy" + Kernels.suffix(type), THREADS, 0);
  }

  /** struct SoftmaxCrossEntropyParameters. */
  @Override
  protected void compute(
      Stream stream,
      Tensor logits,
      Tensor labels,
      float gradientScale,
      Tensor diffLogits,
      Tensor losses,
      Tensor correct) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(logits)
        .pointer(labels)
        .pointer(diffLogits)
        .pointer(losses)
        .pointer(correct)
        .i32(n())
        .i32(classes())
        .f32(smoothing())
        .f32(gradientScale);
    on.launch(kernel, kernel.blocksFor(32L * n())); // a warp per row
  }
}
