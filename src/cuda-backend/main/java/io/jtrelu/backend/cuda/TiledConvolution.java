package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileProblem.Window;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import java.util.function.ToIntFunction;

/**
 * conv2d_fprop.cu, conv2d_dgrad.cu, conv2d_wgrad.cu: implicit matrix products on tensor cores (or
 * FFMA for exact F32), with bias, rectifier, and the rectifier's derivative in the epilogue. The
 * structs that are packed here are explained in cuda/include/conv2d.cuh.
 */
final class TiledConvolution implements ConvolutionKernels, SignedPasses {
  private static final int COLUMN_UNIT = 64; // channels whose taps a wgrad's tile takes together

  /** What packed weights depend on. */
  private record Form(CudaBackend backend, String computeType, int oc, int kh, int kw, int ic) {}

  /** A kernel and the one to take where operands are not aligned. */
  private record Choice(Tile aligned, Tile any) {
    Tile of(long addresses) {
      return addresses % 16 == 0 ? aligned : any;
    }
  }

  /** A variant with its loaded kernel, and how its problem is spread over blocks. */
  record Tile(
      TileVariant variant, Kernel kernel, TileProblem problem, int columnTiles, int splits) {
    int tilesM(long rows) {
      return Math.toIntExact(Math.ceilDiv(rows, (long) variant.blockM()));
    }

    int tilesN(long columns) {
      return Math.toIntExact(Math.ceilDiv(columns, (long) variant.blockN() * columnTiles));
    }
  }

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
    icPadded = fillsPixel() ? d.ic() : padded(d.ic());
    ocPadded = padded(d.oc());
    taps = d.kh() * d.kw();
    pack = backend.kernels().get("conv2d_pack_" + computeType);
    splitSum = SplitSum.of(backend, d.weights().elements(), d.oc());
    long outPixels = (long) d.n() * d.oh() * d.ow();
    long inPixels = (long) d.n() * d.h() * d.w();
    long columns = (long) taps * d.ic();
    // A dgrad phase sees about taps / (strideH * strideW) taps.
    double area = (double) d.strideH() * d.strideW();
    long dgradDepth = Math.round(Math.max(1, taps / area) * ocPadded);
    Window fpropWindow = new Window(taps, area, area, halo(d.w()), 1);
    Window dgradWindow = new Window(Math.max(1, taps / area), 1, 1 / area, halo(d.ow()) / area, 1);
    Window wgradWindow = new Window(taps, area, area, 0, columnUnit());
    fprop =
        choose(
            problem(TileVariant.Pass.FPROP, outPixels, d.oc(), (long) taps * icPadded, fpropWindow),
            d.ic(),
            0);
    dgrad =
        choose(
            problem(TileVariant.Pass.DGRAD, inPixels, d.ic(), dgradDepth, dgradWindow), d.oc(), 0);
    wgrad =
        choose(
            problem(TileVariant.Pass.WGRAD, d.oc(), columns, outPixels, wgradWindow),
            d.oc(),
            d.ic());
  }

  private TileProblem problem(
      TileVariant.Pass pass, long rows, long columns, long depth, Window window) {
    return new TileProblem(pass, rows, columns, depth, elementBytes, window);
  }

  /** Pixels of rows of such a width that a window reaches beyond a run of pixels. */
  private double halo(double width) {
    return (d.kh() - 1) * width + d.kw() - 1;
  }

  private int columnUnit() {
    return d.ic() % COLUMN_UNIT == 0 ? COLUMN_UNIT : d.ic();
  }

  /** Whether these kernels can do a convolution: one group, and sizes that 31 bits can count. */
  static boolean fits(Conv2dDescriptor d) {
    long limit = 1L << 30;
    return d.groups() == 1
        && (long) Math.max(d.n(), 1) * d.h() * d.w() < limit
        && (long) Math.max(d.n(), 1) * d.oh() * d.ow() < limit
        && (long) d.kh() * d.kw() * (d.ic() + 8L) * (d.oc() + 8L) < limit;
  }

  /** Whether a pixel is 8 bytes, of four channels: stems copy such taps of weights as they are. */
  private boolean fillsPixel() {
    return d.ic() == 4 && elementBytes == 2;
  }

  private int padded(int channels) {
    int unit = 16 / elementBytes;
    return Math.ceilDiv(channels, unit) * unit;
  }

  /** The cheapest variants. */
  private Choice choose(TileProblem problem, int dstChannels, int srcChannels) {
    CudaDevice device = backend.cudaDevice();
    List<TileVariant> able =
        backend.tileVariants().stream()
            .filter(v -> v.pass() == problem.pass() && v.type().equals(computeType))
            .filter(v -> dstChannels % v.dstChannels() == 0 && srcChannels % v.srcChannels() == 0)
            .filter(v -> !v.stem() || dstChannels * elementBytes < 16)
            .filter(v -> v.stem() || v.pass() != TileVariant.Pass.FPROP || !fillsPixel())
            .filter(v -> !v.panel() || (taps == 1 && problem.depth() <= v.mostDepth()))
            .filter(v -> v.sharedMemory() <= device.sharedMemory())
            .toList();
    return new Choice(best(able, problem), best(anyAlignment(able), problem));
  }

  private static List<TileVariant> anyAlignment(List<TileVariant> able) {
    return able.stream().filter(TileVariant::takesAnyAlignment).toList();
  }

  private Tile best(List<TileVariant> able, TileProblem problem) {
    CudaDevice device = backend.cudaDevice();
    ToIntFunction<TileVariant> resident = v -> v.resident(device.multiprocessorSharedMemory());
    TileVariant variant =
        able.stream()
            .filter(backend::prefers)
            .findFirst()
            .orElseGet(() -> tiles.choose(able, resident, problem));
    Kernel kernel =
        backend.kernels().get(variant.name(), variant.threads(), variant.sharedMemory());
    return new Tile(
        variant,
        kernel,
        problem,
        problem.columnTiles(variant, device.multiprocessors()),
        tiles.splits(variant, resident.applyAsInt(variant), problem));
  }

  /** Channels of a tap in the packed weights that fprop reads, zeros among them. */
  int icPadded() {
    return icPadded;
  }

  /** Weights that this or its like has packed. */
  CudaWeights weights(CudaStream stream, PackedWeights packed) {
    return CudaWeights.of(stream, packed, form);
  }

  /** What the three passes take for aligned operands. */
  List<Tile> chosen() {
    return List.of(fprop.aligned(), dgrad.aligned(), wgrad.aligned());
  }

  /** What a pass takes for aligned operands. */
  Tile chosen(TileVariant.Pass pass) {
    return switch (pass) {
      case FPROP -> fprop.aligned();
      case DGRAD -> dgrad.aligned();
      case WGRAD -> wgrad.aligned();
    };
  }

  @Override
  public PackedWeights newPackedWeights() {
    return new CudaWeights(form, backend.scratch(packedBytes()), forwardBytes());
  }

  @Override
  public long packedBytes() {
    return forwardBytes() + Scratch.aligned((long) d.ic() * taps * ocPadded * elementBytes);
  }

  private long forwardBytes() {
    return Scratch.aligned((long) d.oc() * taps * icPadded * elementBytes);
  }

  @Override
  public long scratchBytes() {
    int splits = Math.max(wgrad.aligned().splits(), wgrad.any().splits());
    return splits == 1 ? 0 : splitSum.bytes(splits);
  }

  @Override
  public void pack(CudaStream stream, Tensor weights, PackedWeights packed) {
    CudaWeights own = CudaWeights.of(stream, packed, form);
    stream
        .packs()
        .add(
            stream,
            pack,
            new PackGroup.Pack(
                weights.address(),
                own.forwardToPack(),
                own.backwardToPack(),
                d.oc(),
                taps,
                d.ic(),
                icPadded,
                ocPadded));
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
      Tensor dst,
      long signs) {
    Tile tile = fprop.of(src.address());
    int tilesN = tile.tilesN(d.oc());
    long tilesM = tile.tilesM((long) d.n() * d.oh() * d.ow());
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
    arguments.i32(tile.columnTiles()).i32(0).pointer(signs);
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
    long gate = srcActivation.isIdentity() ? 0 : src.address();
    dgrad(stream, diffDst, packed, gate, 0, diffSrc, write);
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      long gate,
      long signs,
      Tensor diffSrc,
      Write write) {
    Tile tile = dgrad.of(diffDst.address());
    int gridH = Math.ceilDiv(d.h(), d.strideH());
    int gridW = Math.ceilDiv(d.w(), d.strideW());
    int phasesW = Math.min(d.strideW(), d.w());
    long phases = (long) Math.min(d.strideH(), d.h()) * phasesW;
    int tilesN = tile.tilesN(d.ic());
    long tilesM = tile.tilesM((long) d.n() * gridH * gridW);
    boolean vectorOut = d.ic() * elementBytes % 16 == 0 && (diffSrc.address() | gate) % 16 == 0;
    Arguments arguments =
        stream
            .arguments()
            .pointer(diffDst)
            .pointer(CudaWeights.of(stream, packed, form).backward())
            .pointer(diffSrc)
            .pointer(0)
            .pointer(gate)
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
    arguments.f32(0).f32(0).i32(tile.columnTiles()).i32(0).pointer(signs);
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
    int columns = taps * d.ic();
    int tilesM = tile.tilesM(d.oc());
    int tilesN = tile.tilesN(columns);
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
    divide(arguments, columnUnit());
    divide(arguments, taps);
    divide(arguments, d.kw());
    stream.launch(tile.kernel(), (long) splits * tilesM * tilesN);
    if (!single) {
      splitSum.run(stream, partial, splits, diffWeights, diffBias, write);
    }
  }

  /** Pixels of a split of the wgrad: whole stages. */
  private static int pixelsPerSplit(Tile tile, int pixels) {
    long perSplit = Math.ceilDiv(pixels, (long) tile.splits());
    long stage = tile.variant().blockK();
    return Math.toIntExact(Math.ceilDiv(perSplit, stage) * stage);
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
