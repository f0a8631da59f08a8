package io.jtrelu.backend.cuda;

import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** batch_norm.cu. */
final class CudaBatchNorm extends BatchNorm {
  private static final int CHANNELS_PER_BLOCK = 32;
  private static final int LOCATIONS_PER_SLAB = 64; // at least, so that a block has work
  private static final int MOST_SLABS = 128;
  private static final long NONE = 0;

  private final CudaBackend backend;
  private final Kernel moments;
  private final Kernel sums;
  private final Kernel merge;
  private final Kernel total;
  private final Kernel forward;
  private final Kernel backward;
  private final int slabs;

  CudaBatchNorm(
      CudaBackend backend,
      Shape src,
      DataType type,
      int parts,
      float epsilon,
      Rectifier activation) {
    super(backend.device(), src, type, parts, epsilon, activation);
    this.backend = backend;
    moments = backend.kernel("batch_norm_moments", type);
    sums = backend.kernel("batch_norm_sums", type);
    merge = backend.kernels().get("batch_norm_merge");
    total = backend.kernels().get("batch_norm_total");
    forward = backend.kernel("batch_norm_forward", type);
    backward = backend.kernel("batch_norm_backward", type);
    // A function of the sizes alone, so that every device adds in the same order; none is empty.
    long most = Math.min(MOST_SLABS, Math.ceilDiv(locations(), LOCATIONS_PER_SLAB));
    long size = Math.ceilDiv(locations(), most);
    slabs = (int) Math.ceilDiv(locations(), size);
  }

  private long slabBlocks() {
    return (long) slabs * Math.ceilDiv(channels(), CHANNELS_PER_BLOCK);
  }

  private long partial(CudaStream on) {
    return on.workspace(2L * slabs * channels() * Float.BYTES);
  }

  /** struct BatchNormParameters. */
  private void arguments(
      CudaStream on,
      Tensor source,
      long diff,
      long mean,
      long variance,
      long gamma,
      long beta,
      long allSums,
      long out,
      Write write) {
    on.arguments()
        .pointer(source)
        .pointer(diff)
        .pointer(mean)
        .pointer(variance)
        .pointer(gamma)
        .pointer(beta)
        .pointer(allSums)
        .pointer(out)
        .i64(locations())
        .i32(channels())
        .i32(parts())
        .i32(slabs)
        .f32(epsilon())
        .rectifier(activation())
        .flag(write == Write.ACCUMULATE);
  }

  /** struct BatchNormMergeParameters. */
  private void merge(
      CudaStream on,
      Kernel kernel,
      long from,
      long first,
      long second,
      long diffGamma,
      long diffBeta,
      long count,
      int pieces,
      boolean divide,
      Write write) {
    on.arguments()
        .pointer(from)
        .pointer(first)
        .pointer(second)
        .pointer(diffGamma)
        .pointer(diffBeta)
        .i64(count)
        .i32(channels())
        .i32(pieces)
        .flag(divide)
        .flag(write == Write.ACCUMULATE);
    on.launch(kernel, kernel.blocksFor(channels()));
  }

  private long second(Tensor pair) {
    return pair.address() + (long) channels() * Float.BYTES;
  }

  @Override
  protected void runMoments(Stream stream, Tensor source, Tensor result) {
    CudaStream on = backend.own(stream);
    long partial = partial(on);
    arguments(on, source, NONE, NONE, NONE, NONE, NONE, NONE, partial, Write.OVERWRITE);
    on.launch(moments, slabBlocks());
    merge(
        on,
        merge,
        partial,
        result.address(),
        second(result),
        NONE,
        NONE,
        locations(),
        slabs,
        false,
        Write.OVERWRITE);
  }

  @Override
  protected void runStatistics(Stream stream, Tensor allMoments, Tensor mean, Tensor variance) {
    merge(
        backend.own(stream),
        merge,
        allMoments.address(),
        mean.address(),
        variance.address(),
        NONE,
        NONE,
        parts() * locations(),
        parts(),
        true,
        Write.OVERWRITE);
  }

  @Override
  protected void runForward(
      Stream stream,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor beta,
      Tensor destination) {
    CudaStream on = backend.own(stream);
    arguments(
        on,
        source,
        NONE,
        mean.address(),
        variance.address(),
        gamma.address(),
        beta.address(),
        NONE,
        destination.address(),
        Write.OVERWRITE);
    on.launch(forward, Elementwise.blocks(src().elements(), type()));
  }

  @Override
  protected void runBackwardParameters(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor result,
      Tensor diffGamma,
      Tensor diffBeta,
      Write write) {
    CudaStream on = backend.own(stream);
    long partial = partial(on);
    arguments(
        on,
        source,
        diffDst.address(),
        mean.address(),
        variance.address(),
        NONE,
        NONE,
        NONE,
        partial,
        Write.OVERWRITE);
    on.launch(sums, slabBlocks());
    merge(
        on,
        total,
        partial,
        result.address(),
        second(result),
        diffGamma.address(),
        diffBeta.address(),
        locations(),
        slabs,
        false,
        write);
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor allSums,
      Tensor diffSrc,
      Write write) {
    CudaStream on = backend.own(stream);
    arguments(
        on,
        source,
        diffDst.address(),
        mean.address(),
        variance.address(),
        gamma.address(),
        NONE,
        allSums.address(),
        diffSrc.address(),
        write);
    on.launch(backward, Elementwise.blocks(src().elements(), type()));
  }
}
