package io.jtrelu.backend.cuda;

import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** global_mean_pool.cu. */
final class CudaGlobalMeanPool extends GlobalMeanPool {
  private static final int CHANNELS_PER_BLOCK = 32;

  private final CudaBackend backend;
  private final Kernel forward;
  private final Kernel backward;
  private final Kernel backwardScalar;
  private final int pack;

  CudaGlobalMeanPool(CudaBackend backend, Shape src, DataType type, Rectifier srcActivation) {
    super(backend.device(), src, type, srcActivation);
    this.backend = backend;
    forward = backend.kernel("global_mean_pool_forward", type);
    backward = backend.kernel("global_mean_pool_backward", type);
    backwardScalar = backend.kernel("global_mean_pool_backward_scalar", type);
    pack = 16 / type.bytes();
  }

  @Override
  protected void runForward(Stream stream, Tensor source, Tensor destination) {
    CudaStream on = backend.own(stream);
    long images = src().dim(0);
    arguments(on, source, 0, destination, images, Write.OVERWRITE);
    on.launch(forward, images * Math.ceilDiv(src().dim(3), CHANNELS_PER_BLOCK));
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor source, Tensor diffSrc, Write write) {
    CudaStream on = backend.own(stream);
    long addresses = diffDst.address() | source.address() | diffSrc.address();
    boolean vector = src().dim(3) % pack == 0 && addresses % 16 == 0;
    long packs = src().elements() / (vector ? pack : 1);
    arguments(on, source, diffDst.address(), diffSrc, packs, write);
    on.launch(vector ? backward : backwardScalar, backward.blocksFor(packs));
  }

  /** struct GlobalMeanPoolParameters. */
  private void arguments(CudaStream on, Tensor source, long diff, Tensor out, long n, Write write) {
    on.arguments()
        .pointer(source)
        .pointer(diff)
        .pointer(out)
        .i64(n)
        .i32(Math.multiplyExact(src().dim(1), src().dim(2)))
        .i32(src().dim(3))
        .rectifier(srcActivation())
        .flag(write == Write.ACCUMULATE)
        .flag(!srcActivation().isIdentity());
  }
}
