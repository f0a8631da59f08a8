package io.jtrelu.backend.onednn;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendLifetime;
import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.backend.Transfers;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.HostMemory;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.management.ManagementFactory;
import java.util.BitSet;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** The CPU through oneDNN: see the package page. Thread-safe. */
public final class OneDnnBackend implements Backend {
  /**
   * BF16 convolutions by Winograd's method round transformed values to BF16 too where the CPU
   * multiplies those faster; errors are some three times as large ({@link Conv2d} has the bound).
   * Set to false, products are exact.
   */
  static final String BF16_WINOGRAD_PROPERTY = "jtrelu.cpu.bf16-winograd";

  /**
   * Large 1x1 convolutions in F32 are done by a level of Strassen's method; errors come from pairs
   * of pixels ({@link Conv2d} has the bound). Set to false, they are done by the definition.
   */
  static final String STRASSEN_PROPERTY = "jtrelu.cpu.strassen";

  /** Rows and columns of an image, up to which oneDNN plans a convolution in a second or so. */
  static final int LARGEST_EXTENT = 1 << 22;

  private final boolean mayRoundTransforms =
      Boolean.parseBoolean(System.getProperty(BF16_WINOGRAD_PROPERTY, "true"));
  private final boolean mayMix =
      Boolean.parseBoolean(System.getProperty(STRASSEN_PROPERTY, "true"));
  private final Dnnl library;
  private final @Nullable CpuKernels kernels;
  private final int laneCount;
  private final boolean bfloat16;
  private final BackendLifetime<OneDnnStream> lifetime = new BackendLifetime<>("onednn backend");
  private final BitSet lanes = new BitSet(); // guarded by itself
  private final long machineBytes;
  private final Object statistics = new Object();
  private long inUse;
  private long peak;
  private long allocations;

  /**
   * @param library owned by the backend from now on
   * @param kernels our own, owned likewise; null where there are none: then oneDNN does all
   * @param laneCount how many lanes keep it busy
   */
  OneDnnBackend(Dnnl library, @Nullable CpuKernels kernels, int laneCount) {
    this.library = library;
    this.kernels = kernels;
    this.laneCount = laneCount;
    this.bfloat16 = computesBfloat16();
    this.machineBytes =
        ManagementFactory.getPlatformMXBean(com.sun.management.OperatingSystemMXBean.class)
            .getTotalMemorySize();
  }

  private boolean computesBfloat16() {
    try {
      new OneDnnConv2d(
              library,
              Conv2dDescriptor.of(1, 8, 8, 16, 16, 3, 1, 1),
              DataType.BF16,
              Rectifier.IDENTITY,
              Rectifier.IDENTITY)
          .close();
      return true;
    } catch (UnsupportedException noInstructions) {
      return false;
    }
  }

  @Override
  public String name() {
    return OneDnnProvider.NAME;
  }

  @Override
  public Device device() {
    return Device.CPU;
  }

  @Override
  public int lanes() {
    return laneCount;
  }

  @Override
  public boolean supports(DataType type) {
    return type == DataType.F32 || (type == DataType.BF16 && bfloat16);
  }

  @Override
  public Stream newStream() {
    return newSharedStream(1);
  }

