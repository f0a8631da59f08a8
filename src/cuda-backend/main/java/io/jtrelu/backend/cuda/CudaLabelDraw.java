package io.jtrelu.backend.cuda;

import io.jtrelu.backend.LabelDraw;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** label_draw.cu. */
final class CudaLabelDraw extends LabelDraw {
  private static final int THREADS = 128;

  private final CudaBackend backend;
  private final Kernel kernel;

  CudaLabelDraw(CudaBackend backend, int n, int classes, DataType type) {
    super(backend.device(), n, classes, type);
    this.backend = backend;
    kernel = backend.kernels().get("label_draw" + Kernels.suffix(type), THREADS, 0);
  }

  /** struct LabelDrawParameters. */
  @Override
  protected void compute(
      Stream stream,
      Tensor logits,
      Tensor given,
      long seed,
      Tensor sequence,
      int first,
      Tensor labels) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(logits)
        .pointer(given)
        .pointer(sequence)
        .pointer(labels)
        .i64(seed)
        .i32(n())
        .i32(classes())
        .i32(first);
    on.launch(kernel, kernel.blocksFor(32L * n())); // a warp per row
  }
}
