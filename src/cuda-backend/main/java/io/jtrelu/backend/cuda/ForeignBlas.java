package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** cuBLAS of any version, through the JDK's foreign-function interface. */
final class ForeignBlas implements Blas {
  private final ForeignLibrary library;
  private final long stream;
  private final long handle;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment alpha = arena.allocate(JAVA_FLOAT);
  private final MemorySegment beta = arena.allocate(JAVA_FLOAT);

  ForeignBlas(ForeignLibrary library, long stream) {
    this.library = library;
    this.stream = stream;
    MemorySegment created = arena.allocate(JAVA_LONG);
    library.call("cublasCreate_v2", "", created);
    handle = created.get(JAVA_LONG, 0);
    library.call("cublasSetMathMode", "", handle, MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    library.call("cublasSetStream_v2", "", handle, stream);
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
    alpha.set(JAVA_FLOAT, 0, factor);
    beta.set(JAVA_FLOAT, 0, old);
    library.call("cublasSetWorkspace_v2", workspaceBytes, handle, workspace, workspaceBytes);
    library.call(
        "cublasGemmEx",
        p,
        handle,
        p.operationA(),
        p.operationB(),
        p.m(),
        p.n(),
        p.k(),
        alpha,
        a,
        Product.cudaType(p.type()),
        p.lda(),
        b,
        Product.cudaType(p.type()),
        p.ldb(),
        beta,
        c,
        Product.cudaType(p.resultType()),
        p.ldc(),
        p.computeType(),
        GEMM_DEFAULT);
  }

  @Override
  public void close() {
    library.call("cublasDestroy_v2", "", handle);
    arena.close();
  }

  @Override
  public String toString() {
    return "cuBLAS on stream " + Long.toHexString(stream);
  }
}
