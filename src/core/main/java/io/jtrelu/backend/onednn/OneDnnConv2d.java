package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.HostMemory;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * A convolution, or for 1x1 images an inner product, by oneDNN. Bias and rectifier are fused into
 * the forward primitive. oneDNN has no post-operations backward: the derivative of the source's
 * rectifier, or accumulation, is a pass over the result while it is still in cache.
 */
final class OneDnnConv2d extends Conv2d {
  private static final long ALIGNMENT = 4096;
  private static final Rectifier RELU = new Rectifier(0, 1);

  private final Dnnl library;
  private final Deque<Primitive> primitives = new ArrayDeque<>();
  private final Primitive forward;
  private final Primitive backwardData;
  private final Primitive backwardWeights;
  private final Primitive packForward;
  private final Primitive packBackward;
  private final Primitive unpack;
  private final Primitive unpackAccumulate;
  private final @Nullable Derivative derivative; // null where there is none to apply
  private final OneDnnPackedWeights.Format format;
  private final long packedForwardBytes;
  private final long packedBackwardBytes;
  private final long blockedGradientBytes;
  private final DataType gradientType; // of what the backward-data primitive writes

  OneDnnConv2d(
      Dnnl library,
      Conv2dDescriptor descriptor,
      DataType type,
      Rectifier activation,
      Rectifier srcActivation) {
    super(Device.CPU, descriptor, type, activation, srcActivation);
    this.library = library;
    // 16-bit gradients are rounded once, after the last step.
    this.gradientType = DataType.F32;
    try (Dnnl.Scope scope = library.new Scope()) {
      Descriptors d = new Descriptors(scope, descriptor, type);
      this.forward =
          own(
              d.forward(postOperations(scope, activation)),
              dnnl.DNNL_ARG_SRC,
              dnnl.DNNL_ARG_WEIGHTS,
              dnnl.DNNL_ARG_BIAS,
              dnnl.DNNL_ARG_DST);
      this.backwardData =
          own(
              d.backwardData(forward.descriptor()),
              dnnl.DNNL_ARG_DIFF_DST,
              dnnl.DNNL_ARG_WEIGHTS,
              dnnl.DNNL_ARG_DIFF_SRC);
      this.backwardWeights =
          own(
              d.backwardWeights(forward.descriptor()),
              dnnl.DNNL_ARG_SRC,
              dnnl.DNNL_ARG_DIFF_DST,
              dnnl.DNNL_ARG_DIFF_WEIGHTS,
              dnnl.DNNL_ARG_DIFF_BIAS);
      long plain = d.plainWeights();
      long forwardFormat = forward.memory(dnnl.DNNL_ARG_WEIGHTS);
      long backwardFormat = backwardData.memory(dnnl.DNNL_ARG_WEIGHTS);
      long gradientFormat = backwardWeights.memory(dnnl.DNNL_ARG_DIFF_WEIGHTS);
      this.packForward = reorder(scope, plain, forwardFormat, false);
      this.packBackward = reorder(scope, plain, backwardFormat, false);
      this.unpack = reorder(scope, gradientFormat, plain, false);
      this.unpackAccumulate = reorder(scope, gradientFormat, plain, true);
      this.derivative =
          type == gradientType && srcActivation.isIdentity()
              ? null
              : new Derivative(scope, d.elements(), srcActivation);
      this.format =
          new OneDnnPackedWeights.Format(library.blob(forwardFormat), library.blob(backwardFormat));
      this.blockedGradientBytes = library.bytes(gradientFormat);
      this.packedForwardBytes = library.bytes(forwardFormat);
      this.packedBackwardBytes = library.bytes(backwardFormat);
    } catch (RuntimeException failure) {
      closePrimitives();
      if (failure instanceof DnnlException status && status.isUnimplemented()) {
        UnsupportedException unsupported =
            new UnsupportedException("oneDNN has no " + type + " convolution " + descriptor);
        unsupported.initCause(failure);
        throw unsupported;
      }
      throw failure;
    }
  }

