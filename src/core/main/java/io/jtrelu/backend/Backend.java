package io.jtrelu.backend;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;

/**
 * A device that is open for work: it allocates tensors, makes streams and prepares operations.
 *
 * <p>Thread-safe. What is in use refuses to be closed, with {@link IllegalStateException}, and can
 * be closed when that use has ended; nothing waits for it. The caller closes tensors, operations
 * and streams before the backend. Preparing an operation that the backend cannot run throws {@link
 * UnsupportedException}.
 */
public interface Backend extends AutoCloseable {
  /** Name of its provider. */
  String name();

  /** Where its tensors lie. */
  Device device();

  /**
   * How many streams, each fed by a thread of its own, it takes to keep the device busy: on a CPU
   * the number of cores, or that with which it was {@linkplain Backends#open opened}; 1 on a GPU.
   */
  int lanes();

  /**
   * Whether a batch is best computed on as a whole, layer by layer, as on a GPU; otherwise small
   * parts of it should go through all layers one by one, their values in cache.
   */
  default boolean takesWholeBatches() {
    return !device().equals(Device.CPU);
  }

  /** Whether operations on activations of this type can be prepared. */
  boolean supports(DataType type);

  /** A new stream, owned by the caller. */
  Stream newStream();

  /**
   * A new stream whose operations may be shared out among several threads, for passes over so few
   * images that {@linkplain #lanes lanes} of their own would have nothing to do: on the CPU forward
   * passes of convolutions are, with the same bits. Streams of other backends are as the others.
   *
   * @param threads that take part, the calling one included; they spin between operations that
   *     follow each other closely, and sleep else
   * @return owned by the caller
   * @throws IllegalArgumentException if there are none
   */
  default Stream newSharedStream(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("a stream needs a thread or more, got " + threads);
    }
    return newStream();
  }

  /**
   * Allocates a zeroed tensor, owned by the caller.
   *
   * @throws OutOfMemoryException if the device has no room, after cached memory was released
   */
  Tensor allocate(Shape shape, DataType type, Layout layout);

  /**
   * Allocates a zeroed tensor in host memory that this device copies from and to by itself (pinned
   * memory), so that such a copy never makes the host wait. Owned by the caller. By default
   * ordinary host memory.
   *
   * @throws OutOfMemoryException if the host has no room
   */
  default Tensor allocateOnHost(Shape shape, DataType type, Layout layout) {
    return Tensor.allocate(shape, type, layout);
  }

  /** A new event, owned by the caller. */
  default Event newEvent() {
    return new DirectEvent();
  }

  /** Memory in tensors of this backend. */
  MemoryStatistics memory();

  /**
   * Bytes of the device's memory that this backend can still hand out, cached ones included; empty
   * where tensors lie in the host's memory.
   */
  default OptionalLong freeMemory() {
    return OptionalLong.empty();
  }

  /** Bytes of memory that a tensor of so many bytes takes. */
  default long allocationBytes(long bytes) {
    return bytes;
  }

  /**
   * Copies elements between two tensors of equal element count, each in host memory or on this
   * device; floating types are converted, rounding to nearest even. Host memory must stay alive and
   * unchanged until the copy is known to have run: until the stream is synchronised, or an {@link
   * Event} recorded after it.
   *
   * @throws OperandException if counts differ, a type is not floating while types differ, a tensor
   *     lies on another device, the two overlap without being the same, or dst is read-only
   */
  void copy(Stream stream, Tensor src, Tensor dst);

  /**
   * Sets all elements of a tensor on this device.
   *
   * @throws OperandException if the tensor lies on another device, or is read-only
   */
  void fill(Stream stream, Tensor dst, float value);

  /**
   * Records the operations that some work gives to a stream, without running them, so that they run
   * again as one.
   *
   * @param work gives operations to this stream and nothing else: a backend may call it once, now,
   *     or once per replay; so it neither waits for the stream nor reads results nor changes
   *     anything on the host. Host memory in its copies is read or written at each replay. Another
   *     stream takes part from where it {@linkplain Event#await waits} for an event of this one on;
   *     in the end this stream must have waited for the other's work.
   * @return owned by the caller
   */
  default Recording record(Stream stream, Runnable work) {
    return new DirectRecording(work);
  }

  /**
   * Does what {@link Conv2d#pack} does for the weights of many operations; a GPU does it by few
   * launches.
   *
   * @throws OperandException if a tensor does not fit
   */
  default void pack(Stream stream, List<Conv2d.Packing> packings) {
    for (Conv2d.Packing each : packings) {
      each.operation().pack(stream, each.weights(), each.packed());
    }
  }

  /**
   * Whether convolutions of such sizes keep signs ({@link Conv2d#keepsSigns}), and gain by it;
   * false by default.
   */
  default boolean keepsSigns(Conv2dDescriptor descriptor, DataType type) {
    return false;
  }

  /**
   * Whether there is a {@link #conv2dChain} of convolutions of such sizes, and something is gained
   * by it; false by default.
   */
  default boolean chains(Conv2dDescriptor first, Conv2dDescriptor second, DataType type) {
    return false;
  }

  /**
   * Whether there is a {@link #conv2dPool} of a convolution and a pooling of such sizes, and
   * something is gained by it; false by default.
   */
  default boolean pools(Conv2dDescriptor convolution, MaxPool2dDescriptor pooling, DataType type) {
    return false;
  }

  /**
   * What the first of several processes makes for all of them, to {@link #link} their devices.
   *
   * @throws BackendUnavailableException if they cannot be linked, as by this default, with the
   *     reason
   */
  default byte[] newLinkId() {
    throw new BackendUnavailableException(
        "devices of the " + name() + " backend cannot be linked with those of other processes");
  }

  /**
   * Links this device with those of other processes, each a device of its own; all call it at once.
   *
   * @param id what {@link #newLinkId} gave the first of them
   * @param rank of this process, from 0
   * @param size processes in all
   * @param deadline how long to wait for the others
   * @return owned by the caller
   * @throws BackendUnavailableException as above, or if the others do not come
   */
  default Link link(byte[] id, int rank, int size, Duration deadline) {
    throw new BackendUnavailableException(
        "devices of the " + name() + " backend cannot be linked with those of other processes");
  }

  /** Prepares a convolution; see {@link Conv2d} for the meaning of both activations. */
  Conv2d conv2d(
      Conv2dDescriptor descriptor, DataType type, Rectifier activation, Rectifier srcActivation);

  /**
   * Prepares a convolution with a normalised sum behind it; see {@link Conv2dSum}.
   *
   * @param convolution prepared by this backend without an activation; stays the caller's and must
   *     stay open
   * @return two operations one after the other, unless a backend has something better
   */
  default Conv2dSum conv2dSum(
      Conv2d convolution, float shortcutWeight, float branchWeight, Rectifier activation) {
    return new ComposedConv2dSum(this, convolution, shortcutWeight, branchWeight, activation);
  }

  /**
   * Prepares two convolutions as one operation; see {@link Conv2dChain}.
   *
   * @param first prepared by this backend; stays the caller's and must stay open
   * @param second likewise
   * @throws UnsupportedException if the backend cannot run these as one, as this default cannot:
   *     run one after the other
   * @throws IllegalArgumentException if the second does not begin with what the first ends with
   */
  default Conv2dChain conv2dChain(Conv2d first, Conv2d second) {
    throw new UnsupportedException(
        "the " + name() + " backend has no chains of convolutions; run one after the other");
  }

  /**
   * Prepares a convolution and the max-pooling of its result as one operation; see {@link
   * Conv2dPool}.
   *
   * @param convolution prepared by this backend; stays the caller's and must stay open
   * @param pooling likewise
   * @throws UnsupportedException if the backend cannot run these as one, as this default cannot:
   *     run one after the other
   * @throws IllegalArgumentException if the pooling does not read what the convolution writes
   */
  default Conv2dPool conv2dPool(Conv2d convolution, MaxPool2d pooling) {
    throw new UnsupportedException(
        "the " + name() + " backend pools no convolutions as one; run one after the other");
  }

  /** Prepares a stand-alone rectifier. */
  Rectify rectify(long elements, DataType type, Rectifier rectifier);

  /**
   * Prepares a transformed activation.
   *
   * @throws UnsupportedException if the backend cannot run this function (a GPU has no kernel for
   *     functions that the caller supplies)
   */
  Pointwise pointwise(long elements, DataType type, TransformedActivation function);

  /** Prepares a weighted sum. */
  WeightedSum weightedSum(
      long elements, DataType type, float weightA, float weightB, Rectifier activation);

  /** Prepares a max-pooling. */
  MaxPool2d maxPool2d(MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation);

  /** Prepares a global mean-pooling of NHWC sources. */
  GlobalMeanPool globalMeanPool(Shape src, DataType type, Rectifier srcActivation);

  /**
   * Prepares batch normalisation.
   *
   * @param src NHWC, a part of a batch
   * @param parts equal parts of a batch, each normalised by a call of its own
   * @param epsilon added to the variance, above 0
   * @param activation the rectifier that it ends with
   * @throws UnsupportedException if the backend has no such operation, as this default does not
   */
  default BatchNorm batchNorm(
      Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    throw new UnsupportedException("the " + name() + " backend has no batch normalisation");
  }

  /**
   * Prepares per-location normalisation of images.
   *
   * @param src NHWC
   * @param srcType U8 or F32
   * @param type storage type of the result
   * @throws UnsupportedException if the backend has no such operation, as this default does not:
   *     normalise on the host
   */
  default LocationNorm locationNorm(
      Shape src, DataType srcType, DataType type, LocationNorm.Settings settings) {
    throw new UnsupportedException(
        "the " + name() + " backend has no per-location normalisation; normalise on the host");
  }

  /**
   * Prepares a change of layout; see {@link Reorder}.
   *
   * @param shape shape of the source, its extents in the order of {@code from}
   * @param type any type: elements are moved, never computed on
   * @param from layout of the source
   * @param to layout of the destination
   * @throws IllegalArgumentException if the two are not NCHW and NHWC or KCRS and KRSC, or the
   *     shape has not four extents
   * @throws UnsupportedException if the backend has no such operation, as this default does not:
   *     reorder on the host
   */
  default Reorder reorder(Shape shape, DataType type, Layout from, Layout to) {
    throw new UnsupportedException(
        "the " + name() + " backend changes no layouts; reorder on the host");
  }

  /**
   * Says how operations that are prepared from now on choose among several ways to compute the
   * same, where the backend has them (on GPUs: its kernels' tiles, and NVIDIA's libraries). Without
   * this call nothing is measured. By default there is nothing to choose.
   *
   * @param tuning whether ways are measured, which takes seconds for a network
   * @param known choices of an earlier run, by problem: they are taken without measuring, so that
   *     it can be repeated bit by bit. Those of other devices have no effect
   */
  default void tune(Tuning tuning, Map<String, String> known) {}

  /** The choices that were measured or known since {@link #tune}, by problem. */
  default Map<String, String> choices() {
    return Map.of();
  }

  /** Prepares softmax cross-entropy. */
  SoftmaxCrossEntropy softmaxCrossEntropy(int n, int classes, DataType type, float smoothing);

  /** Prepares dropout. */
  Dropout dropout(long elements, DataType type, float rate);

  /**
   * Prepares the sum of a gradient's parts.
   *
   * @return one weighted sum after the other, unless a backend has something better
   */
  default GradientSum gradientSum(long elements) {
    return new ComposedGradientSum(this, elements);
  }

  /** Prepares the norm of a gradient. */
  GradientNorm gradientNorm(long elements);

  /** Prepares stochastic gradient descent. */
  Sgd sgd(long elements, float momentum, boolean nesterov, float weightDecay);

  /** Prepares Adam. */
  Adam adam(long elements, float beta1, float beta2, float epsilon, float weightDecay);

  /**
   * Prepares a product of matrices.
   *
   * @throws UnsupportedException if the backend has no such operation, as this default does not
   */
  default MatrixProduct matrixProduct(MatrixProduct.Sizes sizes) {
    throw new UnsupportedException("the " + name() + " backend has no products of matrices");
  }

  /**
   * Prepares polar factors of matrices.
   *
   * @param rows of each
   * @param columns of each
   * @param count of matrices
   * @param scale that the factors are multiplied by
   * @throws UnsupportedException if the backend has no such operation, as this default has not but
   *     on a CPU with {@link #matrixProduct}
   */
  default PolarFactor polarFactor(int rows, int columns, int count, float scale) {
    if (!device().equals(Device.CPU)) {
      throw new UnsupportedException(
          "the " + name() + " backend has no polar factors, which Muon needs");
    }
    return new HostPolarFactor(this, rows, columns, count, scale);
  }

  /**
   * Prepares the inverse of a symmetric matrix.
   *
   * @param n rows and columns
   * @throws UnsupportedException if the backend has no such operation, as this default does not
   */
  default SymmetricInverse symmetricInverse(int n) {
    throw new UnsupportedException("the " + name() + " backend inverts no matrices");
  }

  /**
   * Prepares the rows of a convolution's Fisher factors.
   *
   * @throws UnsupportedException for a convolution in groups, or if the backend has no such
   *     operation, as this default does not
   */
  default FisherRows fisherRows(Conv2dDescriptor descriptor, DataType type, FisherRows.Form form) {
    throw new UnsupportedException(
        "the " + name() + " backend has no rows of Fisher factors, which K-FAC needs");
  }

  /** As above, in the reduce form. */
  default FisherRows fisherRows(Conv2dDescriptor descriptor, DataType type) {
    return fisherRows(descriptor, type, FisherRows.Form.REDUCE);
  }

  /**
   * Prepares the scalars that steer K-FAC's factors.
   *
   * @throws UnsupportedException if the backend has no such operation, as this default has not but
   *     on a CPU
   */
  default FactorScalars factorScalars() {
    if (!device().equals(Device.CPU)) {
      throw new UnsupportedException(
          "the " + name() + " backend has no scalars of Kronecker factors, which K-FAC needs");
    }
    return new HostFactorScalars();
  }

  /**
   * Prepares a draw of labels from predictions.
   *
   * @throws UnsupportedException if the backend has no such operation, as this default has not but
   *     on a CPU
   */
  default LabelDraw labelDraw(int n, int classes, DataType type) {
    if (!device().equals(Device.CPU)) {
      throw new UnsupportedException("the " + name() + " backend draws no labels, as K-FAC needs");
    }
    return new HostLabelDraw(n, classes, type);
  }

  /** Prepares a random orthogonal matrix. */
  Orthogonal orthogonal(int rows, int cols, float gain);

  /**
   * Closes the streams that are open, and releases the device. Idempotent. Nothing runs afterwards:
   * streams, operations and recordings of a closed backend throw {@link IllegalStateException}.
   *
   * @throws IllegalStateException if an operation is running or being prepared; then nothing was
   *     closed, and close can be called again
   */
  @Override
  void close();
}
