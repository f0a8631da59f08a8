package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Tensor;

/**
 * conv2d_wgrad_reduce: the gradients of weights and bias from the partial sums of a wgrad's splits,
 * added in an order that their number alone decides, so that a run can be repeated.
 *
 * @param reduce the kernel
 * @param weights number of weights
 * @param bias number of biases, which follow the weights in each split
 */
record SplitSum(Kernel reduce, long weights, int bias) {
  private static final int MOST_GROUPS = 32; // whose threads still read whole lines
  private static final int SPLITS_OF_GROUP = 8; // that a thread reads at once

  /** Prepares the sum. */
  static SplitSum of(CudaBackend backend, long weights, int bias) {
    return new SplitSum(backend.kernels().get("conv2d_wgrad_reduce"), weights, bias);
  }

  /** The gradients of an empty batch, which has no splits. */
  static void ofNothing(CudaStream stream, Tensor diffWeights, Tensor diffBias, Write write) {
    if (write == Write.OVERWRITE) {
      stream.set(diffWeights.address(), 0, Float.BYTES, diffWeights.shape().elements());
      stream.set(diffBias.address(), 0, Float.BYTES, diffBias.shape().elements());
    }
  }

  /** Floats from one split to the next. */
  long stride() {
    return Math.ceilDiv(weights + bias, 4L) * 4;
  }

  /** Workspace for so many splits, in bytes. */
  long bytes(int splits) {
    return splits * stride() * Float.BYTES;
  }

  /** struct Conv2dReduceParams. */
  void run(
      CudaStream stream,
      long partial,
      int splits,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    int groups = Math.clamp(Integer.highestOneBit(splits / SPLITS_OF_GROUP), 1, MOST_GROUPS);
    stream
        .arguments()
        .pointer(partial)
        .pointer(diffWeights)
        .pointer(diffBias)
        .i64(stride())
        .i64(weights)
        .i32(bias)
        .i32(splits)
        .flag(write == Write.ACCUMULATE)
        .flag(diffWeights.address() % 16 == 0)
        .i32(groups)
        .i32(0);
    stream.launch(reduce, reduce.blocksFor(Math.ceilDiv(weights + bias, 4L) * groups));
  }
}
