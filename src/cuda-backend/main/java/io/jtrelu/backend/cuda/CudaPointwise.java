package io.jtrelu.backend.cuda;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** pointwise.cu. */
final class CudaPointwise extends Pointwise {
  private static final int PACK_BYTES = 16;

  private final CudaBackend backend;
  private final Kernel forward;
  private final Kernel backward;

  CudaPointwise(CudaBackend backend, long elements, DataType type, TransformedActivation function) {
    super(backend.device(), elements, type, function);
    String name = function.function().activationName();
    if (!(function.function() instanceof Activation)) {
      throw new UnsupportedException(
          "cuda has no kernel for the activation "
              + name
              + "; it has "
              + String.join(", ", Activation.names()));
    }
    this.backend = backend;
    forward = backend.kernel("pointwise_forward_" + name, type);
    backward = backend.kernel("pointwise_backward_" + name, type);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst) {
    run(backend.own(stream), forward, src, 0, dst, Write.OVERWRITE);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor saved, Tensor diffDst, Tensor diffSrc, Write write) {
    run(backend.own(stream), backward, saved, diffDst.address(), diffSrc, write);
  }

  /** struct PointwiseParameters. */
  private void run(CudaStream on, Kernel kernel, Tensor src, long diff, Tensor out, Write write) {
    on.arguments()
        .pointer(src)
        .pointer(diff)
        .pointer(out)
        .i64(elements())
        .f32((float) function().inputScale())
        .f32((float) function().inputShift())
        .f32((float) function().outputScale())
        .f32((float) function().outputShift())
        .f32((float) function().negativeSlope())
        .flag(write == Write.ACCUMULATE)
        .flag(savesOutput());
    long packs = Math.ceilDiv(elements() * type().bytes(), (long) PACK_BYTES);
    on.launch(kernel, kernel.blocksFor(packs));
  }
}
