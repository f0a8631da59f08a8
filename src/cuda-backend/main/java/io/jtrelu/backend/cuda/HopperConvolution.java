package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.backend.cuda.TiledConvolution.Tile;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A forward pass or a data gradient by conv2d_fprop_sm90.cu, conv2d_dgrad_sm90.cu or
 * conv2d_dgrad_strided_sm90.cu: wgmma and bulk copies (TMA) of compute capability 9.0. Tensor maps
 * hold addresses, so they are encoded for the operands of the first call, and again only where
 * others come. What these kernels do not do is left to the tiled ones, which also pack the weights.
 * The structs are explained in cuda/include/conv2d_sm90.cuh.
 */
final class HopperConvolution implements SignedPasses {
  /** Whether it is used on a device of compute capability 9.0: true, unless it says false. */
  static final String PROPERTY = "jtrelu.cuda.hopper";

  /**
   * A pass along H or W as these kernels see it: places of {@code in} under a window become those
   * of {@code out}.
   *
   * @param reach how far from its corner the filter looks
   */
  private record Axis(int in, int out, int kernel, int stride, int dilation, int pad, int reach) {
    Axis(int in, int out, int kernel, int stride, int dilation, int pad) {
      this(in, out, kernel, stride, dilation, pad, (kernel - 1) * dilation);
    }

    /** Of the data gradient whose forward pass this is: for a stride of 1, taps in reverse. */
    Axis reversed() {
      return new Axis(out, in, kernel, stride, dilation, reach - pad);
    }

    /** Of the data gradient whose forward pass this is: what its phases see together. */
    Axis phased(HopperPhases.Axis phases) {
      return new Axis(
          out, phases.grid(), kernel, 1, phases.dilation(), -phases.corner(), phases.reach());
    }

    /** Where the filter's corner is for the last place of out. */
    int last() {
      return (out - 1) * stride - pad;
    }

    /** Whether the result lies side by side with what its taps see. */
    boolean sameExtent() {
      return stride == 1 && in == out;
    }

    /** Whether an im2col tensor map can tell it. */
    boolean fits() {
      return stride <= 8
          && Math.abs(pad) <= 127
          && Math.abs((long) (out - 1) * stride - pad - (in - 1)) <= 127
          && reach <= 255;
    }
  }

  /** Both axes, channels, and the phases of a strided data gradient, whose grid out then is. */
  private record Gather(
      int batch, Axis h, Axis w, int inC, int outC, @Nullable HopperPhases phases) {
    /** A forward pass or a data gradient. */
    static Optional<Gather> of(Conv2dDescriptor d, Pass pass) {
      Axis h = new Axis(d.h(), d.oh(), d.kh(), d.strideH(), d.dilationH(), d.padTop());
      Axis w = new Axis(d.w(), d.ow(), d.kw(), d.strideW(), d.dilationW(), d.padLeft());
      return switch (pass) {
        case FPROP -> Optional.of(new Gather(d.n(), h, w, d.ic(), d.oc(), null));
        case DGRAD ->
            d.strideH() == 1 && d.strideW() == 1
                ? Optional.of(new Gather(d.n(), h.reversed(), w.reversed(), d.oc(), d.ic(), null))
                : phased(d, h, w, HopperPhases.of(d));
        case WGRAD -> Optional.empty();
      };
    }

    private static Optional<Gather> phased(
        Conv2dDescriptor d, Axis h, Axis w, HopperPhases phases) {
      return phases.count() <= HopperPhases.MOST
          ? Optional.of(
              new Gather(d.n(), h.phased(phases.h()), w.phased(phases.w()), d.oc(), d.ic(), phases))
          : Optional.empty();
    }

    int taps() {
      return h.kernel() * w.kernel();
    }

    int chunks() {
      return Math.ceilDiv(inC, HopperTile.CHUNK);
    }

    /** Of out, or of each phase. */
    long pixels() {
      return (long) batch * h.out() * w.out();
    }

    /** Tiles that cover the result. */
    long tiles(HopperTile tile) {
      return (phases == null ? 1L : phases.count()) * tile.tiles(pixels(), outC);
    }

    HopperTile.Work work(HopperTile tile) {
      return phases == null ? tile.work(taps(), chunks(), halo()) : phases.work(tile, chunks());
    }

    /** Pixels before and after a run of them that its taps see. */
    long halo() {
      return (long) h.reach() * w.in() + w.reach();
    }

    /** Whether a tile can do it. */
    boolean fits(HopperTile tile) {
      boolean sideBySide = h.sameExtent() && w.sameExtent();
      boolean can =
          tile.window()
              ? taps() > 1 && sideBySide && tile.holds(halo())
              : tile.panel()
                  ? taps() == 1 && sideBySide && phases == null && tile.keeps(chunks())
                  : h.fits() && w.fits();
      return can && inC % 8 == 0 && outC % 8 == 0;
    }
  }

