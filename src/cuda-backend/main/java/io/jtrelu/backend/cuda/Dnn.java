package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.DataType;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The convolutions of cuDNN with dense operands, activations NHWC and weights KRSC, of one group
 * and padded alike on both sides; for the work of one stream. The context must be current at every
 * call. Not thread-safe.
 */
interface Dnn extends AutoCloseable {
  // cudnnTensorFormat_t, cudnnConvolutionMode_t, cudnnDataType_t
  int NHWC = 1;
  int CROSS_CORRELATION = 1;
  int DATA_FLOAT = 0;

  /** More than there are. */
  int MOST_ALGORITHMS = 16;

  /** cudnnDataType_t of all operands. */
  static int dataType(ConvolutionProblem problem) {
    return switch (problem.type()) {
      case F32 -> DATA_FLOAT;
      case F16 -> 2;
      case BF16 -> 9;
      case I32, U8 -> throw new IllegalArgumentException("no convolutions of " + problem.type());
    };
  }

  /** cudnnMathType_t: CUDNN_FMA_MATH for exact F32, which by default may be rounded to tf32. */
  static int mathType(ConvolutionProblem problem) {
    if (problem.type() == DataType.F32) {
      return problem.tf32() ? 0 : 3;
    }
    return 1; // CUDNN_TENSOR_OP_MATH
  }

  /** cuDNN's descriptors of a problem; closed by whoever asked for them. */
  interface Descriptors extends AutoCloseable {
    @Override
    void close();
  }

  /**
   * A way that cuDNN proposes.
   *
   * @param number cudnnConvolution*Algo_t
   * @param mathType cudnnMathType_t
   * @param workspace bytes of device memory that it needs
   */
  record Algorithm(int number, int mathType, long workspace) {
    /**
     * What a proposal comes to, or null where it is none for us: it must repeat its results bit by
     * bit, and add products as they are; Winograd's and Fourier's transforms round before they
     * multiply.
     */
    static @Nullable Algorithm of(
        ConvolutionProblem problem,
        int number,
        int status,
        int determinism,
        int mathType,
        long workspace) {
      boolean direct =
          switch (problem.pass()) {
            case FPROP -> number <= 2; // IMPLICIT_GEMM, IMPLICIT_PRECOMP_GEMM, GEMM
            case DGRAD, WGRAD -> number == 1; // ALGO_1; ALGO_0 and ALGO_3 add in any order
          };
      if (status != 0 || determinism != 1 || !direct) {
        return null;
      }
      boolean exact = problem.type() == DataType.F32 && !problem.tf32();
      return new Algorithm(number, exact ? Dnn.mathType(problem) : mathType, workspace);
    }
  }

  /** Describes a problem. */
  Descriptors describe(ConvolutionProblem problem);

  /** The ways that cuDNN proposes and that can be used, the best first by its own judgement. */
  List<Algorithm> algorithms(ConvolutionProblem problem, Descriptors descriptors);

  /**
   * result = product of a and b + beta result.
   *
   * @param a src; of a dgrad the weights
   * @param b weights; of the gradients diff_dst
   * @param result dst; diff_src; diff_weights
   * @param workspace device memory of the algorithm's size, until the work is done
   */
  void run(
      ConvolutionProblem problem,
      Descriptors descriptors,
      Algorithm algorithm,
      long a,
      long b,
      float beta,
      long result,
      long workspace);

  /** The stream must be idle. */
  @Override
  void close();
}
