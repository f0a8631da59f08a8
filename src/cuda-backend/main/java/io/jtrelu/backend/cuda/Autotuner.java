package io.jtrelu.backend.cuda;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Tuning;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.ConvolutionPasses.Epilogue;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Measures who does a pass of a convolution best, once per device, driver, problem and type; see
 * {@link Tuning}. Choices are kept by name, so that a name that this build or machine does not have
 * is measured again. Thread-safe.
 */
final class Autotuner implements ConvolutionChooser {
  private static final System.Logger LOG = System.getLogger(Autotuner.class.getPackageName());
  private static final Epilogue EPILOGUE = new Epilogue(new Rectifier(0.5f, 1), 1, 0);

  private final CudaBackend backend;
  private final ConvolutionChooser untuned;
  private final Tuning tuning;
  private final Map<String, String> known;
  private final TuningFile file;
  private final Meter meter;
  private final Map<String, String> choices = new TreeMap<>();
  private final Map<ConvolutionProvider, Boolean> considered =
      new EnumMap<>(ConvolutionProvider.class);

  /**
   * @param untuned chooses where nothing is measured, and says which libraries may be taken
   * @param known choices that are taken without measuring
   * @param file keeps choices for other processes
   */
  Autotuner(
      CudaBackend backend,
      ConvolutionChooser untuned,
      Tuning tuning,
      Map<String, String> known,
      TuningFile file,
      Meter meter) {
    this.backend = backend;
    this.untuned = untuned;
    this.tuning = tuning;
    this.known = new HashMap<>(known);
    this.file = file;
    this.meter = meter;
    if (tuning == Tuning.ONCE) {
      file.read().forEach(this.known::putIfAbsent);
    }
  }

  /** The choices so far, by problem. */
  synchronized Map<String, String> choices() {
    return Map.copyOf(choices);
  }

  /** A library is considered where it is there, unless others were named. */
  @Override
  public synchronized boolean considers(ConvolutionProvider provider) {
    return considered.computeIfAbsent(
        provider,
        asked -> {
          if (System.getProperty(PROPERTY) != null) {
            return untuned.considers(asked);
          }
          try {
            switch (asked) {
              case OWN -> {}
              case CUBLAS -> backend.libraries().blas();
              case CUDNN -> backend.libraries().dnn();
            }
            return true;
          } catch (BackendUnavailableException absent) {
            LOG.log(System.Logger.Level.INFO, "not measured: {0}", absent.getMessage());
            return false;
          }
        });
  }

  @Override
  public boolean searches() {
    return true;
  }

  @Override
  public synchronized Candidate choose(ConvolutionProblem problem, List<Candidate> candidates) {
    String key = key(problem);
    Candidate choice = named(choices.getOrDefault(key, known.get(key)), candidates);
    if (choice == null) {
      if (tuning == Tuning.OFF) {
        return untuned.choose(problem, candidates);
      }
      choice = fastest(problem, candidates);
      file.add(Map.of(key, choice.name()));
    }
    choices.put(key, choice.name());
    return choice;
  }

  private static @Nullable Candidate named(@Nullable String name, List<Candidate> candidates) {
    return candidates.stream()
        .filter(candidate -> candidate.name().equals(name))
        .findFirst()
        .orElse(null);
  }

  /** A problem as it stands in files: device, driver, pass, sizes, type. */
  private String key(ConvolutionProblem problem) {
    Conv2dDescriptor d = problem.d();
    CudaDevice device = backend.cudaDevice();
    return String.format(
        Locale.ROOT,
        "%s, %d multiprocessors, CUDA %d: %s of %dx%dx%dx%d with %d of %dx%d, stride %dx%d, padding"
            + " %d %d %d %d, dilation %dx%d, %s%s",
        device.name(),
        device.multiprocessors(),
        CudaDevice.driverVersion(),
        problem.pass().name().toLowerCase(Locale.ROOT),
        d.n(),
        d.h(),
        d.w(),
        d.ic(),
        d.oc(),
        d.kh(),
        d.kw(),
        d.strideH(),
        d.strideW(),
        d.padTop(),
        d.padLeft(),
        d.padBottom(),
        d.padRight(),
        d.dilationH(),
        d.dilationW(),
        problem.tf32() && problem.type() == DataType.F32 ? "TF32" : problem.type(),
        problem.gated() ? ", gated" : "");
  }

