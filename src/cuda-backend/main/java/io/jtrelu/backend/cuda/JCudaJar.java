package io.jtrelu.backend.cuda;

import io.jtrelu.backend.BackendUnavailableException;
import org.jspecify.annotations.Nullable;

/** Whether JCuda's classes are there, asked before any class that needs them is loaded. */
final class JCudaJar {
  private JCudaJar() {}

  /** What to do where they are not; null where they are. */
  static @Nullable String missing() {
    ClassLoader loader = JCudaJar.class.getClassLoader();
    String[] needed = {"jcuda.Pointer", "jcuda.driver.JCudaDriver"};
    for (String name : needed) {
      try {
        Class.forName(name, false, loader);
      } catch (ClassNotFoundException | LinkageError absent) {
        return "JCuda is not on the class path or module path ("
            + absent
            + "): add org.jcuda:jcuda and org.jcuda:jcuda-natives with classifier linux-x86_64";
      }
    }
    return null;
  }

  /** Throws where they are not. */
  static void require() {
    String missing = missing();
    if (missing != null) {
      throw new BackendUnavailableException(missing);
    }
  }
}
