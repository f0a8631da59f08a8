package io.jtrelu.backend.cuda;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import jcuda.Pointer;
import jcuda.driver.CUstream;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasStatus;
import jcuda.runtime.cudaStream_t;

/** cuBLAS 12 through JCublas, whose natives are bound to that version alone. */
final class JCudaBlas implements Blas {
  /** File name of its natives, without platform, and the class beside which they lie. */
  static final String LIBRARY = "JCublas2-12.6.0";

  private final cublasHandle handle = new cublasHandle();
  private final Arena arena = Arena.ofShared();
  private final MemorySegment scalars = arena.allocate(2 * Float.BYTES, Float.BYTES);
  private final Pointer alpha = Driver.host(scalars.address());
  private final Pointer beta = Driver.host(scalars.address() + Float.BYTES);

  JCudaBlas(CUstream stream) {
    check(JCublas2.cublasCreate(handle), "cublasCreate", "");
    check(
        JCublas2.cublasSetMathMode(handle, MATH_DISALLOW_REDUCED_PRECISION_REDUCTION),
        "cublasSetMathMode",
        "");
    check(JCublas2.cublasSetStream(handle, new cudaStream_t(stream)), "cublasSetStream", "");
  }

  private static void check(int status, String call, Object sizes) {
    if (status != cublasStatus.CUBLAS_STATUS_SUCCESS) {
      throw CudaException.ofLibrary(status, cublasStatus.stringFor(status), call, sizes);
    }
  }

  @Override
  public void multiply(
      Product p,
      float factor,
      long a,
      long b,
      float old,
      long c,
      long workspace,
      long workspaceBytes) {
    scalars.set(ValueLayout.JAVA_FLOAT, 0, factor);
    scalars.set(ValueLayout.JAVA_FLOAT, Float.BYTES, old);
    check(
        JCublas2.cublasSetWorkspace(handle, Driver.device(workspace), workspaceBytes),
        "cublasSetWorkspace",
        workspaceBytes);
    // The one without _new takes a cudaDataType where cuBLAS 11 and later take a compute type.
    check(
        JCublas2.cublasGemmEx_new(
            handle,
            p.operationA(),
            p.operationB(),
            p.m(),
            p.n(),
            p.k(),
            alpha,
            Driver.device(a),
            Product.cudaType(p.type()),
            p.lda(),
            Driver.device(b),
            Product.cudaType(p.type()),
            p.ldb(),
            beta,
            Driver.device(c),
            Product.cudaType(p.resultType()),
            p.ldc(),
            p.computeType(),
            GEMM_DEFAULT),
        "cublasGemmEx",
        p);
  }

  @Override
  public void close() {
    check(JCublas2.cublasDestroy(handle), "cublasDestroy", "");
    arena.close();
  }
}
