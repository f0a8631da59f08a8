package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dChain;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A 1x1 convolution from 64 to 256 channels and one back by conv2d_chain_fprop_sm90.cu and
 * conv2d_chain_bprop_sm90.cu: wgmma and bulk copies (TMA) of compute capability 9.0, weights in
 * shared memory, the wide tensor in registers. Tensor maps are encoded as {@link HopperConvolution}
 * does. The struct is explained in cuda/include/conv2d_chain_sm90.cuh.
 */
final class HopperChain extends Conv2dChain {
  /** Whether networks are given chains on such a device: true, unless it says false. */
  static final String PROPERTY = "jtrelu.cuda.chain";

  static final int NARROW = 64;
  static final int WIDE = 256;

  /** Pixels of a tile. */
  static final int ROWS = 128;

  private static final double PRODUCT = (double) ROWS * WIDE * NARROW;
  private static final double TENSOR = ROWS * NARROW * 2.0; // a tile's bytes of 64 channels
  private static final double QUARTERS = WIDE / (double) NARROW;
  private static final double OPERANDS = 4 * 4 * 2 * 4096.0; // of a product whose A is in memory

  /**
   * What a tile takes.
   *
   * @param loads bytes that are copied into shared memory
   * @param shared bytes that pass through it
   * @param products multiply-adds
   */
  record Work(double loads, double shared, double products) {}

  /** The second product takes half as many operands, as A comes from registers; results leave. */
  static final Work FORWARD = new Work(TENSOR, 3 * TENSOR + 1.5 * OPERANDS, 2 * PRODUCT);

  /**
   * Five products, of which those over pixels take as many operands of all pixels as two of a
   * warpgroup's; each quarter of the wide tensor and of its gradient is written, the latter and
   * diff_dst are added up; diff_src leaves.
   */
  static final Work BACKWARD =
      new Work(2 * TENSOR, 2 * TENSOR + 5 * OPERANDS + (3 * QUARTERS + 3) * TENSOR, 5 * PRODUCT);

  private static final int GROUP_ROWS = 64; // of a warpgroup
  private static final int THREADS = 384;
  private static final int FORWARD_SHARED = 147_528;
  private static final int BACKWARD_SHARED = 229_416;

  /**
   * Addresses of a pass's operands.
   *
   * @param first weights of the first convolution
   * @param result dst or diff_src
   * @param second weights of the second one
   * @param diffDst of a backward pass, or as result
   */
  private record Addresses(long src, long first, long result, long second, long diffDst) {}

  /** Maps for operands at some addresses. */
  private record Maps(
      Addresses of,
      MemorySegment src,
      MemorySegment first,
      MemorySegment result,
      MemorySegment second,
      MemorySegment diffDst) {}

  private final CudaBackend backend;
  private final CudaConv2d own1;
  private final CudaConv2d own2;
  private final int pixels;
  private final int tiles;
  private final int grid;
  private final Kernel fprop;
  private final Kernel bprop;
  private final SplitSum sum1;
  private final SplitSum sum2;
  private volatile @Nullable Maps forwardMaps;
  private volatile @Nullable Maps backwardMaps;

  /**
   * @throws UnsupportedException for others than {@link #fits}
   */
  HopperChain(CudaBackend backend, CudaConv2d first, CudaConv2d second) {
    super(backend.device(), first, second);
    if (!fits(backend, first.descriptor(), second.descriptor(), first.type())) {
      throw new UnsupportedException(
          String.format(
              "%s has no kernel for the chain of %s and %s in %s: 1x1 convolutions from %d to %d"
                  + " channels and back in BF16 and F16, on compute capability 9.0; run one after"
                  + " the other",
              backend, first.descriptor(), second.descriptor(), first.type(), NARROW, WIDE));
    }
    this.backend = backend;
    own1 = first;
    own2 = second;
    pixels = Math.toIntExact(pixels(first.descriptor()));
    tiles = Math.ceilDiv(pixels, ROWS);
    grid = Math.min(tiles, backend.cudaDevice().multiprocessors());
    fprop = kernel("fprop", FORWARD_SHARED);
    bprop = kernel("bprop", BACKWARD_SHARED);
    sum1 = SplitSum.of(backend, (long) WIDE * NARROW, WIDE);
    sum2 = SplitSum.of(backend, (long) WIDE * NARROW, NARROW);
    backend.expectScratch(scratchBytes());
  }

  private Kernel kernel(String pass, int sharedMemory) {
    return backend.kernels().get(name(pass, first().type()), THREADS, sharedMemory);
  }

  private static String name(String pass, DataType type) {
    return "conv2d_chain_" + pass + "_sm90" + Kernels.suffix(type);
  }

  private static long pixels(Conv2dDescriptor d) {
    return (long) d.n() * d.h() * d.w();
  }

  private static boolean isPointwise(Conv2dDescriptor d, int ic, int oc) {
    return d.equals(Conv2dDescriptor.of(d.n(), d.h(), d.w(), ic, oc, 1, 1, 0));
  }

  /** Whether there are kernels. */
  static boolean fits(
      CudaBackend backend, Conv2dDescriptor first, Conv2dDescriptor second, DataType type) {
    return HopperFusion.isPossible(backend, type, BACKWARD_SHARED)
        && isPointwise(first, NARROW, WIDE)
        && isPointwise(second, WIDE, NARROW)
        && TiledConvolution.fits(first)
        && TiledConvolution.fits(second);
  }

