package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.DataType;

/**
 * The part of cuBLAS that is used, for the work of one stream. The context must be current at every
 * call. Not thread-safe.
 */
interface Blas extends AutoCloseable {
  // cublasOperation_t, cublasMath_t, cublasGemmAlgo_t
  int OP_N = 0;
  int OP_T = 1;
  int MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16;
  int GEMM_DEFAULT = -1;

  /**
   * Sizes and types of a matrix product in cuBLAS's own order, columns after each other.
   *
   * @param transposeA whether a is k x m, to be transposed
   * @param transposeB whether b is n x k
   * @param m rows of c
   * @param n columns of c
   * @param k depth
   * @param lda elements from a column of a to the next
   * @param ldb likewise of b
   * @param ldc likewise of c
   * @param type of a and b
   * @param resultType of c
   * @param tf32 whether operands of type F32 may be rounded to tf32
   */
  record Product(
      boolean transposeA,
      boolean transposeB,
      int m,
      int n,
      int k,
      int lda,
      int ldb,
      int ldc,
      DataType type,
      DataType resultType,
      boolean tf32) {
    /** cublasComputeType_t: sums in binary32 always. */
    int computeType() {
      if (type != DataType.F32) {
        return 68; // CUBLAS_COMPUTE_32F
      }
      return tf32 ? 77 : 69; // CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F_PEDANTIC
    }

    int operationA() {
      return transposeA ? OP_T : OP_N;
    }

    int operationB() {
      return transposeB ? OP_T : OP_N;
    }

    /** cudaDataType. */
    static int cudaType(DataType type) {
      return switch (type) {
        case F32 -> 0;
        case F16 -> 2;
        case BF16 -> 14;
        case I32, U8 -> throw new IllegalArgumentException("no matrices of " + type);
      };
    }
  }

  /**
   * c = alpha op(a) op(b) + beta c.
   *
   * @param workspace device memory aligned to 256 bytes, for this call and until its work is done
   */
  void multiply(
      Product product,
      float alpha,
      long a,
      long b,
      float beta,
      long c,
      long workspace,
      long workspaceBytes);

  /** The stream must be idle. */
  @Override
  void close();
}