  /** The candidate of least cost, on operands of its own. */
  private Candidate fastest(ConvolutionProblem problem, List<Candidate> candidates) {
    if (candidates.size() == 1) {
      return candidates.getFirst();
    }
    try (Operands operands = new Operands(problem)) {
      Candidate best = candidates.getFirst();
      double least = Double.POSITIVE_INFINITY;
      for (Candidate candidate : candidates) {
        try (ConvolutionPasses passes = candidate.passes().get()) {
          double cost = meter.cost(operands.stream, () -> operands.run(passes));
          LOG.log(
              System.Logger.Level.DEBUG,
              "{0}: {1} costs {2}",
              key(problem),
              candidate.name(),
              cost);
          if (cost < least) {
            least = cost;
            best = candidate;
          }
        }
      }
      return best;
    } catch (OutOfMemoryException noRoom) {
      LOG.log(
          System.Logger.Level.INFO, "{0} is not measured: {1}", key(problem), noRoom.getMessage());
      return candidates.getFirst();
    }
  }

  /** What a pass works on while it is measured. */
  private final class Operands implements AutoCloseable {
    private final ConvolutionProblem problem;
    private final TiledConvolution packer;
    final CudaStream stream;
    private final PackedWeights packed;
    private final Tensor src;
    private final Tensor diffSrc;
    private final Tensor dst;
    private final Tensor weights;
    private final Tensor bias;
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();

    Operands(ConvolutionProblem problem) {
      this.problem = problem;
      Conv2dDescriptor d = problem.d();
      DataType type = problem.type();
      try {
        stream = own((CudaStream) backend.newStream());
        packer = new TiledConvolution(backend, d, type, Rectifier.IDENTITY, backend.tiles());
        packed = own(packer.newPackedWeights());
        src = tensor(d.src(), type, Layout.NHWC);
        diffSrc = problem.pass() == Pass.DGRAD ? tensor(d.src(), type, Layout.NHWC) : src;
        dst = tensor(d.dst(), type, Layout.NHWC);
        weights = tensor(d.weights(), DataType.F32, Layout.KRSC);
        bias = tensor(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        try (BackendStream.Use use = stream.use("tune")) {
          use.reads(weights);
          packer.pack(stream, weights, packed);
        }
      } catch (RuntimeException | Error failure) {
        close();
        throw failure;
      }
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    /** Filled with something that is not zero. */
    private Tensor tensor(Shape shape, DataType type, Layout layout) {
      Tensor tensor = own(backend.allocate(shape, type, layout));
      backend.fill(stream, tensor, 0.01f);
      return tensor;
    }

    /** The pass; gradients of weights take their place. */
    void run(ConvolutionPasses passes) {
      try (BackendStream.Use use = stream.use("tune")) {
        use.reads(src).reads(diffSrc).reads(bias).reads(weights).writes("dst", dst);
        switch (problem.pass()) {
          case FPROP -> passes.fprop(stream, src, packed, bias, EPILOGUE, 0, dst);
          case DGRAD -> passes.dgrad(stream, dst, packed, src, diffSrc, Write.OVERWRITE);
          case WGRAD -> passes.wgrad(stream, src, dst, weights, bias, Write.OVERWRITE);
        }
      }
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (RuntimeException | Error failure) {
          throw failure;
        } catch (Exception impossible) {
          throw new AssertionError(impossible);
        }
      }
    }
  }
}
