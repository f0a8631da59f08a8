package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/**
 * conv2d_fprop.cu, conv2d_dgrad.cu, conv2d_wgrad.cu: implicit matrix products on tensor cores (or
 * FFMA for exact F32), with bias, rectifier, and the rectifier's derivative in the epilogue. The
 * structs that are packed here are explained in cuda/include/conv2d.cuh.
 */
final class TiledConvolution implements ConvolutionKernels {
  private static final int PACK_TILE = 32;

  /** What packed weights depend on. */
  private record Form(CudaBackend backend, String computeType, int oc, int kh, int kw, int ic) {}

  /** A kernel and the one to take where operands are not aligned. */
  private record Choice(Tile aligned, Tile any) {
    Tile of(long addresses) {
      return addresses % 16 == 0 ? aligned : any;
    }
  }

  /** A variant with its loaded kernel, and how many of its blocks a multiprocessor holds. */
  private record Tile(TileVariant variant, Kernel kernel, int resident) {}

  private final CudaBackend backend;
  private final TileChooser tiles;
  private final Conv2dDescriptor d;
  private final Rectifier srcActivation;
  private final String computeType;
  private final int elementBytes;
  private final Form form;
  private final int icPadded;
  private final int ocPadded;
  private final int taps;
  private final Kernel pack;
  private final Choice fprop;
  private final Choice dgrad;
  private final Choice wgrad;
  private final SplitSum splitSum;

  TiledConvolution(
      CudaBackend backend, Conv2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    this(backend, descriptor, type, srcActivation, backend.tiles());
  }

  /**
   * @param tiles picks the variants
   */
  TiledConvolution(
      CudaBackend backend,
      Conv2dDescriptor descriptor,
      DataType type,
      Rectifier srcActivation,
      TileChooser tiles) {
    this.backend = backend;
    this.tiles = tiles;
    this.d = descriptor;
    this.srcActivation = srcActivation;
    computeType = backend.computeType(type);
    elementBytes = type.bytes();
    form = new Form(backend, computeType, d.oc(), d.kh(), d.kw(), d.ic());
    icPadded = padded(d.ic());
    ocPadded = padded(d.oc());
    taps = d.kh() * d.kw();
    pack = backend.kernels().get("conv2d_pack_" + computeType);
    splitSum = SplitSum.of(backend, d.weights().elements(), d.oc());
    long outPixels = (long) d.n() * d.oh() * d.ow();
    long inPixels = (long) d.n() * d.h() * d.w();
    long columns = (long) taps * d.ic();
    // A dgrad phase sees about taps / (strideH * strideW) taps.
    long dgradDepth = Math.max(1, columns / d.ic() / d.strideH() / d.strideW()) * ocPadded;
    fprop = choose(TileVariant.Pass.FPROP, d.ic(), 0, outPixels, d.oc(), (long) taps * icPadded);
    dgrad = choose(TileVariant.Pass.DGRAD, d.oc(), 0, inPixels, d.ic(), dgradDepth);
    wgrad = choose(TileVariant.Pass.WGRAD, d.oc(), d.ic(), d.oc(), columns, outPixels);
  }

  /** Whether these kernels can do a convolution: one group, and sizes that 31 bits can count. */
  static boolean fits(Conv2dDescriptor d) {
    long limit = 1L << 30;
    return d.groups() == 1
        && (long) Math.max(d.n(), 1) * d.h() * d.w() < limit
        && (long) Math.max(d.n(), 1) * d.oh() * d.ow() < limit
        && (long) d.kh() * d.kw() * (d.ic() + 8L) * (d.oc() + 8L) < limit;
  }

  private int padded(int channels) {
    int unit = 16 / elementBytes;
    return Math.ceilDiv(channels, unit) * unit;
  }

  /** The cheapest variants. */
  private Choice choose(
      TileVariant.Pass pass,
      int dstChannels,
      int srcChannels,
      long rows,
      long columns,
      long depth) {
    TileProblem problem = new TileProblem(pass, rows, columns, depth, elementBytes);
    List<TileVariant> able =
        backend.tileVariants().stream()
            .filter(v -> v.pass() == pass && v.type().equals(computeType))
            .filter(v -> dstChannels % v.dstChannels() == 0 && srcChannels % v.srcChannels() == 0)
            .filter(v -> !v.stem() || dstChannels * elementBytes < 16)
            .filter(v -> v.sharedMemory() <= backend.cudaDevice().sharedMemory())
            .toList();
    return new Choice(best(able, problem), best(anyAlignment(able), problem));
  }

  private static List<TileVariant> anyAlignment(List<TileVariant> able) {
    return able.stream().filter(TileVariant::takesAnyAlignment).toList();
  }

