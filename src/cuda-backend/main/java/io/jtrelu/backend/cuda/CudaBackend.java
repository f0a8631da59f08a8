package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendLifetime;
import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dChain;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Conv2dPool;
import io.jtrelu.backend.Conv2dSum;
import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.FactorScalars;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.LabelDraw;
import io.jtrelu.backend.Link;
import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.PolarFactor;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.backend.Transfers;
import io.jtrelu.backend.Tuning;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.tensor.Bfloat16;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;

/** One GPU: see the package page. Thread-safe. */
final class CudaBackend implements Backend {
  /** Set to true, F32 convolutions run on tensor cores with operands rounded to tf32. */
  static final String TF32_PROPERTY = "jtrelu.cuda.tf32";

  /** Parts of the names of tile variants to take wherever they fit; separated by commas. */
  static final String TILE_PROPERTY = "jtrelu.cuda.tile";

  private final String name;
  private final boolean emulated;
  private final CudaContext context;
  private final Device device;
  private final Kernels kernels;
  private final MemoryPool pool;
  private final Driver.StreamHandle zeroing = new Driver.StreamHandle();
  private final Set<PinnedMemory> pinned = ConcurrentHashMap.newKeySet();
  private final List<TileVariant> tileVariants = TileVariant.all();
  private final boolean tf32 = Boolean.getBoolean(TF32_PROPERTY);
  private final TileChooser tiles;
  private volatile ConvolutionChooser chooser = ConvolutionChooser.configured();
  private final Libraries libraries;
  private final AtomicLong expectedScratch = new AtomicLong();
  private final BackendLifetime<CudaStream> lifetime;

  /**
   * @param name of its provider
   * @param emulated whether the driver is the emulated one
   */
  CudaBackend(String name, CudaDevice cudaDevice, boolean emulated) {
    this.name = name;
    this.emulated = emulated;
    device = Device.cuda(cudaDevice.index());
    lifetime = new BackendLifetime<>(name + " backend");
    context = new CudaContext(cudaDevice);
    tiles = new TileCostModel(cudaDevice.multiprocessors());
    libraries = new Libraries(context, zeroing, emulated);
    try {
      if (chooser.considers(ConvolutionProvider.CUBLAS)) {
        libraries.blas(); // whoever names it wants to know that it is not there
      }
      if (chooser.considers(ConvolutionProvider.CUDNN)) {
        libraries.dnn();
      }
      context.enter();
      try {
        kernels = new Kernels(context, emulated);
        pool = new MemoryPool(context, this::quiesce);
        check(
            JCudaDriver.cuStreamCreate(zeroing, CUstream_flags.CU_STREAM_NON_BLOCKING),
            "cuStreamCreate");
        kernels.get("convert_f32_bf16"); // a driver that cannot load our kernels is found out here
      } finally {
        context.leave();
      }
    } catch (RuntimeException failure) {
      context.close();
      throw failure;
    }
  }

  CudaDevice cudaDevice() {
    return context.device();
  }

  Kernels kernels() {
    return kernels;
  }

  /** The variant of a kernel for a storage type. */
  Kernel kernel(String base, DataType type) {
    return kernels.get(base + Kernels.suffix(type));
  }

  List<TileVariant> tileVariants() {
    return tileVariants;
  }

  /** Whether F32 convolutions may round operands to tf32. */
  boolean tf32() {
    return tf32;
  }

  /** What picks who does a convolution. */
  ConvolutionChooser chooser() {
    return chooser;
  }

  /** NVIDIA's libraries. */
  Libraries libraries() {
    return libraries;
  }

  /** What picks among the variants. */
  TileChooser tiles() {
    return tiles;
  }

  /** Whether a variant was asked for, over the cost model. */
  boolean prefers(TileVariant variant) {
    return prefers(variant.name());
  }

  /** Whether a kernel was asked for. */
  boolean prefers(String kernel) {
    return Arrays.stream(System.getProperty(TILE_PROPERTY, "").split(",", -1))
        .anyMatch(part -> !part.isEmpty() && kernel.contains(part));
  }

  /** Whether any was. */
  boolean prefersSome() {
    return !System.getProperty(TILE_PROPERTY, "").isEmpty();
  }

  /** The type that tiled convolutions multiply in. */
  String computeType(DataType type) {
    return switch (type) {
      case F32 -> tf32 ? "tf32" : "f32";
      case BF16 -> "bf16";
      case F16 -> "f16";
      case I32, U8 -> throw unsupported(type);
    };
  }

  /** An operation says how much of a workspace it will need. */
  void expectScratch(long bytes) {
    expectedScratch.accumulateAndGet(bytes, Math::max);
  }

  /** The most that operations have said. */
  long expectedScratch() {
    return expectedScratch.get();
  }

