package io.jtrelu.backend.reference;

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
import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.GradientNorm;
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
import java.util.Arrays;

/** The oracle: see the package page. Thread-safe. */
public final class ReferenceBackend implements Backend {
  private final int lanes;
  private final BackendLifetime<ReferenceStream> lifetime =
      new BackendLifetime<>("reference backend");
  private final Object statistics = new Object();
  private long inUse;
  private long peak;
  private long allocations;

  /** Opens the backend with a lane for each core; it holds nothing but counters. */
  public ReferenceBackend() {
    this(Runtime.getRuntime().availableProcessors());
  }

  /** Opens the backend with a number of lanes. */
  ReferenceBackend(int lanes) {
    this.lanes = lanes;
  }

  @Override
  public String name() {
    return "reference";
  }

  @Override
  public Device device() {
    return Device.CPU;
  }

  @Override
  public int lanes() {
    return lanes;
  }

  @Override
  public boolean supports(DataType type) {
    return isFloating(type);
  }

  @Override
  public Stream newStream() {
    return lifetime.newStream(() -> new ReferenceStream(this));
  }

  void forget(ReferenceStream stream) {
    lifetime.forget(stream);
  }

  @Override
  public Tensor allocate(Shape shape, DataType type, Layout layout) {
    lifetime.requireOpen();
    long bytes = Tensor.byteSize(shape, type);
    HostMemory memory;
    try {
      memory = HostMemory.allocate(bytes, () -> count(-bytes));
    } catch (OutOfMemoryError full) {
      OutOfMemoryException exception =
          new OutOfMemoryException(
              String.format(
                  "no room for %d bytes on the CPU (%d in use, 0 cached): use a smaller batch, or"
                      + " raise -XX:MaxDirectMemorySize",
                  bytes, memory().inUse()));
      exception.initCause(full);
      throw exception;
    }
    count(bytes);
    try {
      return Tensor.owning(memory, shape, type, layout);
    } catch (IllegalArgumentException wrongLayout) {
      memory.close();
      throw wrongLayout;
    }
  }

  private void count(long bytes) {
    synchronized (statistics) {
      inUse += bytes;
      peak = Math.max(peak, inUse);
      if (bytes >= 0) {
        allocations++;
      }
    }
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
    Transfers.requireCopy(Device.CPU, src, dst);
    try (BackendStream.Use use = ReferenceStream.require(stream).use("copy")) {
      use.reads(src).writes("dst", dst);
      if (src.type() == dst.type()) {
        dst.segment().copyFrom(src.segment());
      } else {
        dst.set(Elements.read(src));
      }
    }
  }

  @Override
  public void fill(Stream stream, Tensor dst, float value) {
    lifetime.requireOpen();
    Transfers.requireFill(Device.CPU, dst);
    try (BackendStream.Use use = ReferenceStream.require(stream).use("fill")) {
      use.writes("dst", dst);
      float[] values = new float[Math.toIntExact(dst.shape().elements())];
      Arrays.fill(values, value);
      dst.set(values);
    }
  }

  private static boolean isFloating(DataType type) {
    return switch (type) {
      case F32, BF16, F16 -> true;
      case I32, U8 -> false;
    };
  }

  private void requirePreparable(DataType type) {
    lifetime.requireOpen();
    if (!supports(type)) {
      throw new UnsupportedException(
          "the reference backend computes on F32, BF16 and F16, not on " + type);
    }
  }

  @Override
  public boolean keepsSigns(Conv2dDescriptor descriptor, DataType type) {
    return true; // nothing is gained; networks are tried with them
  }

  @Override
  public boolean chains(Conv2dDescriptor first, Conv2dDescriptor second, DataType type) {
    return type.bytes() == 2 // as elsewhere; nothing is gained; networks are tried with them
        && first.kh() * first.kw() == 1
        && second.kh() * second.kw() == 1;
  }

  @Override
  public Conv2dChain conv2dChain(Conv2d first, Conv2d second) {
    lifetime.requireOpen();
    return new ReferenceConv2dChain(first, second);
  }

  @Override
  public boolean pools(Conv2dDescriptor convolution, MaxPool2dDescriptor pooling, DataType type) {
    // As for chains. Places must tell signs, too.
    return type.bytes() == 2 && MaxPool2d.leavesBit(pooling);
  }