  /** Maps of the operands, and for which addresses they were made. */
  private record Maps(
      long in,
      long weights,
      long out,
      MemorySegment ofIn,
      MemorySegment ofWeights,
      MemorySegment ofOut) {
    boolean fit(long otherIn, long otherWeights, long otherOut) {
      return in == otherIn && weights == otherWeights && out == otherOut;
    }
  }

  private final CudaBackend backend;
  private final DataType type;
  private final Gather gather;
  private final boolean reversed;
  private final HopperTile tile;
  private final Rectifier srcActivation;
  private final TiledConvolution own;
  private final Kernel kernel;
  private volatile @Nullable Maps maps;

  /**
   * @param tile one of {@link #able}
   * @param own packs the weights, and does what this cannot
   */
  HopperConvolution(
      CudaBackend backend,
      ConvolutionProblem problem,
      HopperTile tile,
      Rectifier srcActivation,
      TiledConvolution own) {
    this.backend = backend;
    this.type = problem.type();
    this.tile = tile;
    this.srcActivation = srcActivation;
    this.own = own;
    gather = gather(problem);
    reversed = problem.pass() == Pass.DGRAD;
    kernel = backend.kernels().get(kernel(tile, problem), tile.threads(), tile.sharedMemory());
  }

  /**
   * The tiles that can do a pass of a convolution that the tiled kernels can do: none on other
   * devices, of other types, and where a tensor map cannot tell the sizes.
   */
  static List<HopperTile> able(CudaBackend backend, ConvolutionProblem problem) {
    CudaDevice device = backend.cudaDevice();
    Optional<Gather> gather = Gather.of(problem.d(), problem.pass());
    return available(backend, problem)
        ? HopperTile.all().stream()
            .filter(tile -> gather.filter(g -> g.fits(tile)).isPresent())
            .filter(tile -> tile.sharedMemory() <= device.sharedMemory())
            .toList()
        : List.of();
  }

  /** Whether kernels of compute capability 9.0 are used for a device and a type. */
  static boolean available(CudaBackend backend, ConvolutionProblem problem) {
    return backend.cudaDevice().capability() == 90
        && !System.getProperty(PROPERTY, "true").equals("false")
        && TensorMaps.available()
        && problem.type().bytes() == 2
        && problem.d().n() > 0;
  }

  /** Whether an im2col tensor map can tell what the taps of a forward pass see. */
  static boolean gathers(Conv2dDescriptor d) {
    return Gather.of(d, Pass.FPROP).filter(g -> g.h().fits() && g.w().fits()).isPresent();
  }

  /**
   * The tile to take: one that was asked for by name; none where other kernels were; else the best,
   * where it is bounded no worse than the tile that would do the pass instead.
   */
  static Optional<HopperTile> taken(
      CudaBackend backend,
      List<HopperTile> able,
      ConvolutionProblem problem,
      TiledConvolution own) {
    if (able.isEmpty() || backend.prefersSome()) {
      return able.stream().filter(tile -> backend.prefers(kernel(tile, problem))).findFirst();
    }
    ConvolutionBounds bounds = new ConvolutionBounds(backend.cudaDevice().multiprocessors());
    Tile other = own.chosen(problem.pass());
    HopperTile best = best(bounds, able, problem, other.problem());
    return bound(bounds, best, problem, other.problem()) <= bounds.of(other)
        ? Optional.of(best)
        : Optional.empty();
  }

  /**
   * Of some tiles the one with the least bound; of several the one that moves least through shared
   * memory, and the first of those: a pair only where its bound is less.
   */
  static HopperTile best(
      ConvolutionBounds bounds,
      List<HopperTile> able,
      ConvolutionProblem problem,
      TileProblem product) {
    Comparator<HopperTile> byBound =
        Comparator.comparingDouble(tile -> bound(bounds, tile, problem, product));
    return Collections.min(
        able,
        byBound.thenComparingDouble(tile -> tiles(tile, problem) * work(tile, problem).shared()));
  }

  private static double bound(
      ConvolutionBounds bounds, HopperTile tile, ConvolutionProblem problem, TileProblem product) {
    return bounds.of(tile, work(tile, problem), tiles(tile, problem), product);
  }

  private static Gather gather(ConvolutionProblem problem) {
    return Gather.of(problem.d(), problem.pass()).orElseThrow();
  }

  /** What each tile of a pass takes: of a strided data gradient, whose tiles differ, a mean. */
  static HopperTile.Work work(HopperTile tile, ConvolutionProblem problem) {
    return gather(problem).work(tile);
  }

  /** How many tiles of a pass there are. */
  static long tiles(HopperTile tile, ConvolutionProblem problem) {
    return gather(problem).tiles(tile);
  }

