package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** rectify.cu. */
final class CudaRectify extends Rectify {
  private final CudaBackend backend;
  private final Kernel forward;
  private final Kernel backward;
  private final long blocks;

  CudaRectify(CudaBackend backend, long elements, DataType type, Rectifier rectifier) {
    super(backend.device(), elements, type, rectifier);
    this.backend = backend;
    forward = backend.kernel("rectify_forward", type);
    backward = backend.kernel("rectify_backward", type);
    blocks = Elementwise.blocks(elements, type);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    run(backend.own(stream), forward, src.address(), 0, dst, Write.OVERWRITE);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor dst, Tensor diffDst, Tensor diffSrc, Write write) {
    run(backend.own(stream), backward, dst.address(), diffDst.address(), diffSrc, write);
  }

  /** struct RectifyParameters. */
  private void run(CudaStream on, Kernel kernel, long src, long diff, Tensor out, Write write) {
    on.arguments()
        .pointer(src)
        .pointer(diff)
        .pointer(out)
        .i64(elements())
        .rectifier(rectifier())
        .flag(write == Write.ACCUMULATE);
    on.launch(kernel, blocks);
  }
}
