package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** dropout.cu. */
final class CudaDropout extends Dropout {
  private final CudaBackend backend;
  private final Kernel kernel;
  private final long blocks;

  CudaDropout(CudaBackend backend, long elements, DataType type, float rate) {
    super(backend.device(), elements, type, rate);
    this.backend = backend;
    kernel = backend.kernel("dropout", type);
    blocks = Elementwise.blocks(elements, type);
  }

  /** struct DropoutParameters. */
  @Override
  protected void run(
      Stream stream, Tensor from, Tensor to, long seed, Tensor sequence, Write write) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(from)
        .pointer(to)
        .pointer(sequence)
        .i64(elements())
        .i64(seed)
        .f32(rate())
        .f32((float) (1 / (1.0 - rate())))
        .flag(write == Write.ACCUMULATE);
    on.launch(kernel, blocks);
  }
}
