package io.jtrelu.backend.cuda;

import org.jspecify.annotations.Nullable;

/**
 * The handles of NVIDIA's libraries whose work goes to one stream. They are made when they are
 * first needed, or before a recording begins, as making one allocates memory.
 */
final class LibraryHandles implements AutoCloseable {
  private final Libraries libraries;
  private final CudaContext context;
  private final Driver.StreamHandle stream;
  private @Nullable Blas blas;
  private @Nullable Dnn dnn;

  LibraryHandles(Libraries libraries, CudaContext context, Driver.StreamHandle stream) {
    this.libraries = libraries;
    this.context = context;
    this.stream = stream;
  }

  /** Makes the handles of the libraries that are open. */
  void prepare() {
    context.enter();
    try {
      if (libraries.openedBlas() != null) {
        blas();
      }
      if (libraries.openedDnn() != null) {
        dnn();
      }
    } finally {
      context.leave();
    }
  }

  private Blas blas() {
    if (blas == null) {
      blas = libraries.blas().handles().apply(stream);
    }
    return blas;
  }

  private Dnn dnn() {
    if (dnn == null) {
      dnn = libraries.dnn().handles().apply(stream);
    }
    return dnn;
  }

  /** Device memory that a product needs; what NVIDIA recommends for the architecture. */
  long blasWorkspace() {
    return context.device().capability() >= 90 ? 32L << 20 : 4L << 20;
  }

  /** As below with alpha = 1. */
  void multiply(Blas.Product product, long a, long b, float beta, long c, long workspace) {
    multiply(product, 1, a, b, beta, c, workspace);
  }

  /**
   * c = alpha op(a) op(b) + beta c.
   *
   * @param workspace of {@link #blasWorkspace} bytes
   */
  void multiply(
      Blas.Product product, float alpha, long a, long b, float beta, long c, long workspace) {
    context.enter();
    try {
      blas().multiply(product, alpha, a, b, beta, c, workspace, blasWorkspace());
    } finally {
      context.leave();
    }
  }

  /** As {@link Dnn#run}. */
  void convolve(
      ConvolutionProblem problem,
      Dnn.Descriptors descriptors,
      Dnn.Algorithm algorithm,
      long a,
      long b,
      float beta,
      long result,
      long workspace) {
    context.enter();
    try {
      dnn().run(problem, descriptors, algorithm, a, b, beta, result, workspace);
    } finally {
      context.leave();
    }
  }

  /** The stream must be idle, and the context current. */
  @Override
  public void close() {
    if (blas != null) {
      blas.close();
    }
    if (dnn != null) {
      dnn.close();
    }
  }
}
