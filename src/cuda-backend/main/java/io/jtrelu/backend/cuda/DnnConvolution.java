package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/** One pass of a convolution by cuDNN. */
final class DnnConvolution implements ConvolutionPasses {
  private final CudaBackend backend;
  private final TiledConvolution own;
  private final ConvolutionProblem problem;
  private final Dnn.Algorithm algorithm;
  private final Dnn.Descriptors descriptors;
  private final Unfused unfused;

  /**
   * @param own packs the weights
   */
  DnnConvolution(
      CudaBackend backend,
      ConvolutionProblem problem,
      Rectifier srcActivation,
      Dnn.Algorithm algorithm,
      TiledConvolution own) {
    this.backend = backend;
    this.own = own;
    this.problem = problem;
    this.algorithm = algorithm;
    unfused = new Unfused(backend, problem.d(), problem.type(), srcActivation);
    descriptors = backend.libraries().ask(dnn -> dnn.describe(problem));
  }

  /**
   * Whether cuDNN can be asked to do a pass of a convolution that tiles can do. Its padding is the
   * same on both sides. Its results have the type of its operands: in 16 bits a sum is rounded
   * before the bias is added, with which it may cancel, and gradients of weights are to be F32.
   */
  static boolean fits(Conv2dDescriptor d, Pass pass, DataType type) {
    return extent(d.h(), d.padTop(), d.dilationH(), d.kh(), d.strideH()) == d.oh()
        && extent(d.w(), d.padLeft(), d.dilationW(), d.kw(), d.strideW()) == d.ow()
        && (pass == Pass.DGRAD || type == DataType.F32);
  }

  private static int extent(int size, int padding, int dilation, int taps, int stride) {
    return (size + 2 * padding - dilation * (taps - 1) - 1) / stride + 1;
  }

  /** What cuDNN proposes; nothing where it cannot do the pass. */
  static List<Dnn.Algorithm> algorithms(Libraries libraries, ConvolutionProblem problem) {
    return libraries.ask(
        dnn -> {
          try (Dnn.Descriptors described = dnn.describe(problem)) {
            return dnn.algorithms(problem, described);
          } catch (CudaException refused) {
            System.getLogger(DnnConvolution.class.getPackageName())
                .log(System.Logger.Level.DEBUG, "cuDNN does not do " + problem, refused);
            return List.of();
          }
        });
  }

  /** Bytes of workspace that dense weights take: none where the packed ones are dense. */
  private long weightsBytes() {
    return own.icPadded() == problem.d().ic()
        ? 0
        : Scratch.aligned(problem.d().weights().elements() * problem.type().bytes());
  }

  /**
   * The weights without the zeros that our kernels want behind the channels.
   *
   * @param workspace of {@link #weightsBytes}
   */
  private long weights(CudaStream stream, PackedWeights packed, long workspace) {
    CudaWeights weights = own.weights(stream, packed);
    if (weightsBytes() == 0) {
      return weights.forward();
    }
    Tensor alias = weights.alias(stream);
    if (problem.type() == DataType.F32) {
      return alias.address();
    }
    long elements = problem.d().weights().elements();
    backend.convert(stream, alias.address(), DataType.F32, workspace, problem.type(), elements);
    return workspace;
  }

  private void convolve(
      CudaStream stream, long a, long b, float beta, long result, long workspace) {
    stream.libraries().convolve(problem, descriptors, algorithm, a, b, beta, result, workspace);
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
    long workspace = stream.workspace(weightsBytes() + algorithm.workspace());
    long weights = weights(stream, packed, workspace);
    convolve(stream, src.address(), weights, 0, dst.address(), workspace + weightsBytes());
    unfused.epilogue(stream, dst.address(), bias, epilogue, shortcut, dst);
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    unfused.dgrad(
        stream,
        src,
        diffSrc,
        write,
        weightsBytes() + Scratch.aligned(algorithm.workspace()),
        (beta, result, workspace) -> {
          long weights = weights(stream, packed, workspace);
          convolve(stream, weights, diffDst.address(), beta, result, workspace + weightsBytes());
        });
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    convolve(
        stream,
        src.address(),
        diffDst.address(),
        write == Write.ACCUMULATE ? 1 : 0,
        diffWeights.address(),
        stream.workspace(algorithm.workspace()));
    unfused.biasGradient(stream, diffDst, diffBias, write);
  }

  @Override
  public void close() {
    descriptors.close();
  }
}