  private Tile best(List<TileVariant> able, TileProblem problem) {
    TileVariant variant =
        able.stream()
            .filter(backend::prefers)
            .findFirst()
            .orElseGet(() -> tiles.choose(able, v -> tile(v).resident(), problem));
    return tile(variant);
  }

  private Tile tile(TileVariant variant) {
    Kernel kernel =
        backend.kernels().get(variant.name(), variant.threads(), variant.sharedMemory());
    return new Tile(variant, kernel, backend.kernels().residentBlocks(kernel));
  }

  /** Channels of a tap in the packed weights that fprop reads, zeros among them. */
  int icPadded() {
    return icPadded;
  }

  /** Weights that this or its like has packed. */
  CudaWeights weights(CudaStream stream, PackedWeights packed) {
    return CudaWeights.of(stream, packed, form);
  }

  /** The kernels of the three passes for aligned operands. */
  List<TileVariant> chosen() {
    return List.of(fprop.aligned().variant(), dgrad.aligned().variant(), wgrad.aligned().variant());
  }

  @Override
  public PackedWeights newPackedWeights() {
    long forward = align((long) d.oc() * taps * icPadded * elementBytes);
    long backward = align((long) d.ic() * taps * ocPadded * elementBytes);
    return new CudaWeights(form, backend.scratch(forward + backward), forward);
  }

  private static long align(long bytes) {
    return (bytes + 255) & -256;
  }

  /** struct Conv2dPackParams. */
  @Override
  public void pack(CudaStream stream, Tensor weights, PackedWeights packed) {
    CudaWeights own = CudaWeights.of(stream, packed, form);
    int tilesK = Math.ceilDiv(ocPadded, PACK_TILE);
    int tilesC = Math.ceilDiv(icPadded, PACK_TILE);
    stream
        .arguments()
        .pointer(weights)
        .pointer(own.forwardToPack())
        .pointer(own.backwardToPack())
        .i32(d.oc())
        .i32(taps)
        .i32(d.ic())
        .i32(icPadded)
        .i32(ocPadded)
        .i32(tilesK)
        .i32(tilesC)
        .i32(0);
    stream.launch(pack, (long) taps * tilesK * tilesC);
    own.packed(weights);
  }

  @Override
  public void fprop(
      CudaStream stream,
      Tensor src,
      PackedWeights packed,
      Tensor bias,
      Epilogue epilogue,
      long shortcut,
      Tensor dst) {
    Tile tile = fprop.of(src.address());
    int tilesN = Math.ceilDiv(d.oc(), tile.variant().blockN());
    long tilesM = Math.ceilDiv((long) d.n() * d.oh() * d.ow(), (long) tile.variant().blockM());
    boolean vectorOut = d.oc() * elementBytes % 16 == 0 && (dst.address() | shortcut) % 16 == 0;
    Arguments arguments =
        stream
            .arguments()
            .pointer(src)
            .pointer(CudaWeights.of(stream, packed, form).forward())
            .pointer(dst)
            .pointer(bias)
            .pointer(shortcut)
            .f32(epilogue.activation().scale())
            .f32(epilogue.activation().slope())
            .flag(false)
            .flag(vectorOut)
            .i32(d.n())
            .i32(d.h())
            .i32(d.w())
            .i32(d.ic())
            .i32(icPadded)
            .i32(d.oh())
            .i32(d.ow())
            .i32(d.oc());
    window(arguments).i32(d.oh()).i32(d.ow()).i32(1).i32(1);
    divide(arguments, tilesN);
    divide(arguments, tilesM);
    divide(arguments, 1);
    divide(arguments, (long) d.oh() * d.ow());
    divide(arguments, d.ow());
    divide(arguments, icPadded);
    arguments.f32(epilogue.branchWeight()).f32(epilogue.shortcutWeight());
    stream.launch(tile.kernel(), tilesM * tilesN);
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    Tile tile = dgrad.of(diffDst.address());
    boolean gated = !srcActivation.isIdentity();
    int gridH = Math.ceilDiv(d.h(), d.strideH());
    int gridW = Math.ceilDiv(d.w(), d.strideW());
    int phasesW = Math.min(d.strideW(), d.w());
    long phases = (long) Math.min(d.strideH(), d.h()) * phasesW;
    int tilesN = Math.ceilDiv(d.ic(), tile.variant().blockN());
    long tilesM = Math.ceilDiv((long) d.n() * gridH * gridW, (long) tile.variant().blockM());
    boolean vectorOut =
        d.ic() * elementBytes % 16 == 0
            && (diffSrc.address() | (gated ? src.address() : 0)) % 16 == 0;
    Arguments arguments =
        stream
            .arguments()
            .pointer(diffDst)
            .pointer(CudaWeights.of(stream, packed, form).backward())
            .pointer(diffSrc)
            .pointer(0)
            .pointer(gated ? src.address() : 0)
            .f32(srcActivation.scale())
            .f32(srcActivation.slope())
            .flag(write == Write.ACCUMULATE)
            .flag(vectorOut)
            .i32(d.n())
            .i32(d.oh())
            .i32(d.ow())
            .i32(d.oc())
            .i32(ocPadded)
            .i32(d.h())
            .i32(d.w())
            .i32(d.ic());
    window(arguments)
        .i32(gridH)
        .i32(gridW)
        .i32(d.strideH() / gcd(d.strideH(), d.dilationH()))
        .i32(d.strideW() / gcd(d.strideW(), d.dilationW()));
    divide(arguments, tilesN);
    divide(arguments, tilesM);
    divide(arguments, phasesW);
    divide(arguments, (long) gridH * gridW);
    divide(arguments, gridW);
    divide(arguments, ocPadded);
    arguments.f32(0).f32(0);
    stream.launch(tile.kernel(), phases * tilesM * tilesN);
  }

