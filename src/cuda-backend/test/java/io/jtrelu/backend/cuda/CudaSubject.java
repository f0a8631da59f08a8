package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;
import io.jtrelu.tensor.DataType;
import org.junit.jupiter.api.Assumptions;

/**
 * A real GPU: only with {@code -Djtrelu.cuda=real}, since a process holds one libcuda. Whoever asks
 * for it has one: where it is missing, or lost on the way, the tests fail.
 */
public final class CudaSubject implements Subject {
  /** For {@link java.util.ServiceLoader}. */
  public CudaSubject() {}

  @Override
  public String name() {
    return "cuda";
  }

  @Override
  public boolean addsInTensorCores(DataType type) {
    return type != DataType.F32;
  }

  @Override
  public Backend open() {
    Assumptions.assumeTrue(
        System.getProperty("jtrelu.cuda", "emulated").equals("real"),
        "a real GPU is tested with -Djtrelu.cuda=real");
    return new CudaProvider().open(0);
  }

  @Override
  public String toString() {
    return name();
  }
}
