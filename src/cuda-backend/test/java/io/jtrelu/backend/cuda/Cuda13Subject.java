package io.jtrelu.backend.cuda;

/** cuBLAS 13 and cuDNN 9, through the JDK's foreign-function interface. */
public final class Cuda13Subject extends LibrariesSubject {
  /** For {@link java.util.ServiceLoader}. */
  public Cuda13Subject() {
    super("cuda13");
  }
}