  @Override
  public Stream newSharedStream(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("a stream needs a thread or more, got " + threads);
    }
    return lifetime.newStream(
        () -> {
          int lane;
          synchronized (lanes) {
            lane = lanes.nextClearBit(0);
            lanes.set(lane);
          }
          try {
            return new OneDnnStream(this, lane, threads);
          } catch (RuntimeException failure) {
            releaseLane(lane);
            throw failure;
          }
        });
  }

  void forget(OneDnnStream stream) {
    lifetime.forget(stream);
    releaseLane(stream.lane());
  }

  private void releaseLane(int lane) {
    synchronized (lanes) {
      lanes.clear(lane);
    }
  }

  Dnnl library() {
    return library;
  }

  @Override
  public Tensor allocate(Shape shape, DataType type, Layout layout) {
    lifetime.requireOpen();
    long bytes = Tensor.byteSize(shape, type);
    reserve(bytes);
    HostMemory memory;
    try {
      memory = HostMemory.allocate(bytes, () -> release(bytes));
    } catch (OutOfMemoryError full) {
      release(bytes);
      OutOfMemoryException exception = outOfMemory(bytes);
      exception.initCause(full);
      throw exception;
    }
    try {
      return Tensor.owning(memory, shape, type, layout);
    } catch (IllegalArgumentException wrongLayout) {
      memory.close();
      throw wrongLayout;
    }
  }

  // Memory is refused before the system starts to swap or kill: it would promise more than it has.
  private void reserve(long bytes) {
    synchronized (statistics) {
      if (bytes > machineBytes - inUse) {
        throw outOfMemory(bytes);
      }
      inUse += bytes;
      peak = Math.max(peak, inUse);
      allocations++;
    }
  }

  private void release(long bytes) {
    synchronized (statistics) {
      inUse -= bytes;
    }
  }

  private OutOfMemoryException outOfMemory(long bytes) {
    return new OutOfMemoryException(
        String.format(
            "no room for %d bytes on the CPU (%d in use, 0 cached, the machine has %d): use a"
                + " smaller batch, or close tensors that are not needed",
            bytes, memory().inUse(), machineBytes));
  }

  @Override
  public MemoryStatistics memory() {
    synchronized (statistics) {
      return new MemoryStatistics(inUse, 0, peak, allocations);
    }
  }

  @Override
  public void copy(Stream stream, Tensor src, Tensor dst) {
    lifetime.requireOpen();
    OneDnnStream lane = OneDnnStream.of(stream);
    Transfers.requireCopy(Device.CPU, src, dst);
    try (BackendStream.Use use = lane.use("copy")) {
      use.reads(src).writes("dst", dst);
      if (src.type() == dst.type()) {
        Elements.copy(src.address(), dst.address(), src.bytes());
        return;
      }
      long elements = src.shape().elements();
      float[] x = lane.chunk(0);
      for (long i = 0; i < elements; i += Elements.CHUNK) {
        int count = (int) Math.min(Elements.CHUNK, elements - i);
        Elements.load(src.type(), src.address() + i * src.type().bytes(), x, count);
        Elements.store(dst.type(), x, dst.address() + i * dst.type().bytes(), count);
      }
    }
  }

  @Override
  public void fill(Stream stream, Tensor dst, float value) {
    lifetime.requireOpen();
    Transfers.requireFill(Device.CPU, dst);
    try (BackendStream.Use use = OneDnnStream.of(stream).use("fill")) {
      use.writes("dst", dst);
      Elements.fill(dst.type(), dst.address(), dst.shape().elements(), value);
    }
  }

  private void requirePreparable(DataType type) {
    lifetime.requireOpen();
    if (!supports(type)) {
      throw new UnsupportedException(
          "the onednn backend computes on F32"
              + (bfloat16 ? " and BF16" : " (BF16 needs AVX-512 or newer)")
              + ", not on "
              + type);
    }
  }

  @Override
  public Conv2d conv2d(
      Conv2dDescriptor descriptor, DataType type, Rectifier activation, Rectifier srcActivation) {
    requirePreparable(type);
    requireFeasible(descriptor, type);
    return lifetime.during(
        () -> {
          CpuKernels.Convolutions own = winogradConvolutions(type);
          if (own != null && WinogradConv2d.pays(descriptor)) {
            int tile = WinogradConv2d.bestTile(descriptor);
            return new WinogradConv2d(
                own, descriptor, type, activation, srcActivation, tile, laneCount);
          }
          F32Convolutions f32 =
              kernels == null || type != DataType.F32
                  ? null
                  : F32Conv2d.kernelsFor(kernels, descriptor, mayMix);
          if (f32 != null) {
            return new F32Conv2d(f32, descriptor, activation, srcActivation, laneCount);
          }
          return new OneDnnConv2d(library, descriptor, type, activation, srcActivation);
        });
  }

  /**
   * What can never run is refused at once: oneDNN would plan it for minutes, as it tries ways to
   * divide an extent one by one.
   */
  private void requireFeasible(Conv2dDescriptor d, DataType type) {
    double bytes =
        (double) type.bytes() * d.src().elements()
            + (double) type.bytes() * d.dst().elements()
            + (double) Float.BYTES * d.weights().elements();
    if (bytes > machineBytes) {
      throw new UnsupportedException(
          "conv2d "
              + d
              + ": its operands take "
              + Math.round(bytes)
              + " bytes, and the machine has "
              + machineBytes
              + ": use a smaller batch");
    }
    int extent = Math.max(Math.max(d.h(), d.w()), Math.max(d.oh(), d.ow()));
    if (extent > LARGEST_EXTENT) {
      throw new UnsupportedException(
          "conv2d "
              + d
              + ": the onednn backend takes images of at most "
              + LARGEST_EXTENT
              + " rows and columns, got "
              + extent
              + ": cut them into pieces");
    }
  }

  /** Whether convolutions of a type that Winograd's method does round what it transforms. */
  boolean roundsTransforms(DataType type) {
    CpuKernels.Convolutions own = winogradConvolutions(type);
    return own != null && own == Objects.requireNonNull(kernels).roundedConvolutions();
  }

  private CpuKernels.@Nullable Convolutions winogradConvolutions(DataType type) {
    // Matrix units multiply BF16 many times faster than F32: the direct method then wins.
    boolean matrixUnits = library.instructionSet().contains("amx");
    if (kernels == null || (type == DataType.BF16 && matrixUnits)) {
      return null;
    }
    return type == DataType.BF16 && mayRoundTransforms && kernels.roundedConvolutions() != null
        ? kernels.roundedConvolutions()
        : kernels.convolutions(type);
  }

  @Override
  public Rectify rectify(long elements, DataType type, Rectifier rectifier) {
    requirePreparable(type);
    return new OneDnnRectify(activationPasses(type), elements, type, rectifier);
  }

  @Override
  public Pointwise pointwise(long elements, DataType type, TransformedActivation function) {
    requirePreparable(type);
    return new OneDnnPointwise(elements, type, function);
  }

  @Override
  public WeightedSum weightedSum(
      long elements, DataType type, float weightA, float weightB, Rectifier activation) {
    requirePreparable(type);
    return new OneDnnWeightedSum(
        activationPasses(type), elements, type, weightA, weightB, activation);
  }

  @Override
  public MaxPool2d maxPool2d(
      MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    MaxPoolPasses own = kernels == null ? null : kernels.maxPool(type);
    return own == null
        ? new OneDnnMaxPool2d(descriptor, type, srcActivation)
        : new NativeMaxPool2d(own, descriptor, type, srcActivation);
  }

  @Override
  public GlobalMeanPool globalMeanPool(Shape src, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    return new OneDnnGlobalMeanPool(src, type, srcActivation);
  }

  @Override
  public BatchNorm batchNorm(
      Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    requirePreparable(type);
    return new OneDnnBatchNorm(
        kernels == null ? null : kernels.batchNorm(type), src, type, parts, epsilon, activation);
  }

  @Override
  public LocationNorm locationNorm(
      Shape src, DataType srcType, DataType type, LocationNorm.Settings settings) {
    requirePreparable(type);
    return new OneDnnLocationNorm(src, srcType, type, settings);
  }

  @Override
  public Reorder reorder(Shape shape, DataType type, Layout from, Layout to) {
    lifetime.requireOpen();
    return new OneDnnReorder(shape, type, from, to);
  }

  @Override
  public SoftmaxCrossEntropy softmaxCrossEntropy(
      int n, int classes, DataType type, float smoothing) {
    requirePreparable(type);
    return new OneDnnSoftmaxCrossEntropy(n, classes, type, smoothing);
  }

  @Override
  public Dropout dropout(long elements, DataType type, float rate) {
    requirePreparable(type);
    return new OneDnnDropout(elements, type, rate);
  }

  private CpuKernels.@Nullable ParameterPasses parameterPasses() {
    return kernels == null ? null : kernels.parameters();
  }

  private CpuKernels.@Nullable ActivationPasses activationPasses(DataType type) {
    return kernels == null ? null : kernels.activations(type);
  }

  @Override
  public GradientSum gradientSum(long elements) {
    lifetime.requireOpen();
    return kernels == null
        ? Backend.super.gradientSum(elements)
        : new OneDnnGradientSum(kernels.parameters(), elements);
  }

  @Override
  public GradientNorm gradientNorm(long elements) {
    lifetime.requireOpen();
    return new OneDnnGradientNorm(parameterPasses(), elements);
  }

  @Override
  public Sgd sgd(long elements, float momentum, boolean nesterov, float weightDecay) {
    lifetime.requireOpen();
    return new OneDnnSgd(parameterPasses(), elements, momentum, nesterov, weightDecay);
  }

  @Override
  public Adam adam(long elements, float beta1, float beta2, float epsilon, float weightDecay) {
    lifetime.requireOpen();
    return new OneDnnAdam(parameterPasses(), elements, beta1, beta2, epsilon, weightDecay);
  }

  @Override
  public MatrixProduct matrixProduct(MatrixProduct.Sizes sizes) {
    lifetime.requireOpen();
    return new OneDnnMatrixProduct(library, sizes);
  }

  @Override
  public SymmetricInverse symmetricInverse(int n) {
    lifetime.requireOpen();
    return new OneDnnSymmetricInverse(library, n);
  }

  @Override
  public FisherRows fisherRows(Conv2dDescriptor descriptor, DataType type, FisherRows.Form form) {
    requirePreparable(type);
    return new OneDnnFisherRows(descriptor, type, form);
  }

  @Override
  public Orthogonal orthogonal(int rows, int cols, float gain) {
    lifetime.requireOpen();
    return kernels == null
        ? new OneDnnOrthogonal(library, rows, cols, gain)
        : new NativeOrthogonal(kernels.orthogonals(), rows, cols, gain);
  }

  @Override
  public void close() {
    lifetime.close(
        () -> {
          if (kernels != null) {
            kernels.close();
          }
          library.close();
        });
  }
}