  private Primitive own(long primitiveDescriptor, int... operands) {
    Primitive primitive = new Primitive(library, primitiveDescriptor, operands);
    primitives.push(primitive);
    return primitive;
  }

  private Primitive reorder(Dnnl.Scope scope, long from, long to, boolean accumulate) {
    long attributes = scope.attributes();
    if (accumulate) {
      scope.addSum(attributes);
    }
    long engine = library.engine();
    return own(
        library.create("dnnl_reorder_primitive_desc_create", from, engine, to, engine, attributes),
        dnnl.DNNL_ARG_FROM,
        dnnl.DNNL_ARG_TO);
  }

  private long postOperations(Dnnl.Scope scope, Rectifier phi) {
    long operations = scope.postOperations();
    if (phi.slope() != 1 && phi.slope() != 0) {
      library.call(
          "dnnl_post_ops_append_eltwise", operations, dnnl.dnnl_eltwise_relu, phi.slope(), 0f);
    }
    if (phi.scale() != 1) {
      library.call(
          "dnnl_post_ops_append_eltwise", operations, dnnl.dnnl_eltwise_linear, phi.scale(), 0f);
    }
    long attributes = scope.attributes();
    library.call("dnnl_primitive_attr_set_post_ops", attributes, operations);
    return attributes;
  }

  private long derivativeScratchpad() {
    return derivative == null ? 0 : derivative.primitive.scratchpadBytes();
  }

  /**
   * diff_src = psi'(src) * gradient as one primitive, the gradient being F32: (src &gt; 0), then a
   * linear map from {0, 1} to the two slopes, then a product.
   */
  private final class Derivative {
    private final Primitive primitive;
    private final HostMemory zero = HostMemory.allocate(Float.BYTES);

    Derivative(Dnnl.Scope scope, long elements, Rectifier psi) {
      long storage =
          scope.memory(
              type() == DataType.BF16 ? dnnl.dnnl_bf16 : dnnl.dnnl_f32, dnnl.dnnl_x, elements);
      long gradient = scope.memory(dnnl.dnnl_f32, dnnl.dnnl_x, elements);
      long scalar = scope.memory(dnnl.dnnl_f32, dnnl.dnnl_x, 1);
      long operations = scope.postOperations();
      float negative = psi.scale() * psi.slope();
      library.call(
          "dnnl_post_ops_append_eltwise",
          operations,
          dnnl.dnnl_eltwise_linear,
          psi.scale() - negative,
          negative);
      library.call("dnnl_post_ops_append_binary", operations, dnnl.dnnl_binary_mul, gradient);
      long attributes = scope.attributes();
      library.call("dnnl_primitive_attr_set_post_ops", attributes, operations);
      this.primitive =
          own(
              library.create(
                  "dnnl_binary_primitive_desc_create",
                  library.engine(),
                  dnnl.dnnl_binary_gt,
                  storage,
                  scalar,
                  storage,
                  attributes),
              dnnl.DNNL_ARG_SRC_0,
              dnnl.DNNL_ARG_SRC_1,
              2 * dnnl.DNNL_ARG_ATTR_MULTIPLE_POST_OP_BASE | dnnl.DNNL_ARG_SRC_1,
              dnnl.DNNL_ARG_DST);
    }

    void run(OneDnnStream lane, long scratchpad, long src, long gradient, long diffSrc) {
      primitive.run(lane, scratchpad, src, zero.address(), gradient, diffSrc);
    }
  }

  /** Primitive descriptors of one convolution; an empty batch is prepared as one image. */
  private static final class Descriptors {
    private final Dnnl library;
    private final Dnnl.Scope scope;
    private final boolean linear;
    private final boolean readsOnlyPadding; // some element of dst
    private final boolean mayBeWrong; // forward, by oneDNN's first choice
    private final long elements;
    private final long src;
    private final long dst;
    private final long diffSrc;
    private final long weights;
    private final long diffWeights;
    private final long plainWeights;
    private final long bias;
    private final long[] strides;
    private final long[] dilations;
    private final long[] padBegin;
    private final long[] padEnd;