  /** A stream of this backend; throws where it is another's. */
  CudaStream own(Stream stream) {
    if (stream instanceof CudaStream own && own.backend() == this) {
      return own;
    }
    throw new IllegalArgumentException(
        "operations of " + this + " run on its own streams, got " + stream);
  }

  void forget(CudaStream stream) {
    lifetime.forget(stream);
  }

  void forget(PinnedMemory memory) {
    pinned.remove(memory);
  }

  boolean isOpen() {
    return lifetime.isOpen();
  }

  /** Waits for all work of this backend; the context must be current. */
  void quiesce() {
    lifetime.forEachStream(CudaStream::quiesce);
  }

  /** Memory with undefined contents, owned by the caller. */
  CudaMemory scratch(long bytes) {
    return lifetime.during(() -> new CudaMemory(pool, pool.allocate(bytes), device, bytes));
  }

  @Override
  public void tune(Tuning tuning, Map<String, String> known) {
    ConvolutionChooser untuned = ConvolutionChooser.configured();
    try {
      chooser =
          tuning == Tuning.OFF && known.isEmpty()
              ? untuned
              : new Autotuner(
                  this,
                  untuned,
                  tuning,
                  known,
                  TuningFile.ofThisUser(),
                  emulated ? new CounterMeter() : new EventMeter(context));
    } catch (IOException nowhere) {
      throw new UncheckedIOException("choices cannot be kept: " + nowhere.getMessage(), nowhere);
    }
  }

