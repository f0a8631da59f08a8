package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.tensor.DataType;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import jcuda.driver.CUfunction_attribute;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/**
 * The compiled kernels, loaded by family when first asked for. Each family is in the jar as a cubin
 * per architecture and as PTX, which the driver compiles where no cubin fits. Thread-safe.
 */
final class Kernels implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger(Kernels.class.getPackageName());
  private static final int[] CUBINS = {80, 90, 100, 120};
  private static final int THREADS = 256;
  private static final int DEFAULT_SHARED_MEMORY = 48 << 10;

  /** A line of kernels.txt. */
  private record Entry(String family, int parameterBytes) {}

  private final CudaContext context;
  private final boolean ptxOnly;
  private final Map<String, Entry> entries = new HashMap<>();
  private final Map<String, CUmodule> modules = new HashMap<>();
  private final Map<String, Kernel> kernels = new HashMap<>();

  /**
   * @param ptxOnly whether the device takes PTX and no cubins (the emulated one)
   */
  Kernels(CudaContext context, boolean ptxOnly) {
    this.context = context;
    this.ptxOnly = ptxOnly;
    byte[] table = resource("kernels.txt");
    if (table == null) {
      throw new BackendUnavailableException(notBuilt());
    }
    new String(table, StandardCharsets.UTF_8)
        .lines()
        .map(line -> line.split(" ", -1))
        .forEach(field -> entries.put(field[0], new Entry(field[1], Integer.parseInt(field[2]))));
  }

  /** Why there are no kernels, or null where there are. */
  static @Nullable String missing() {
    return resource("kernels.txt") == null ? notBuilt() : null;
  }

  private static String notBuilt() {
    return "this build has no CUDA kernels. They are compiled where nvcc is found (PATH, CUDA_HOME"
        + " or /usr/local/cuda): install the CUDA toolkit and build again. (./jtrelu builds"
        + " them only where it sees an NVIDIA GPU, or for --device emulated.)";
  }

  /** Why a device cannot run the kernels, or null where it can. */
  static @Nullable String unfit(CudaDevice device) {
    return device.capability() >= CUBINS[0]
        ? null
        : String.format(
            "no kernels for compute capability %d.%d (%s): they are built for 8.0 (Ampere) and"
                + " newer",
            device.capability() / 10, device.capability() % 10, device.name());
  }

  /** For people: the architectures that kernels are compiled for. */
  static String architectures() {
    return "sm_"
        + String.join(", sm_", Arrays.stream(CUBINS).mapToObj(Integer::toString).toList())
        + " and PTX";
  }

  /** The suffix of a kernel's name for a storage type. */
  static String suffix(DataType type) {
    return "_" + type.name().toLowerCase(Locale.ROOT);
  }

  /** A kernel of 256 threads without dynamic shared memory. */
  Kernel get(String name) {
    return get(name, THREADS, 0);
  }

  /** A kernel by name. */
  synchronized Kernel get(String name, int threads, int sharedMemory) {
    Kernel known = kernels.get(name);
    if (known != null) {
      return known;
    }
    Entry entry = entries.get(name);
    if (entry == null) {
      throw new IllegalArgumentException("no kernel is named " + name);
    }
    Driver.FunctionHandle function = new Driver.FunctionHandle();
    context.enter();
    try {
      check(
          JCudaDriver.cuModuleGetFunction(function, module(entry.family()), name),
          "cuModuleGetFunction of " + name);
      if (sharedMemory > DEFAULT_SHARED_MEMORY) {
        check(
            JCudaDriver.cuFuncSetAttribute(
                function,
                CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                sharedMemory),
            "cuFuncSetAttribute of " + name,
            sharedMemory);
      }
    } finally {
      context.leave();
    }
    Kernel kernel = new Kernel(name, function, entry.parameterBytes(), threads, sharedMemory);
    kernels.put(name, kernel);
    LOG.log(System.Logger.Level.DEBUG, "uses kernel {0}", name);
    return kernel;
  }

  private CUmodule module(String family) {
    CUmodule known = modules.get(family);
    if (known != null) {
      return known;
    }
    CUmodule module = new CUmodule();
    String cubin = family + ".sm_" + cubinFor(context.device().capability()) + ".cubin";
    byte[] image = ptxOnly ? null : resource(cubin);
    int result =
        image == null
            ? CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU
            : JCudaDriver.cuModuleLoadData(module, image);
    switch (result) {
      case CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU,
          CUresult.CUDA_ERROR_INVALID_IMAGE,
          CUresult.CUDA_ERROR_INVALID_SOURCE -> {
        // A newer GPU, or a driver older than the compiler: it can still compile the PTX.
        byte[] ptx = resource(family + ".ptx");
        if (ptx == null) {
          throw new BackendUnavailableException(family + ".ptx is missing from this build");
        }
        check(
            JCudaDriver.cuModuleLoadData(module, Arrays.copyOf(ptx, ptx.length + 1)),
            "cuModuleLoadData of " + family + ".ptx");
      }
      default -> check(result, "cuModuleLoadData of " + cubin);
    }
    modules.put(family, module);
    return module;
  }

  /** A cubin runs on its architecture and on later ones of the same major version. */
  private static int cubinFor(int capability) {
    int best = 0;
    for (int cubin : CUBINS) {
      if (cubin / 10 == capability / 10 && cubin <= capability) {
        best = cubin;
      }
    }
    return best;
  }

  /** The lines of a text resource beside the kernels. */
  static List<String> lines(String name) {
    byte[] text = resource(name);
    return text == null ? List.of() : new String(text, StandardCharsets.UTF_8).lines().toList();
  }

  private static byte @Nullable [] resource(String name) {
    try (InputStream stream = Kernels.class.getResourceAsStream("kernels/" + name)) {
      return stream == null ? null : stream.readAllBytes();
    } catch (IOException failure) {
      throw new UncheckedIOException("cannot read " + name + " from the jar", failure);
    }
  }

  @Override
  public synchronized void close() {
    context.enter();
    try {
      for (CUmodule module : modules.values()) {
        check(JCudaDriver.cuModuleUnload(module), "cuModuleUnload");
      }
    } finally {
      context.leave();
    }
    modules.clear();
    kernels.clear();
  }
}