    Descriptors(Dnnl.Scope scope, Conv2dDescriptor d, DataType type) {
      this.library = scope.library();
      this.scope = scope;
      this.linear =
          d.h() == 1
              && d.w() == 1
              && d.kh() == 1
              && d.kw() == 1
              && d.groups() == 1
              && d.oh() == 1
              && d.ow() == 1
              && d.padTop() == 0
              && d.padLeft() == 0;
      this.readsOnlyPadding =
          missesSource(d.h(), d.oh(), d.kh(), d.strideH(), d.dilationH(), d.padTop())
              || missesSource(d.w(), d.ow(), d.kw(), d.strideW(), d.dilationW(), d.padLeft());
      int widest = Math.max(d.strideH(), d.strideW());
      this.mayBeWrong = widest > 2 || (d.ow() == 1 && widest > 1);
      int storage = type == DataType.BF16 ? dnnl.dnnl_bf16 : dnnl.dnnl_f32;
      int f32 = dnnl.dnnl_f32;
      int any = dnnl.dnnl_format_tag_any;
      long n = Math.max(1, d.n());
      long[] srcDims = linear ? dims(n, d.ic()) : dims(n, d.ic(), d.h(), d.w());
      elements = n * d.ic() * d.h() * d.w();
      long[] dstDims = linear ? dims(n, d.oc()) : dims(n, d.oc(), d.oh(), d.ow());
      int activations = linear ? dnnl.dnnl_nc : dnnl.dnnl_nhwc;
      src = scope.memory(storage, activations, srcDims);
      dst = scope.memory(storage, activations, dstDims);
      diffSrc = scope.memory(f32, activations, srcDims);
      long[] weightDims;
      int krsc;
      if (linear) {
        weightDims = dims(d.oc(), d.ic());
        krsc = dnnl.dnnl_oi;
      } else if (d.groups() == 1) {
        weightDims = dims(d.oc(), d.ic(), d.kh(), d.kw());
        krsc = dnnl.dnnl_ohwi;
      } else {
        int g = d.groups();
        weightDims = dims(g, d.oc() / g, d.ic() / g, d.kh(), d.kw());
        krsc = dnnl.dnnl_gohwi;
      }
      weights = scope.memory(storage, any, weightDims);
      diffWeights = scope.memory(f32, any, weightDims);
      plainWeights = scope.memory(f32, krsc, weightDims);
      bias = scope.memory(f32, dnnl.dnnl_x, d.oc());
      strides = dims(d.strideH(), d.strideW());
      dilations = dims(d.dilationH() - 1, d.dilationW() - 1);
      padBegin = dims(d.padTop(), d.padLeft());
      padEnd = dims(d.padBottom(), d.padRight());
    }

    /** Whether along one axis some window has no tap within the source. */
    private static boolean missesSource(
        int extent, int outputs, int kernel, int stride, int dilation, int padding) {
      for (int p = 0; p < outputs; p++) {
        boolean hits = false;
        for (int r = 0; r < kernel; r++) {
          int at = p * stride - padding + r * dilation;
          hits |= at >= 0 && at < extent;
        }
        if (!hits) {
          return true;
        }
      }
      return false;
    }

    private static long[] dims(long... dims) {
      return dims;
    }

    /** Elements of src. */
    long elements() {
      return elements;
    }

    long plainWeights() {
      return plainWeights;
    }

    // oneDNN before 3.12.2 crashes in such convolutions (its issue 5942).
    private long checked(long primitiveDescriptor) {
      return avoiding(readsOnlyPadding, primitiveDescriptor);
    }