  @Override
  public Map<String, String> choices() {
    return chooser instanceof Autotuner tuner ? tuner.choices() : Map.of();
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public Device device() {
    return device;
  }

  @Override
  public int lanes() {
    return 1;
  }

  @Override
  public boolean supports(DataType type) {
    return isFloating(type);
  }

  private static boolean isFloating(DataType type) {
    return switch (type) {
      case F32, BF16, F16 -> true;
      case I32, U8 -> false;
    };
  }

  private UnsupportedException unsupported(DataType type) {
    return new UnsupportedException(this + " computes on F32, BF16 and F16, not on " + type);
  }

  @Override
  public Stream newStream() {
    return lifetime.newStream(() -> new CudaStream(this, context, pool));
  }

  @Override
  public Tensor allocate(Shape shape, DataType type, Layout layout) {
    return lifetime.during(() -> allocateZeroed(shape, type, layout));
  }

  private Tensor allocateZeroed(Shape shape, DataType type, Layout layout) {
    long bytes = Tensor.byteSize(shape, type);
    CudaMemory memory = scratch(bytes);
    try {
      context.enter();
      try {
        Tensor tensor = Tensor.owning(memory, shape, type, layout);
        if (bytes > 0) {
          check(
              JCudaDriver.cuMemsetD8Async(
                  Driver.device(memory.address()), (byte) 0, bytes, zeroing),
              "cuMemsetD8Async",
              bytes);
          check(JCudaDriver.cuStreamSynchronize(zeroing), "cuStreamSynchronize");
        }
        return tensor;
      } finally {
        context.leave();
      }
    } catch (RuntimeException failure) {
      memory.close();
      throw failure;
    }
  }

  @Override
  public Tensor allocateOnHost(Shape shape, DataType type, Layout layout) {
    return lifetime.during(
        () -> {
          PinnedMemory memory = PinnedMemory.allocate(this, context, Tensor.byteSize(shape, type));
          pinned.add(memory);
          try {
            return Tensor.owning(memory, shape, type, layout);
          } catch (IllegalArgumentException wrongLayout) {
            memory.close();
            throw wrongLayout;
          }
        });
  }

  @Override
  public Event newEvent() {
    return lifetime.during(() -> new CudaEvent(this, context));
  }

  @Override
  public MemoryStatistics memory() {
    return pool.statistics();
  }

  @Override
  public OptionalLong freeMemory() {
    return OptionalLong.of(lifetime.during(pool::available));
  }

  @Override
  public long allocationBytes(long bytes) {
    return MemoryPool.sizeClass(bytes);
  }

  /** Gives cached memory back to the driver. */
  void trim() {
    lifetime.during(
        () -> {
          pool.trim();
          return pool;
        });
  }

  @Override
  public void pack(Stream stream, List<Conv2d.Packing> packings) {
    CudaStream on = own(stream);
    try (BackendStream.Use use = on.use("pack")) {
      for (Conv2d.Packing each : packings) { // until they are launched, at the end
        use.reads(each.weights());
        if (each.packed() instanceof CudaWeights packed) {
          packed.hold(on);
        }
      }
      on.packs().together(on, () -> Backend.super.pack(on, packings));
    }
  }

  @Override
  public void copy(Stream stream, Tensor src, Tensor dst) {
    CudaStream on = own(stream);
    Transfers.requireCopy(device, src, dst);
    try (BackendStream.Use use = on.use("copy")) {
      use.reads(src).writes("dst", dst);
      copyOn(on, src, dst);
    }
  }

  private void copyOn(CudaStream on, Tensor src, Tensor dst) {
    boolean fromHost = src.device().equals(Device.CPU);
    boolean toHost = dst.device().equals(Device.CPU);
    long elements = src.shape().elements();
    long from = src.address();
    long to = dst.address();
    if (elements == 0) {
      return;
    }
    if (fromHost && toHost) {
      on.synchronize();
      if (src.type() == dst.type()) {
        dst.segment().copyFrom(src.segment());
      } else {
        dst.set(src.toFloatArray());
      }
    } else if (src.type() == dst.type()) {
      if (fromHost) {
        upload(on, src, to);
      } else if (toHost) {
        on.download(from, dst.segment(), src.bytes());
      } else {
        on.copyOnDevice(from, to, src.bytes());
      }
    } else if (fromHost) {
      long raw = on.workspace(src.bytes());
      upload(on, src, raw);
      convert(on, raw, src.type(), to, dst.type(), elements);
    } else if (toHost) {
      long converted = on.workspace(dst.bytes());
      convert(on, from, src.type(), converted, dst.type(), elements);
      on.download(converted, dst.segment(), dst.bytes());
    } else {
      convert(on, from, src.type(), to, dst.type(), elements);
    }
  }

  private static void upload(CudaStream on, Tensor src, long to) {
    on.upload(src.segment(), to, src.bytes(), src.memory() instanceof PinnedMemory);
  }

  /** struct ConvertParameters. */
  void convert(
      CudaStream on, long from, DataType fromType, long to, DataType toType, long elements) {
    Kernel kernel = kernels.get("convert" + Kernels.suffix(fromType) + Kernels.suffix(toType));
    on.arguments().pointer(from).pointer(to).i64(elements);
    DataType wider = fromType.bytes() > toType.bytes() ? fromType : toType;
    on.launch(kernel, Elementwise.blocks(elements, wider));
  }

  @Override
  public void fill(Stream stream, Tensor dst, float value) {
    CudaStream on = own(stream);
    Transfers.requireFill(device, dst);
    try (BackendStream.Use use = on.use("fill")) {
      use.writes("dst", dst);
      int pattern =
          switch (dst.type()) {
            case F32 -> Float.floatToRawIntBits(value);
            case BF16 -> Bfloat16.fromFloat(value);
            case F16 -> Float.floatToFloat16(value);
            case I32, U8 -> (int) value;
          };
      long address = dst.address();
      if (dst.bytes() > 0) {
        on.set(address, pattern, dst.type().bytes(), dst.shape().elements());
      }
    }
  }

  @Override
  public Recording record(Stream stream, Runnable work) {
    return own(stream).record(work);
  }

  @Override
  public byte[] newLinkId() {
    return lifetime.during(() -> NcclLink.newId(libraries.nccl()));
  }

  @Override
  public Link link(byte[] id, int rank, int size, Duration deadline) {
    NvidiaLibrary nccl = lifetime.during(libraries::nccl);
    return NcclLink.open(this, context, nccl, id, rank, size, deadline);
  }

  private void requirePreparable(DataType type) {
    lifetime.requireOpen();
    if (!supports(type)) {
      throw unsupported(type);
    }
  }

  /** Libraries neither write nor read signs. */
  @Override
  public boolean keepsSigns(Conv2dDescriptor descriptor, DataType type) {
    return CudaConv2d.keepsSigns(this, descriptor, type);
  }

  @Override
  public boolean chains(Conv2dDescriptor first, Conv2dDescriptor second, DataType type) {
    return HopperChain.pays(this, first, second, type);
  }

  @Override
  public Conv2dChain conv2dChain(Conv2d first, Conv2d second) {
    lifetime.requireOpen();
    if (!(first instanceof CudaConv2d own1
        && own1.belongsTo(this)
        && second instanceof CudaConv2d own2
        && own2.belongsTo(this))) {
      throw new IllegalArgumentException("a chain is of convolutions that " + this + " prepared");
    }
    return lifetime.during(() -> new HopperChain(this, own1, own2));
  }

  @Override
  public boolean pools(Conv2dDescriptor convolution, MaxPool2dDescriptor pooling, DataType type) {
    return HopperPool.pays(this, convolution, pooling, type);
  }

  @Override
  public Conv2dPool conv2dPool(Conv2d convolution, MaxPool2d pooling) {
    lifetime.requireOpen();
    if (!(convolution instanceof CudaConv2d own
        && own.belongsTo(this)
        && pooling instanceof CudaMaxPool2d other
        && other.belongsTo(this))) {
      throw new IllegalArgumentException(
          "a pooled convolution is of operations that " + this + " prepared");
    }
    return lifetime.during(() -> new HopperPool(this, own, other));
  }

  @Override
  public Conv2d conv2d(
      Conv2dDescriptor descriptor, DataType type, Rectifier activation, Rectifier srcActivation) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaConv2d(this, descriptor, type, activation, srcActivation));
  }

  @Override
  public Conv2dSum conv2dSum(
      Conv2d convolution, float shortcutWeight, float branchWeight, Rectifier activation) {
    lifetime.requireOpen();
    if (!(convolution instanceof CudaConv2d own && own.belongsTo(this))) {
      throw new IllegalArgumentException(
          "a sum behind a convolution needs one that " + this + " prepared");
    }
    return new CudaConv2dSum(this, own, shortcutWeight, branchWeight, activation);
  }

  @Override
  public Rectify rectify(long elements, DataType type, Rectifier rectifier) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaRectify(this, elements, type, rectifier));
  }

  @Override
  public Pointwise pointwise(long elements, DataType type, TransformedActivation function) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaPointwise(this, elements, type, function));
  }

  @Override
  public WeightedSum weightedSum(
      long elements, DataType type, float weightA, float weightB, Rectifier activation) {
    requirePreparable(type);
    return lifetime.during(
        () -> new CudaWeightedSum(this, elements, type, weightA, weightB, activation));
  }

  @Override
  public MaxPool2d maxPool2d(
      MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaMaxPool2d(this, descriptor, type, srcActivation));
  }

  @Override
  public GlobalMeanPool globalMeanPool(Shape src, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaGlobalMeanPool(this, src, type, srcActivation));
  }

  @Override
  public BatchNorm batchNorm(
      Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaBatchNorm(this, src, type, parts, epsilon, activation));
  }

  @Override
  public LocationNorm locationNorm(
      Shape src, DataType srcType, DataType type, LocationNorm.Settings settings) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaLocationNorm(this, src, srcType, type, settings));
  }

  @Override
  public Reorder reorder(Shape shape, DataType type, Layout from, Layout to) {
    return lifetime.during(() -> new CudaReorder(this, shape, type, from, to));
  }

  @Override
  public SoftmaxCrossEntropy softmaxCrossEntropy(
      int n, int classes, DataType type, float smoothing) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaSoftmaxCrossEntropy(this, n, classes, type, smoothing));
  }

  @Override
  public Dropout dropout(long elements, DataType type, float rate) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaDropout(this, elements, type, rate));
  }

  @Override
  public GradientNorm gradientNorm(long elements) {
    return lifetime.during(() -> new CudaGradientNorm(this, elements));
  }

  @Override
  public Sgd sgd(long elements, float momentum, boolean nesterov, float weightDecay) {
    return lifetime.during(() -> new CudaSgd(this, elements, momentum, nesterov, weightDecay));
  }

  @Override
  public Adam adam(long elements, float beta1, float beta2, float epsilon, float weightDecay) {
    return lifetime.during(() -> new CudaAdam(this, elements, beta1, beta2, epsilon, weightDecay));
  }

  @Override
  public MatrixProduct matrixProduct(MatrixProduct.Sizes sizes) {
    return lifetime.during(() -> new CudaMatrixProduct(this, sizes));
  }

  @Override
  public PolarFactor polarFactor(int rows, int columns, int count, float scale) {
    return lifetime.during(() -> new CudaPolarFactor(this, rows, columns, count, scale));
  }

  @Override
  public SymmetricInverse symmetricInverse(int n) {
    return lifetime.during(() -> new CudaSymmetricInverse(this, n));
  }

  @Override
  public FisherRows fisherRows(Conv2dDescriptor descriptor, DataType type, FisherRows.Form form) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaFisherRows(this, descriptor, type, form));
  }

  @Override
  public FactorScalars factorScalars() {
    return lifetime.during(() -> new CudaFactorScalars(this));
  }

  @Override
  public LabelDraw labelDraw(int n, int classes, DataType type) {
    requirePreparable(type);
    return lifetime.during(() -> new CudaLabelDraw(this, n, classes, type));
  }

  @Override
  public Orthogonal orthogonal(int rows, int cols, float gain) {
    return lifetime.during(() -> new CudaOrthogonal(this, rows, cols, gain));
  }

  @Override
  public void close() {
    lifetime.close(this::release);
  }

  private void release() {
    try {
      context.enter();
      try {
        libraries.close();
        pinned.forEach(PinnedMemory::free);
        check(JCudaDriver.cuStreamDestroy(zeroing), "cuStreamDestroy");
        pool.close();
        kernels.close();
      } finally {
        context.leave();
      }
    } finally {
      context.close();
    }
  }

  @Override
  public String toString() {
    return name + ":" + device.index();
  }
}
