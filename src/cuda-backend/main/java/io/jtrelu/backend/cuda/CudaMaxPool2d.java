package io.jtrelu.backend.cuda;

import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** max_pool.cu. */
final class CudaMaxPool2d extends MaxPool2d {
  private final CudaBackend backend;
  private final Kernel forward;
  private final Kernel forwardScalar;
  private final Kernel backward;
  private final Kernel backwardScalar;
  private final int pack;

  CudaMaxPool2d(
      CudaBackend backend, MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    super(backend.device(), descriptor, type, srcActivation);
    this.backend = backend;
    forward = backend.kernel("max_pool_forward", type);
    forwardScalar = backend.kernel("max_pool_forward_scalar", type);
    backward = backend.kernel("max_pool_backward", type);
    backwardScalar = backend.kernel("max_pool_backward_scalar", type);
    pack = 16 / type.bytes();
  }

  /** Whether a backend prepared it. */
  boolean belongsTo(CudaBackend other) {
    return backend == other;
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst, Tensor argmax) {
    boolean vector = vector(src.address() | dst.address(), argmax);
    CudaStream on = backend.own(stream);
    run(
        on,
        vector ? forward : forwardScalar,
        src,
        0,
        argmax,
        dst,
        dst.shape().elements() / (vector ? pack : 1),
        Write.OVERWRITE);
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write) {
    boolean vector = vector(diffDst.address() | src.address() | diffSrc.address(), argmax);
    CudaStream on = backend.own(stream);
    run(
        on,
        vector ? backward : backwardScalar,
        src,
        diffDst.address(),
        argmax,
        diffSrc,
        diffSrc.shape().elements() / (vector ? pack : 1),
        write);
  }

  private boolean vector(long addresses, Tensor argmax) {
    return descriptor().c() % pack == 0 && addresses % 16 == 0 && argmax.address() % pack == 0;
  }

  /** struct MaxPoolParameters. */
  private void run(
      CudaStream on,
      Kernel kernel,
      Tensor src,
      long diff,
      Tensor argmax,
      Tensor out,
      long packs,
      Write write) {
    MaxPool2dDescriptor d = descriptor();
    on.arguments()
        .pointer(src)
        .pointer(diff)
        .pointer(argmax)
        .pointer(out)
        .i64(packs)
        .i32(d.h())
        .i32(d.w())
        .i32(d.c())
        .i32(d.oh())
        .i32(d.ow())
        .i32(d.kernel())
        .i32(d.stride())
        .i32(d.padBegin())
        .rectifier(srcActivation())
        .flag(write == Write.ACCUMULATE)
        .flag(!srcActivation().isIdentity())
        .flag(marksPositive())
        .i32(0);
    on.launch(kernel, kernel.blocksFor(packs));
  }
}
