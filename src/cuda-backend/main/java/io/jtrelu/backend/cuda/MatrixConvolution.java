package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/**
 * A convolution of one tap as matrix products of cuBLAS: pixels are rows, channels columns. What
 * cuBLAS sees is transposed, since it counts columns first.
 */
final class MatrixConvolution implements ConvolutionPasses {
  private final TiledConvolution own;
  private final Unfused unfused;
  private final Blas.Product forward;
  private final Blas.Product data;
  private final Blas.Product gradient;

  /**
   * @param own packs the weights
   */
  MatrixConvolution(
      CudaBackend backend,
      Conv2dDescriptor d,
      DataType type,
      Rectifier srcActivation,
      TiledConvolution own) {
    this.own = own;
    unfused = new Unfused(backend, d, type, srcActivation);
    boolean tf32 = backend.tf32();
    int pixels = d.n() * d.h() * d.w();
    int ic = d.ic();
    int oc = d.oc();
    int row = own.icPadded(); // of the packed weights
    forward = new Blas.Product(true, false, oc, pixels, ic, row, ic, oc, type, DataType.F32, tf32);
    data = new Blas.Product(false, false, ic, pixels, oc, row, oc, ic, type, type, tf32);
    gradient = new Blas.Product(false, true, ic, oc, pixels, ic, oc, ic, type, DataType.F32, tf32);
  }

  /** Whether a convolution that tiles can do is a matrix product. */
  static boolean fits(Conv2dDescriptor d) {
    return d.kh() == 1
        && d.kw() == 1
        && d.strideH() == 1
        && d.strideW() == 1
        && d.oh() == d.h()
        && d.ow() == d.w()
        && d.padTop() == 0
        && d.padLeft() == 0;
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
    long weights = own.weights(stream, packed).forward();
    LibraryHandles libraries = stream.libraries();
    long sumBytes = dst.type() == DataType.F32 ? 0 : dst.shape().elements() * Float.BYTES;
    long workspace = stream.workspace(libraries.blasWorkspace() + sumBytes);
    long sums = sumBytes == 0 ? dst.address() : workspace + libraries.blasWorkspace();
    libraries.multiply(forward, weights, src.address(), 0, sums, workspace);
    unfused.epilogue(stream, sums, bias, epilogue, shortcut, dst);
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    long weights = own.weights(stream, packed).forward();
    unfused.dgrad(
        stream,
        src,
        diffSrc,
        write,
        stream.libraries().blasWorkspace(),
        (beta, result, workspace) ->
            stream.libraries().multiply(data, weights, diffDst.address(), beta, result, workspace));
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    float beta = write == Write.ACCUMULATE ? 1 : 0;
    LibraryHandles libraries = stream.libraries();
    long workspace = stream.workspace(libraries.blasWorkspace());
    libraries.multiply(
        gradient, src.address(), diffDst.address(), beta, diffWeights.address(), workspace);
    unfused.biasGradient(stream, diffDst, diffBias, write);
  }
}
