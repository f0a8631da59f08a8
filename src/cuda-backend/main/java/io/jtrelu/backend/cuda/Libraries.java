package io.jtrelu.backend.cuda;

import io.jtrelu.backend.BackendUnavailableException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * cuBLAS and cuDNN, which a backend may use beside its own kernels, and NCCL, which links it with
 * others: each is opened when it is first asked for. Thread-safe.
 */
final class Libraries implements AutoCloseable {
  /**
   * A library that is open.
   *
   * @param description name, version, path and binding, for people
   * @param handles makes the handle of a stream; the context must be current
   */
  record Opened<T>(String description, Function<Driver.StreamHandle, T> handles) {}

  private final CudaContext context;
  private final Driver.StreamHandle stream;
  private final boolean emulated;
  private @Nullable Opened<Blas> blas;
  private @Nullable Opened<Dnn> dnn;
  private @Nullable Dnn asked; // for questions that need a handle

  /**
   * @param stream for questions; no work is given to it
   */
  Libraries(CudaContext context, Driver.StreamHandle stream, boolean emulated) {
    this.context = context;
    this.stream = stream;
    this.emulated = emulated;
  }

  /**
   * cuBLAS.
   *
   * @throws BackendUnavailableException with the reason where it cannot be used
   */
  synchronized Opened<Blas> blas() {
    if (blas == null) {
      blas = openBlas(emulated);
    }
    return blas;
  }

  /**
   * cuDNN.
   *
   * @throws BackendUnavailableException with the reason where it cannot be used
   */
  synchronized Opened<Dnn> dnn() {
    if (dnn == null) {
      dnn = openDnn(emulated);
    }
    return dnn;
  }

  /** cuBLAS, if it is open. */
  synchronized @Nullable Opened<Blas> openedBlas() {
    return blas;
  }

  /** cuDNN, if it is open. */
  synchronized @Nullable Opened<Dnn> openedDnn() {
    return dnn;
  }

  /** Asks cuDNN something that is no work. */
  synchronized <T> T ask(Function<Dnn, T> question) {
    context.enter();
    try {
      if (asked == null) {
        asked = dnn().handles().apply(stream);
      }
      return question.apply(asked);
    } finally {
      context.leave();
    }
  }

  /**
   * NCCL.
   *
   * @throws BackendUnavailableException with the reason where it cannot be used
   */
  NvidiaLibrary nccl() {
    return openNccl(emulated);
  }

  private static NvidiaLibrary openNccl(boolean emulated) {
    NvidiaLibrary nccl = NvidiaLibrary.open("nccl", List.of(2), emulated);
    if (nccl.version().matches("2\\.[0-8]\\..*")) {
      throw new BackendUnavailableException(
          nccl.path()
              + " is NCCL "
              + nccl.version()
              + ", which cannot be part of a recorded step: 2.9 or newer is needed");
    }
    return nccl;
  }

  private static Opened<Blas> openBlas(boolean emulated) {
    // A library of a newer CUDA than the driver's makes no handle.
    List<Integer> majors = CudaDevice.driverVersion() < 13000 ? List.of(12) : List.of(13, 12);
    NvidiaLibrary library = NvidiaLibrary.open("cublas", majors, emulated);
    if (library.major() == 12 && DriverLibrary.loadBeside(JCudaBlas.LIBRARY)) {
      return new Opened<>(describe("cuBLAS", library, "JCublas"), JCudaBlas::new);
    }
    ForeignLibrary functions = library.functions();
    return new Opened<>(
        describe("cuBLAS", library, "the JDK"),
        stream -> new ForeignBlas(functions, stream.address()));
  }

  private static Opened<Dnn> openDnn(boolean emulated) {
    NvidiaLibrary library = NvidiaLibrary.open("cudnn", List.of(9, 8), emulated);
    if (library.major() == 8 && DriverLibrary.loadBeside(JCudaDnn.LIBRARY)) {
      return new Opened<>(describe("cuDNN", library, "JCudnn"), JCudaDnn::new);
    }
    ForeignLibrary functions = library.functions();
    return new Opened<>(
        describe("cuDNN", library, "the JDK"),
        stream -> new ForeignDnn(functions, stream.address()));
  }

  private static String describe(String name, NvidiaLibrary library, String binding) {
    return name + " " + library.version() + " (" + library.path() + "), called through " + binding;
  }

  /** A line for each library: what was found, or why it cannot be used. The driver is loaded. */
  static List<String> lines(boolean emulated) {
    List<String> lines = new ArrayList<>();
    try {
      lines.add(openBlas(emulated).description());
    } catch (BackendUnavailableException missing) {
      lines.add("cuBLAS is not used: " + missing.getMessage());
    }
    try {
      lines.add(openDnn(emulated).description());
    } catch (BackendUnavailableException missing) {
      lines.add("cuDNN is not used: " + missing.getMessage());
    }
    try {
      NvidiaLibrary nccl = openNccl(emulated);
      lines.add(NcclLink.title(nccl) + " (" + nccl.path() + "), for runs of many processes");
    } catch (BackendUnavailableException missing) {
      lines.add("NCCL is not used: " + missing.getMessage());
    }
    return lines;
  }

  /** The context must be current. */
  @Override
  public synchronized void close() {
    if (asked != null) {
      asked.close();
      asked = null;
    }
  }
}
