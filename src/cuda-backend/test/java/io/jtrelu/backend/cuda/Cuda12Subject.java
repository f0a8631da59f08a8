package io.jtrelu.backend.cuda;

/** cuBLAS 12 and cuDNN 8, through JCublas and JCudnn. */
public final class Cuda12Subject extends LibrariesSubject {
  /** For {@link java.util.ServiceLoader}. */
  public Cuda12Subject() {
    super("cuda12");
  }
}
