package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.ConvolutionPasses.Epilogue;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** conv2d_unfused.cu and rectify.cu: what a library's convolution leaves to be done. */
final class Unfused {
  private static final int ROWS_PER_SPLIT = 256;
  private static final int MOST_SPLITS = 1024;
  private static final int COLUMNS_PER_BLOCK = 32;

  private final DataType type;
  private final Rectifier srcActivation;
  private final Kernel epilogue;
  private final Kernel derivative;
  private final Kernel columnSums;
  private final SplitSum splitSum;
  private final long rows;
  private final int columns;
  private final long rowsPerSplit;

  Unfused(CudaBackend backend, Conv2dDescriptor d, DataType type, Rectifier srcActivation) {
    this.type = type;
    this.srcActivation = srcActivation;
    epilogue = backend.kernel("conv2d_epilogue", type);
    derivative = backend.kernel("rectify_backward", type);
    columnSums = backend.kernel("column_sums", type);
    splitSum = SplitSum.of(backend, 0, d.oc());
    rows = (long) d.n() * d.oh() * d.ow();
    columns = d.oc();
    // A function of the sizes alone, so that every device adds in the same order.
    rowsPerSplit = Math.max(ROWS_PER_SPLIT, Math.ceilDiv(rows, (long) MOST_SPLITS));
  }

  /**
   * struct EpilogueParameters.
   *
   * @param sums address of the convolution in F32: that of dst, if it is of that type
   */
  void epilogue(
      CudaStream stream, long sums, Tensor bias, Epilogue how, long shortcut, Tensor dst) {
    long elements = dst.shape().elements();
    stream
        .arguments()
        .pointer(sums)
        .pointer(dst)
        .pointer(shortcut)
        .pointer(bias)
        .i64(elements)
        .i32(columns)
        .rectifier(how.activation())
        .f32(how.branchWeight())
        .f32(how.shortcutWeight());
    stream.launch(epilogue, Elementwise.blocks(elements, type));
  }

  /** A library's gradient at the source. */
  interface DataGradient {
    /**
     * result = conv^T(diff_dst, weights) + beta result.
     *
     * @param result address of elements of the storage type
     * @param workspace of as many bytes as were asked for
     */
    void run(float beta, long result, long workspace);
  }

  /**
   * diff_src = ([diff_src +] conv^T(diff_dst, weights)) * psi'(src).
   *
   * @param workspaceBytes that the library needs
   */
  void dgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffSrc,
      Write write,
      long workspaceBytes,
      DataGradient gradient) {
    float beta = write == Write.ACCUMULATE ? 1 : 0;
    boolean gated = !srcActivation.isIdentity();
    // The derivative reads the source when the gradient is there.
    boolean aside = gated && src.address() == diffSrc.address();
    long workspace = stream.workspace(workspaceBytes + (aside ? diffSrc.bytes() : 0));
    long result = aside ? workspace + workspaceBytes : diffSrc.address();
    if (aside && write == Write.ACCUMULATE) {
      stream.copyOnDevice(diffSrc.address(), result, diffSrc.bytes());
    }
    gradient.run(beta, result, workspace);
    if (gated) {
      derivative(stream, src, result, diffSrc);
    }
  }

  /** struct RectifyParameters: diff_src = diff * psi'(src), where diff may be diff_src itself. */
  private void derivative(CudaStream stream, Tensor src, long diff, Tensor diffSrc) {
    long elements = diffSrc.shape().elements();
    stream
        .arguments()
        .pointer(src)
        .pointer(diff)
        .pointer(diffSrc)
        .i64(elements)
        .rectifier(srcActivation)
        .flag(false);
    stream.launch(derivative, Elementwise.blocks(elements, type));
  }

  /** struct ColumnSumsParameters: diff_bias = [diff_bias +] sums of diff_dst over its pixels. */
  void biasGradient(CudaStream stream, Tensor diffDst, Tensor diffBias, Write write) {
    int splits = Math.toIntExact(Math.ceilDiv(rows, rowsPerSplit));
    long partial = stream.workspace(splitSum.bytes(splits));
    stream
        .arguments()
        .pointer(diffDst)
        .pointer(partial)
        .i64(rows)
        .i64(rowsPerSplit)
        .i64(splitSum.stride())
        .i32(columns);
    stream.launch(columnSums, Math.ceilDiv(columns, COLUMNS_PER_BLOCK), splits);
    splitSum.run(stream, partial, splits, diffBias, diffBias, write);
  }
}
