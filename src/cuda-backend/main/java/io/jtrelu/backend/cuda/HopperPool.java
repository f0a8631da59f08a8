package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Conv2dPool;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The stem of ImageNet's networks and its pooling by conv2d_pool_fprop_sm90.cu and
 * conv2d_pool_wgrad_sm90.cu: a 7x7 convolution with stride 2 from 4 to 64 channels of images that
 * are 224 pixels wide, and a 3x3 max-pooling with stride 2, by wgmma and bulk copies of compute
 * capability 9.0. The struct is explained in cuda/include/conv2d_pool_sm90.cuh.
 */
final class HopperPool extends Conv2dPool {
  /** Whether networks are given it on such a device: true, unless it says false. */
  static final String PROPERTY = "jtrelu.cuda.pooled-stem";

  private static final int IMAGE_CHANNELS = 4;
  private static final int CHANNELS = 64;
  private static final int IMAGE_WIDTH = 224;
  private static final int WIDTH = 112; // of the convolution
  private static final int POOLED_WIDTH = 56;
  private static final int KERNEL = 7;
  private static final int WINDOW = 3;
  private static final int STRIDE = 2;

  private static final int GROUPS = 2; // warpgroups of a block that multiply
  private static final int THREADS = 384;
  private static final int FORWARD_SHARED = 76_672;
  private static final int BACKWARD_SHARED = 150_528;

  /** Multiply-adds of a row of the convolution, zeros of an eighth tap among them: either pass. */
  static final double PRODUCTS = (double) KERNEL * (KERNEL + 1) * IMAGE_CHANNELS * CHANNELS * WIDTH;

  /** Bytes of a row of images, of pooled ones, and of their places. */
  static final int IMAGE_ROW = IMAGE_WIDTH * IMAGE_CHANNELS * 2;

  static final int POOLED_ROW = POOLED_WIDTH * CHANNELS * 2;
  static final int PLACES_ROW = 5 * 128 * Integer.BYTES;

  /** Floats of the gradients that a block leaves. */
  static final int SUMS = CHANNELS * (KERNEL * KERNEL * IMAGE_CHANNELS + 1);

  /**
   * How a pass is divided among warpgroups.
   *
   * @param rows pooled rows of an image, or for a backward pass pairs of rows of the convolution
   * @param strips of an image
   * @param stripRows rows of a strip
   * @param items strips in all
   * @param grid blocks
   */
  record Plan(int rows, int strips, int stripRows, int items, int grid) {
    private static final int START = 3; // rows of the convolution in whose time a strip begins

    /** The one whose busiest multiprocessor ends first. */
    static Plan of(int images, int rows, int multiprocessors) {
      Plan best = null;
      for (int strips = 1; strips <= rows; strips++) {
        int stripRows = Math.ceilDiv(rows, strips);
        int all = Math.ceilDiv(rows, stripRows);
        int items = Math.multiplyExact(images, all);
        Plan plan = new Plan(rows, all, stripRows, items, Math.min(items, multiprocessors));
        if (best == null || plan.cost() < best.cost()) {
          best = plan;
        }
      }
      return Objects.requireNonNull(best);
    }

    private int cost() {
      return busiest() + (items == 0 ? 0 : START * Math.ceilDiv(items, GROUPS * grid));
    }

    /** Rows of the convolution that a multiprocessor multiplies at most. */
    int busiest() {
      return items == 0 ? 0 : Math.ceilDiv(items, grid) * (2 * stripRows + 1);
    }
  }

  private final CudaBackend backend;
  private final CudaConv2d own;
  private final Kernel fprop;
  private final Kernel wgrad;
  private final Plan forward;
  private final Plan backward;
  private final SplitSum sum;

  /** A tensor map of a pooled tensor, and its address. */
  private record Mapped(long address, MemorySegment map) {}

  private volatile @Nullable Mapped dst;
  private volatile @Nullable Mapped diffDst;

  /**
   * @throws UnsupportedException for others than {@link #fits}
   */
  HopperPool(CudaBackend backend, CudaConv2d convolution, MaxPool2d pooling) {
    super(backend.device(), convolution, pooling);
    Conv2dDescriptor d = convolution.descriptor();
    if (!fits(backend, d, pooling.descriptor(), convolution.type())) {
      throw new UnsupportedException(
          String.format(
              "%s has no kernel for %s and %s as one in %s: a 7x7 convolution with stride 2 and"
                  + " padding 2 or 3 from %d to %d channels, of images %d wide, and a 3x3"
                  + " max-pooling with stride 2, in BF16 and F16, on compute capability 9.0; run"
                  + " one after the other",
              backend,
              d,
              pooling.descriptor(),
              convolution.type(),
              IMAGE_CHANNELS,
              CHANNELS,
              IMAGE_WIDTH));
    }
    this.backend = backend;
    own = convolution;
    fprop = kernel("fprop", FORWARD_SHARED);
    wgrad = kernel("wgrad", BACKWARD_SHARED);
    int multiprocessors = backend.cudaDevice().multiprocessors();
    forward = forward(d.n(), pooling.descriptor(), multiprocessors);
    backward = backward(d.n(), pooling.descriptor(), multiprocessors);
    sum = SplitSum.of(backend, d.weights().elements(), CHANNELS);
    backend.expectScratch(scratchBytes());
  }

  /** How the forward pass is divided. */
  static Plan forward(int images, MaxPool2dDescriptor pooling, int multiprocessors) {
    return Plan.of(images, pooling.oh(), multiprocessors);
  }