  /** The fields kernelH to padLeft. */
  private Arguments window(Arguments arguments) {
    return arguments
        .i32(d.kh())
        .i32(d.kw())
        .i32(d.strideH())
        .i32(d.strideW())
        .i32(d.dilationH())
        .i32(d.dilationW())
        .i32(d.padTop())
        .i32(d.padLeft());
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    Tile tile = wgrad.of(src.address() | diffDst.address());
    TileVariant variant = tile.variant();
    int columns = taps * d.ic();
    int tilesM = Math.ceilDiv(d.oc(), variant.blockM());
    int tilesN = Math.ceilDiv(columns, variant.blockN());
    int pixels = d.n() * d.oh() * d.ow();
    int pixelsPerSplit = pixelsPerSplit(tile, pixels);
    int splits = Math.ceilDiv(pixels, pixelsPerSplit);
    boolean single = splits == 1;
    boolean accumulate = write == Write.ACCUMULATE;
    long partial = single ? 0 : stream.workspace(splitSum.bytes(splits));
    long target = single ? diffWeights.address() : partial;
    Arguments arguments =
        stream
            .arguments()
            .pointer(src)
            .pointer(diffDst)
            .pointer(target)
            .pointer(single ? diffBias.address() : partial + splitSum.weights() * Float.BYTES)
            .i64(single ? 0 : splitSum.stride())
            .flag(single && accumulate)
            .flag(columns % 4 == 0 && target % 16 == 0)
            .i32(pixels)
            .i32(pixelsPerSplit)
            .i32(d.h())
            .i32(d.w())
            .i32(d.ic())
            .i32(d.oc())
            .i32(columns)
            .i32(d.strideH())
            .i32(d.strideW())
            .i32(d.dilationH())
            .i32(d.dilationW())
            .i32(d.padTop())
            .i32(d.padLeft());
    divide(arguments, tilesN);
    divide(arguments, tilesM);
    divide(arguments, (long) d.oh() * d.ow());
    divide(arguments, d.ow());
    divide(arguments, d.ic());
    divide(arguments, d.kw());
    arguments.i32(0);
    stream.launch(tile.kernel(), (long) splits * tilesM * tilesN);
    if (!single) {
      splitSum.run(stream, partial, splits, diffWeights, diffBias, write);
    }
  }

  /** Pixels of a split of the wgrad: whole stages. */
  private int pixelsPerSplit(Tile tile, int pixels) {
    TileVariant variant = tile.variant();
    TileProblem problem =
        new TileProblem(variant.pass(), d.oc(), (long) taps * d.ic(), pixels, elementBytes);
    long splits = tiles.splits(variant, tile.resident(), problem);
    long perSplit = Math.ceilDiv(pixels, splits);
    return Math.toIntExact(Math.ceilDiv(perSplit, (long) variant.blockK()) * variant.blockK());
  }

  /** struct FastDiv: division of 31-bit numbers by one multiplication. */
  private static void divide(Arguments arguments, long divisor) {
    int exact = Math.toIntExact(divisor);
    int shift = exact == 1 ? 0 : 32 - Integer.numberOfLeadingZeros(exact - 1);
    long multiplier = Math.ceilDiv(1L << (31 + shift), divisor);
    arguments.i32(exact).i32((int) multiplier).i32(shift);
  }

  private static int gcd(int a, int b) {
    return b == 0 ? a : gcd(b, a % b);
  }
}