  @Override
  public Conv2dPool conv2dPool(Conv2d convolution, MaxPool2d pooling) {
    lifetime.requireOpen();
    if (!convolution.activation().isIdentity() && !pooling.marksPositive()) {
      throw new UnsupportedException(
          "the reference backend pools convolutions as one where places leave a bit for signs; run"
              + " one after the other");
    }
    return new ReferenceConv2dPool(convolution, pooling);
  }

  @Override
  public Conv2d conv2d(
      Conv2dDescriptor descriptor, DataType type, Rectifier activation, Rectifier srcActivation) {
    requirePreparable(type);
    return new ReferenceConv2d(descriptor, type, activation, srcActivation);
  }

  @Override
  public Rectify rectify(long elements, DataType type, Rectifier rectifier) {
    requirePreparable(type);
    return new ReferenceRectify(elements, type, rectifier);
  }

  @Override
  public Pointwise pointwise(long elements, DataType type, TransformedActivation function) {
    requirePreparable(type);
    return new ReferencePointwise(elements, type, function);
  }

  @Override
  public WeightedSum weightedSum(
      long elements, DataType type, float weightA, float weightB, Rectifier activation) {
    requirePreparable(type);
    return new ReferenceWeightedSum(elements, type, weightA, weightB, activation);
  }

  @Override
  public MaxPool2d maxPool2d(
      MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    return new ReferenceMaxPool2d(descriptor, type, srcActivation);
  }

  @Override
  public GlobalMeanPool globalMeanPool(Shape src, DataType type, Rectifier srcActivation) {
    requirePreparable(type);
    return new ReferenceGlobalMeanPool(src, type, srcActivation);
  }

  @Override
  public BatchNorm batchNorm(
      Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    requirePreparable(type);
    return new ReferenceBatchNorm(src, type, parts, epsilon, activation);
  }

  @Override
  public LocationNorm locationNorm(
      Shape src, DataType srcType, DataType type, LocationNorm.Settings settings) {
    requirePreparable(type);
    return new ReferenceLocationNorm(src, srcType, type, settings);
  }

  @Override
  public Reorder reorder(Shape shape, DataType type, Layout from, Layout to) {
    lifetime.requireOpen();
    return new ReferenceReorder(shape, type, from, to);
  }

  @Override
  public SoftmaxCrossEntropy softmaxCrossEntropy(
      int n, int classes, DataType type, float smoothing) {
    requirePreparable(type);
    return new ReferenceSoftmaxCrossEntropy(n, classes, type, smoothing);
  }

  @Override
  public Dropout dropout(long elements, DataType type, float rate) {
    requirePreparable(type);
    return new ReferenceDropout(elements, type, rate);
  }

  @Override
  public GradientNorm gradientNorm(long elements) {
    lifetime.requireOpen();
    return new ReferenceGradientNorm(elements);
  }

  @Override
  public Sgd sgd(long elements, float momentum, boolean nesterov, float weightDecay) {
    lifetime.requireOpen();
    return new ReferenceSgd(elements, momentum, nesterov, weightDecay);
  }

  @Override
  public Adam adam(long elements, float beta1, float beta2, float epsilon, float weightDecay) {
    lifetime.requireOpen();
    return new ReferenceAdam(elements, beta1, beta2, epsilon, weightDecay);
  }

  @Override
  public MatrixProduct matrixProduct(MatrixProduct.Sizes sizes) {
    lifetime.requireOpen();
    return new ReferenceMatrixProduct(sizes);
  }

  @Override
  public SymmetricInverse symmetricInverse(int n) {
    lifetime.requireOpen();
    return new ReferenceSymmetricInverse(n);
  }

  @Override
  public FisherRows fisherRows(Conv2dDescriptor descriptor, DataType type, FisherRows.Form form) {
    requirePreparable(type);
    return new ReferenceFisherRows(descriptor, type, form);
  }

  @Override
  public Orthogonal orthogonal(int rows, int cols, float gain) {
    lifetime.requireOpen();
    return new ReferenceOrthogonal(rows, cols, gain);
  }

  @Override
  public void close() {
    lifetime.close(() -> {});
  }
}
