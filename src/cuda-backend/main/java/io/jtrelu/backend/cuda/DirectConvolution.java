package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** conv2d_direct.cu: any convolution, one thread per output. */
final class DirectConvolution implements ConvolutionKernels {
  private static final long WANTED_THREADS = 1L << 18;
  private static final Epilogue PLAIN = new Epilogue(Rectifier.IDENTITY, 1, 0);

  /** What packed weights depend on. */
  private record Form(CudaBackend backend, int oc, int kh, int kw, int icPerGroup) {}

  private final CudaBackend backend;
  private final Conv2dDescriptor d;
  private final Epilogue gate;
  private final Form form;
  private final Kernel pack;
  private final Kernel fprop;
  private final Kernel dgrad;
  private final Kernel wgrad;
  private final SplitSum splitSum;

  DirectConvolution(
      CudaBackend backend, Conv2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    this.backend = backend;
    this.d = descriptor;
    gate = new Epilogue(srcActivation, 1, 0);
    form = new Form(backend, d.oc(), d.kh(), d.kw(), d.ic() / d.groups());
    pack = backend.kernels().get("conv2d_direct_pack");
    fprop = backend.kernel("conv2d_direct_fprop", type);
    dgrad = backend.kernel("conv2d_direct_dgrad", type);
    wgrad = backend.kernel("conv2d_direct_wgrad", type);
    splitSum = SplitSum.of(backend, d.weights().elements(), d.oc());
  }

  @Override
  public PackedWeights newPackedWeights() {
    CudaMemory memory = backend.scratch(d.weights().elements() * Float.BYTES);
    return new CudaWeights(form, memory, 0);
  }

  /** struct Conv2dDirectPackParameters; dgrad reads the weights as they are. */
  @Override
  public void pack(CudaStream stream, Tensor weights, PackedWeights packed) {
    CudaWeights own = CudaWeights.of(stream, packed, form);
    long count = weights.shape().elements();
    stream
        .arguments()
        .pointer(weights)
        .pointer(own.forwardToPack())
        .i64(count)
        .i32(d.oc())
        .i32(Math.toIntExact(count / d.oc()));
    stream.launch(pack, pack.blocksFor(count));
    own.packed(weights);
  }

  @Override
  public void fprop(
      CudaStream stream,
      Tensor src,
      PackedWeights packed,
      Tensor bias,
      Epilogue epilogue,
      long shortcut,
      Tensor dst) {
    long weights = CudaWeights.of(stream, packed, form).forward();
    long count = dst.shape().elements();
    arguments(
        stream,
        src.address(),
        shortcut,
        weights,
        bias.address(),
        dst.address(),
        count,
        epilogue,
        Write.OVERWRITE,
        0);
    stream.launch(fprop, fprop.blocksFor(count));
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    long weights = CudaWeights.of(stream, packed, form).alias(stream).address();
    long count = diffSrc.shape().elements();
    arguments(
        stream,
        diffDst.address(),
        src.address(),
        weights,
        0,
        diffSrc.address(),
        count,
        gate,
        write,
        0);
    stream.launch(dgrad, dgrad.blocksFor(count));
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    long count = splitSum.weights() + d.oc();
    int rows = Math.multiplyExact(d.n(), d.oh());
    // A function of the sizes alone, so that every device adds in the same order.
    int rowsPerSplit =
        (int) Math.ceilDiv(rows, Math.clamp(WANTED_THREADS / count, 1L, Math.min(rows, 65535L)));
    int splits = Math.ceilDiv(rows, rowsPerSplit);
    long partial = stream.workspace(splitSum.bytes(splits));
    arguments(
        stream,
        src.address(),
        diffDst.address(),
        0,
        0,
        partial,
        count,
        PLAIN,
        Write.OVERWRITE,
        rowsPerSplit);
    stream.launch(wgrad, wgrad.blocksFor(count), splits);
    splitSum.run(stream, partial, splits, diffWeights, diffBias, write);
  }

  /** struct Conv2dDirectParameters. */
  private void arguments(
      CudaStream stream,
      long in,
      long gateOrShortcut,
      long weights,
      long bias,
      long out,
      long count,
      Epilogue epilogue,
      Write write,
      int rowsPerSplit) {
    stream
        .arguments()
        .pointer(in)
        .pointer(gateOrShortcut)
        .pointer(weights)
        .pointer(bias)
        .pointer(out)
        .i64(count)
        .i64(splitSum.stride())
        .i32(d.n())
        .i32(d.h())
        .i32(d.w())
        .i32(d.ic())
        .i32(d.oc())
        .i32(d.oh())
        .i32(d.ow())
        .i32(d.kh())
        .i32(d.kw())
        .i32(d.strideH())
        .i32(d.strideW())
        .i32(d.padTop())
        .i32(d.padLeft())
        .i32(d.dilationH())
        .i32(d.dilationW())
        .i32(d.groups())
        .rectifier(epilogue.activation())
        .flag(write == Write.ACCUMULATE)
        .flag(!epilogue.activation().isIdentity())
        .i32(rowsPerSplit)
        .f32(epilogue.branchWeight())
        .f32(epilogue.shortcutWeight());
  }
}