  /** The kernel of a tile for a pass. */
  static String kernel(HopperTile tile, ConvolutionProblem problem) {
    return gather(problem).phases() == null
        ? tile.kernel(problem.pass(), problem.type())
        : tile.stridedKernel(problem.type());
  }

  private Maps maps(Tensor in, long weights, Tensor out) {
    Maps known = maps;
    if (known != null && known.fit(in.address(), weights, out.address())) {
      return known;
    }
    Arena arena = Arena.ofAuto();
    Gather g = gather;
    Maps fresh =
        new Maps(
            in.address(),
            weights,
            out.address(),
            tile.window() || tile.panel()
                ? TensorMaps.tiled(
                    arena,
                    type,
                    in.address(),
                    (long) g.batch() * g.h().in() * g.w().in(),
                    1,
                    g.inC(),
                    tile.window() ? HopperTile.BOX : tile.rows())
                : TensorMaps.im2col(
                    arena,
                    type,
                    in.address(),
                    new int[] {g.batch(), g.h().in(), g.w().in(), g.inC()},
                    new int[] {-g.h().pad(), -g.w().pad()},
                    new int[] {g.h().last(), g.w().last()},
                    new int[] {g.h().stride(), g.w().stride()},
                    tile.rows()),
            TensorMaps.tiled(
                arena,
                type,
                weights,
                g.outC(),
                g.taps(),
                g.inC(),
                tile.columnsOfPart() / tile.cluster()),
            g.phases() == null
                ? TensorMaps.tiled(
                    arena, type, out.address(), g.pixels(), 1, g.outC(), tile.blocks() * 64)
                : arena.allocate(TensorMaps.BYTES)); // pixels of a phase do not lie side by side
    maps = fresh;
    return fresh;
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
    if (aligned(src, dst, shortcut) && bias.address() % 8 == 0) {
      Maps taken = maps(src, own.weights(stream, packed).forward(), dst);
      run(stream, taken, bias.address(), shortcut, 0, signs, epilogue);
    } else {
      own.fprop(stream, src, packed, bias, epilogue, shortcut, dst, signs);
    }
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
    if (aligned(diffDst, diffSrc, gate)) {
      Maps taken = maps(diffDst, own.weights(stream, packed).backward(), diffSrc);
      long old = write == Write.ACCUMULATE ? diffSrc.address() : 0;
      Rectifier factor = (gate | signs) == 0 ? Rectifier.IDENTITY : srcActivation;
      run(stream, taken, 0, gate, old, signs, new Epilogue(factor, 0, 0));
    } else {
      own.dgrad(stream, diffDst, packed, gate, signs, diffSrc, write);
    }
  }

  /** What tensor maps ask for, and loads of two elements. */
  private static boolean aligned(Tensor in, Tensor out, long beside) {
    return (in.address() | out.address()) % 16 == 0 && beside % 4 == 0;
  }

  /** Packs a Conv2dSm90Params and launches. */
  private void run(
      CudaStream stream,
      Maps taken,
      long bias,
      long gate,
      long old,
      long signs,
      Epilogue epilogue) {
    Gather g = gather;
    HopperPhases phases = g.phases();
    int tiles = Math.toIntExact(g.tiles(tile));
    long pixels = phases == null ? g.pixels() : phases.pixels(g.batch());
    Arguments arguments = stream.arguments();
    arguments
        .tensorMap(taken.ofIn())
        .tensorMap(taken.ofWeights())
        .tensorMap(taken.ofOut())
        .pointer(bias)
        .pointer(gate)
        .pointer(old)
        .pointer(signs)
        .f32(epilogue.activation().scale())
        .f32(epilogue.activation().slope())
        .f32(epilogue.branchWeight())
        .f32(epilogue.shortcutWeight())
        .i32(tiles / tile.cluster())
        .i32(tile.tilesN(g.outC()) * tile.parts())
        .i32(Math.toIntExact(pixels))
        .i32(g.outC())
        .i32(g.chunks())
        .i32(g.taps())
        .flag(reversed)
        .i32(g.taps() * g.chunks())
        .i32(g.w().kernel())
        .i32(g.h().out())
        .i32(g.w().out())
        .i32(g.h().stride())
        .i32(g.w().stride())
        .i32(g.h().pad())
        .i32(g.w().pad())
        .i32(g.h().dilation())
        .i32(g.w().dilation())
        .i32(tile.boxes(g.halo()))
        .skip(8);
    if (phases != null) {
      int phaseTiles = tiles / tile.cluster() / phases.count();
      phases.pack(arguments, taken.out(), phaseTiles, Math.toIntExact(g.pixels()), g.chunks());
    }
    stream.launchWaiting(kernel, tile.grid(tiles, backend.cudaDevice().multiprocessors()));
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    own.wgrad(stream, src, diffDst, diffWeights, diffBias, write);
  }
}