  /**
   * Whether networks are given it: where its bound is less than that of the convolutions, and
   * nobody asked for other kernels.
   */
  static boolean pays(
      CudaBackend backend, Conv2dDescriptor first, Conv2dDescriptor second, DataType type) {
    ConvolutionBounds bounds = new ConvolutionBounds(backend.cudaDevice().multiprocessors());
    return fits(backend, first, second, type)
        && HopperFusion.isWanted(backend, PROPERTY, name("bprop", type))
        && bounds.ofChain(pixels(first)) < bounds.ofChainApart(pixels(first));
  }

  @Override
  public long scratchBytes() {
    return Scratch.aligned(sum1.bytes(grid)) + sum2.bytes(grid);
  }

  /** Maps for these operands: the ones at hand, where they are. */
  private Maps maps(@Nullable Maps known, Addresses of) {
    if (known != null && known.of.equals(of)) {
      return known;
    }
    if ((of.src | of.result | of.diffDst) % 16 != 0) {
      throw new OperandException("conv2d chain: tensors must begin on 16 bytes");
    }
    Arena arena = Arena.ofAuto();
    return new Maps(
        of,
        map(arena, of.src, pixels, ROWS),
        map(arena, of.first, WIDE, WIDE),
        map(arena, of.result, pixels, GROUP_ROWS),
        map(arena, of.second, WIDE, WIDE),
        map(arena, of.diffDst, pixels, ROWS));
  }

  private MemorySegment map(Arena arena, long address, int rows, int boxRows) {
    return TensorMaps.tiled(arena, first().type(), address, rows, 1, NARROW, boxRows);
  }

  /**
   * What an epilogue takes.
   *
   * @param bias address, or 0
   * @param gate address of src, whose derivative is taken, or 0
   * @param old address of what is added to, or 0
   * @param signs address, or 0
   */
  private record Result(long bias, long gate, long old, long signs, Rectifier rectifier) {}

  /** Packs a Conv2dChainSm90Params and launches. */
  private void run(
      CudaStream stream, Kernel kernel, Maps maps, Result result, long bias, long partial) {
    stream
        .arguments()
        .tensorMap(maps.src)
        .tensorMap(maps.first)
        .tensorMap(maps.result)
        .pointer(result.bias)
        .pointer(result.gate)
        .pointer(result.old)
        .pointer(result.signs)
        .f32(result.rectifier.scale())
        .f32(result.rectifier.slope())
        .f32(1) // branchWeight
        .f32(0) // shortcutWeight
        .i32(tiles)
        .i32(1) // tilesN
        .i32(pixels)
        .i32(NARROW)
        .skip(512 - 448) // of a gather
        .tensorMap(maps.second)
        .tensorMap(maps.diffDst)
        .pointer(bias)
        .pointer(partial)
        .pointer(partial == 0 ? 0 : partial + Scratch.aligned(sum1.bytes(grid)))
        .f32(first().activation().scale())
        .f32(first().activation().slope());
    stream.launchWaiting(kernel, grid);
  }

  private static long aligned(Tensor bias) {
    if (bias.address() % 8 != 0) {
      throw new OperandException("conv2d chain: " + bias + " must begin on 8 bytes");
    }
    return bias.address();
  }

  @Override
  protected void runForward(
      Stream stream,
      Tensor src,
      Weights ofFirst,
      Weights ofSecond,
      Tensor dst,
      @Nullable Tensor signs) {
    CudaStream on = backend.own(stream);
    long first = own1.weights(on, ofFirst.packed()).forward();
    long second = own2.weights(on, ofSecond.packed()).backward();
    long to = dst.address();
    Maps maps = maps(forwardMaps, new Addresses(src.address(), first, to, second, to));
    forwardMaps = maps;
    long signed = signs == null ? 0 : signs.address();
    Result result = new Result(aligned(ofSecond.bias()), 0, 0, signed, second().activation());
    run(on, fprop, maps, result, aligned(ofFirst.bias()), 0);
  }

  @Override
  protected void runBackward(
      Stream stream,
      Sources sources,
      Weights ofFirst,
      PackedWeights ofSecond,
      Tensor diffSrc,
      Write write,
      Gradients diffFirst,
      Gradients diffSecond,
      Write writeWeights) {
    CudaStream on = backend.own(stream);
    if (pixels == 0) {
      SplitSum.ofNothing(on, diffFirst.weights(), diffFirst.bias(), writeWeights);
      SplitSum.ofNothing(on, diffSecond.weights(), diffSecond.bias(), writeWeights);
      return;
    }
    long first = own1.weights(on, ofFirst.packed()).forward();
    long second = own2.weights(on, ofSecond).backward();
    long diffDst = sources.diffDst().address();
    long from = sources.src().address();
    Maps maps = maps(backwardMaps, new Addresses(from, first, diffSrc.address(), second, diffDst));
    backwardMaps = maps;
    Rectifier below = first().srcActivation();
    long signed = sources.signs() == null ? 0 : sources.signs().address();
    long gate = signed != 0 || below.isIdentity() ? 0 : sources.src().address();
    Rectifier factor = (gate | signed) == 0 ? Rectifier.IDENTITY : below;
    long old = write == Write.ACCUMULATE ? diffSrc.address() : 0;
    long partial = on.workspace(scratchBytes());
    run(
        on,
        bprop,
        maps,
        new Result(0, gate, old, signed, factor),
        aligned(ofFirst.bias()),
        partial);
    sum1.run(on, partial, grid, diffFirst.weights(), diffFirst.bias(), writeWeights);
    sum2.run(
        on,
        partial + Scratch.aligned(sum1.bytes(grid)),
        grid,
        diffSecond.weights(),
        diffSecond.bias(),
        writeWeights);
  }
}