    // With matrix units (AMX), and rarely without, oneDNN 3.11's and 3.13's brg_conv_fwd is wrong
    // for
    // some of these: findings/onednn-patches-are-wrong-on-amx.sh.
    private long checkedForward(long primitiveDescriptor) {
      return avoiding(readsOnlyPadding || mayBeWrong, primitiveDescriptor);
    }

    private long avoiding(boolean batchReduceGemm, long primitiveDescriptor) {
      if (batchReduceGemm) {
        library.avoidBatchReduceGemm(primitiveDescriptor);
      }
      return primitiveDescriptor;
    }

    long forward(long attributes) {
      int training = dnnl.dnnl_forward_training;
      return linear
          ? library.create(
              "dnnl_inner_product_forward_primitive_desc_create",
              library.engine(),
              training,
              src,
              weights,
              bias,
              dst,
              attributes)
          : checkedForward(
              library.create(
                  "dnnl_convolution_forward_primitive_desc_create",
                  library.engine(),
                  training,
                  dnnl.dnnl_convolution_direct,
                  src,
                  weights,
                  bias,
                  dst,
                  strides,
                  dilations,
                  padBegin,
                  padEnd,
                  attributes));
    }

    long backwardData(long hint) {
      return linear
          ? library.create(
              "dnnl_inner_product_backward_data_primitive_desc_create",
              library.engine(),
              diffSrc,
              weights,
              dst,
              hint,
              scope.attributes())
          : checked(
              library.create(
                  "dnnl_convolution_backward_data_primitive_desc_create",
                  library.engine(),
                  dnnl.dnnl_convolution_direct,
                  diffSrc,
                  weights,
                  dst,
                  strides,
                  dilations,
                  padBegin,
                  padEnd,
                  hint,
                  scope.attributes()));
    }

    long backwardWeights(long hint) {
      return linear
          ? library.create(
              "dnnl_inner_product_backward_weights_primitive_desc_create",
              library.engine(),
              src,
              diffWeights,
              bias,
              dst,
              hint,
              scope.attributes())
          : checked(
              library.create(
                  "dnnl_convolution_backward_weights_primitive_desc_create",
                  library.engine(),
                  dnnl.dnnl_convolution_direct,
                  src,
                  diffWeights,
                  bias,
                  dst,
                  strides,
                  dilations,
                  padBegin,
                  padEnd,
                  hint,
                  scope.attributes()));
    }
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    return new OneDnnPackedWeights(format, packedForwardBytes, packedBackwardBytes);
  }

  private OneDnnPackedWeights require(OneDnnStream lane, PackedWeights packed) {
    return OneDnnPackedWeights.require(lane, packed, format, descriptor());
  }

  /** A stream of the very library: primitives have arguments by the lanes of one. */
  private OneDnnStream lane(Stream stream) {
    OneDnnStream lane = OneDnnStream.of(stream);
    if (lane.library() != library) {
      throw new IllegalArgumentException(
          "conv2d " + descriptor() + ": this stream is one of another backend than the operation");
    }
    return lane;
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    OneDnnStream lane = lane(stream);
    OneDnnPackedWeights own = require(lane, packed);
    long scratchpad =
        lane.workspace(Math.max(packForward.scratchpadBytes(), packBackward.scratchpadBytes()));
    packForward.run(lane, scratchpad, weights.address(), own.forwardToPack(), 0, 0);
    packBackward.run(lane, scratchpad, weights.address(), own.backwardToPack(), 0, 0);
    own.setPacked();
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    OneDnnStream lane = lane(stream);
    long packed = require(lane, weights).forward();
    long scratchpad = lane.workspace(forward.scratchpadBytes());
    forward.run(lane, scratchpad, src.address(), packed, bias.address(), dst.address());
    if (activation().slope() == 0) {
      clamp(lane, dst);
    }
  }

