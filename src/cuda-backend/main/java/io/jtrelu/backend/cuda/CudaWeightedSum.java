package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** weighted_sum.cu. */
final class CudaWeightedSum extends WeightedSum {
  private final CudaBackend backend;
  private final Kernel forward;
  private final Kernel backward;
  private final long blocks;

  CudaWeightedSum(
      CudaBackend backend,
      long elements,
      DataType type,
      float weightA,
      float weightB,
      Rectifier activation) {
    super(backend.device(), elements, type, weightA, weightB, activation);
    this.backend = backend;
    forward = backend.kernel("weighted_sum_forward", type);
    backward = backend.kernel("weighted_sum_backward", type);
    blocks = Elementwise.blocks(elements, type);
  }

  @Override
  protected void runForward(Stream stream, Tensor a, Tensor b, Tensor dst) {
    CudaStream on = backend.own(stream);
    run(on, forward, a, b, dst, weightA(), weightB(), activation(), Write.OVERWRITE);
  }

  @Override
  protected void runBackward(
      Stream stream,
      float weight,
      Tensor diffDst,
      Rectifier srcActivation,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    CudaStream on = backend.own(stream);
    run(on, backward, diffDst, src, diffSrc, weight, 0, srcActivation, write);
  }

  /** struct WeightedSumParameters. */
  private void run(
      CudaStream on,
      Kernel kernel,
      Tensor a,
      Tensor b,
      Tensor out,
      float weightA,
      float weightB,
      Rectifier rectifier,
      Write write) {
    on.arguments()
        .pointer(a)
        .pointer(b)
        .pointer(out)
        .i64(elements())
        .f32(weightA)
        .f32(weightB)
        .rectifier(rectifier)
        .flag(write == Write.ACCUMULATE)
        .flag(!rectifier.isIdentity());
    on.launch(kernel, blocks);
  }
}