  /**
   * How the backward pass is divided: a row behind the last middle of a window is one of a pair.
   */
  static Plan backward(int images, MaxPool2dDescriptor pooling, int multiprocessors) {
    boolean more = STRIDE * pooling.oh() - pooling.padBegin() < pooling.h();
    return Plan.of(images, pooling.oh() + (more ? 1 : 0), multiprocessors);
  }

  private Kernel kernel(String pass, int sharedMemory) {
    String name = name(pass, convolution().type()) + "_" + pooling().descriptor().padBegin();
    return backend.kernels().get(name, THREADS, sharedMemory);
  }

  private static String name(String pass, DataType type) {
    return "conv2d_pool_" + pass + "_sm90" + Kernels.suffix(type);
  }

  private static boolean isPadding(int before, int behind) {
    return (before == 2 || before == 3) && behind <= 4;
  }

  /** Whether there are kernels. */
  static boolean fits(
      CudaBackend backend, Conv2dDescriptor d, MaxPool2dDescriptor pooling, DataType type) {
    return HopperFusion.isPossible(backend, type, BACKWARD_SHARED)
        && d.ic() == IMAGE_CHANNELS
        && d.oc() == CHANNELS
        && d.kh() == KERNEL
        && d.kw() == KERNEL
        && d.strideH() == STRIDE
        && d.strideW() == STRIDE
        && isPadding(d.padTop(), d.padBottom())
        && isPadding(d.padLeft(), d.padRight())
        && d.dilationH() * d.dilationW() == 1
        && d.w() == IMAGE_WIDTH
        && d.ow() == WIDTH
        && pooling.src().equals(d.dst())
        && pooling.kernel() == WINDOW
        && pooling.stride() == STRIDE
        && pooling.padBegin() <= 1
        && pooling.ow() == POOLED_WIDTH
        // The middle row of each window is inside.
        && STRIDE * (pooling.oh() - 1) - pooling.padBegin() + 1 < pooling.h()
        && TiledConvolution.fits(d);
  }

  /**
   * Whether networks are given it: where its bound is less than that of the passes alone, and
   * nobody asked for other kernels.
   */
  static boolean pays(
      CudaBackend backend, Conv2dDescriptor d, MaxPool2dDescriptor pooling, DataType type) {
    ConvolutionBounds bounds = new ConvolutionBounds(backend.cudaDevice().multiprocessors());
    return fits(backend, d, pooling, type)
        && HopperFusion.isWanted(backend, PROPERTY, name("wgrad", type))
        && d.n() > 0
        && bounds.ofPool(d, pooling) < bounds.ofPoolApart(d, pooling);
  }

  @Override
  public long scratchBytes() {
    return sum.bytes(backward.grid());
  }

  private static long aligned(String name, Tensor tensor, int bytes) {
    if (tensor.address() % bytes != 0) {
      throw new OperandException(
          "pooled conv2d: " + name + " " + tensor + " must begin on " + bytes + " bytes");
    }
    return tensor.address();
  }

  /** A map of a pooled tensor: the one at hand, where it is. */
  private Mapped map(@Nullable Mapped known, String name, Tensor tensor) {
    long address = aligned(name, tensor, 16);
    if (known != null && known.address == address) {
      return known;
    }
    return new Mapped(
        address,
        TensorMaps.tiled(
            Arena.ofAuto(),
            pooling().type(),
            address,
            tensor.shape().elements() / CHANNELS,
            1,
            CHANNELS,
            POOLED_WIDTH));
  }

  /**
   * What a pass reads and writes beside the images.
   *
   * @param weights packed, or 0
   * @param bias or 0
   * @param sums where a block's gradients go, or 0
   */
  private record Operands(Mapped pooled, long places, long weights, long bias, long sums) {}

  /** Packs a Conv2dPoolSm90Params and launches. */
  private void run(CudaStream stream, Kernel kernel, Plan plan, Tensor src, Operands of) {
    Conv2dDescriptor d = convolution().descriptor();
    stream
        .arguments()
        .tensorMap(of.pooled.map)
        .pointer(aligned("src", src, 16))
        .pointer(of.places)
        .pointer(of.weights)
        .pointer(of.bias)
        .pointer(of.sums)
        .f32(convolution().activation().scale())
        .f32(convolution().activation().slope())
        .i32(plan.items())
        .i32(plan.strips())
        .i32(plan.stripRows())
        .i32(plan.rows())
        .i32(d.h())
        .i32(d.oh())
        .i32(pooling().descriptor().oh())
        .i32(d.padTop())
        .i32(d.padLeft())
        .skip(256 - 212);
    stream.launchWaiting(kernel, plan.grid());
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor to, Tensor places) {
    CudaStream on = backend.own(stream);
    long packed = own.weights(on, weights).forward();
    Mapped mapped = map(dst, "dst", to);
    dst = mapped;
    Operands operands =
        new Operands(mapped, aligned("places", places, 16), packed, bias.address(), 0);
    run(on, fprop, forward, src, operands);
  }

  @Override
  protected void runBackwardWeights(
      Stream stream,
      Tensor src,
      Tensor from,
      Tensor places,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    CudaStream on = backend.own(stream);
    if (convolution().descriptor().n() == 0) {
      SplitSum.ofNothing(on, diffWeights, diffBias, write);
      return;
    }
    Mapped mapped = map(diffDst, "diff_dst", from);
    diffDst = mapped;
    long partial = on.workspace(scratchBytes());
    run(
        on,
        wgrad,
        backward,
        src,
        new Operands(mapped, aligned("places", places, 16), 0, 0, partial));
    sum.run(on, partial, backward.grid(), diffWeights, diffBias, write);
  }
}