  /** max(dst, 0): oneDNN's own would turn a NaN into 0 and hide that training has failed. */
  private void clamp(OneDnnStream lane, Tensor dst) {
    float[] x = lane.chunk(0);
    long elements = dst.shape().elements();
    for (long i = 0; i < elements; i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements - i);
      long at = dst.address() + i * type().bytes();
      Elements.load(type(), at, x, count);
      Elements.rectify(RELU, x, count);
      Elements.store(type(), x, at, count);
    }
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    OneDnnStream lane = lane(stream);
    long packed = require(lane, weights).backward();
    boolean direct =
        type() == gradientType && write == Write.OVERWRITE && srcActivation().isIdentity();
    long gradientAt = align(Math.max(backwardData.scratchpadBytes(), derivativeScratchpad()));
    long elements = diffSrc.shape().elements();
    long workspace =
        lane.workspace(direct ? gradientAt : gradientAt + elements * gradientType.bytes());
    long gradient = direct ? diffSrc.address() : workspace + gradientAt;
    backwardData.run(lane, workspace, diffDst.address(), packed, gradient, 0);
    if (derivative != null && write == Write.OVERWRITE) {
      derivative.run(lane, workspace, src.address(), gradient, diffSrc.address());
    } else if (!direct) {
      finishGradient(lane, gradient, src, diffSrc, write);
    }
  }

  /** diff_src = ([diff_src +] gradient) * psi'(src). */
  private void finishGradient(
      OneDnnStream lane, long gradient, Tensor src, Tensor diffSrc, Write write) {
    float[] sum = lane.chunk(0);
    long y = src.address();
    long dx = diffSrc.address();
    long elements = diffSrc.shape().elements();
    int size = type().bytes();
    for (long i = 0; i < elements; i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements - i);
      Elements.load(gradientType, gradient + i * gradientType.bytes(), sum, count);
      Elements.storeGradient(
          lane, sum, srcActivation(), type(), y + i * size, dx + i * size, count, write);
    }
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    OneDnnStream lane = lane(stream);
    boolean overwrite = write == Write.OVERWRITE;
    if (descriptor().n() == 0) {
      if (overwrite) {
        Elements.zero(diffWeights.address(), diffWeights.bytes());
        Elements.zero(diffBias.address(), diffBias.bytes());
      }
      return;
    }
    Primitive reorder = overwrite ? unpack : unpackAccumulate;
    long weightsAt = align(Math.max(backwardWeights.scratchpadBytes(), reorder.scratchpadBytes()));
    long biasAt = weightsAt + align(blockedGradientBytes);
    long workspace = lane.workspace(biasAt + diffBias.bytes());
    long blocked = workspace + weightsAt;
    long bias = overwrite ? diffBias.address() : workspace + biasAt;
    if (type() == DataType.BF16 && (descriptor().strideH() > 1 || descriptor().strideW() > 1)) {
      // oneDNN 3.11's jit_bf16 reads parts of its scratchpad that it has not written.
      Elements.zero(workspace, backwardWeights.scratchpadBytes());
    }
    backwardWeights.run(lane, workspace, src.address(), diffDst.address(), blocked, bias);
    reorder.run(lane, workspace, blocked, diffWeights.address(), 0, 0);
    if (!overwrite) {
      Elements.add(lane, bias, diffBias.address(), descriptor().oc());
    }
  }

  private static long align(long bytes) {
    return Math.ceilDiv(bytes, ALIGNMENT) * ALIGNMENT;
  }

  /** Names of oneDNN's implementations, forward, backward data and backward weights. */
  String implementations() {
    return forward.implementation()
        + " "
        + backwardData.implementation()
        + " "
        + backwardWeights.implementation();
  }

  @Override
  protected void release() {
    closePrimitives();
    if (derivative != null) {
      derivative.zero.close();
    }
  }

  private void closePrimitives() {
    while (!primitives.isEmpty()) {
      primitives.pop().close();
    }
  }
}
