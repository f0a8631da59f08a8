package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.ConvolutionKernels.Epilogue;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** A convolution by the kernels that fit it: tiled ones where they can, else the direct ones. */
final class CudaConv2d extends Conv2d {
  private final CudaBackend backend;
  private final ConvolutionKernels kernels;
  private final Epilogue epilogue;

  CudaConv2d(
      CudaBackend backend,
      Conv2dDescriptor descriptor,
      DataType type,
      Rectifier activation,
      Rectifier srcActivation) {
    super(backend.device(), descriptor, type, activation, srcActivation);
    this.backend = backend;
    kernels =
        TiledConvolution.fits(descriptor)
            ? new TiledConvolution(backend, descriptor, type, srcActivation)
            : new DirectConvolution(backend, descriptor, type, srcActivation);
    epilogue = new Epilogue(activation, 1, 0);
    backend.expectScratch(kernels.scratchBytes());
  }

  @Override
  public long packedBytes() {
    return kernels.packedBytes();
  }

  @Override
  public long scratchBytes() {
    return kernels.scratchBytes();
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    return kernels.newPackedWeights();
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    kernels.pack(backend.own(stream), weights, packed);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    forward(backend.own(stream), src, weights, bias, epilogue, 0, dst);
  }

  /** The forward pass with another epilogue. */
  void forward(
      CudaStream stream,
      Tensor src,
      PackedWeights weights,
      Tensor bias,
      Epilogue how,
      long shortcut,
      Tensor dst) {
    kernels.fprop(stream, src, weights, bias, how, shortcut, dst);
  }

  /** Whether a backend prepared it. */
  boolean belongsTo(CudaBackend other) {
    return backend == other;
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    kernels.dgrad(backend.own(stream), diffDst, weights, src, diffSrc, write);
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    CudaStream on = backend.own(stream);
    if (descriptor().n() > 0) {
      kernels.wgrad(on, src, diffDst, diffWeights, diffBias, write);
    } else if (write == Write.OVERWRITE) {
      on.set(diffWeights.address(), 0, Float.BYTES, diffWeights.shape().elements());
      on.set(diffBias.address(), 0, Float.BYTES, diffBias.shape().elements());
    }
  }
}
