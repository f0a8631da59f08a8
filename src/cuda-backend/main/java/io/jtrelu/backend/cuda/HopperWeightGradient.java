package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.backend.cuda.TiledConvolution.Tile;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A weight gradient by conv2d_wgrad_sm90.cu: wgmma of compute capability 9.0, by windows for
 * filters of several taps whose result has the extent of its source, else by bulk copies (TMA) of
 * each tap. Tensor maps hold addresses, so they are encoded for the operands of the first call, and
 * again only where others come. The structs are explained in cuda/include/wgrad_sm90.cuh and
 * wgrad_sm90_tile.cuh. Operands that are not aligned are left to the tiled kernels.
 */
final class HopperWeightGradient implements ConvolutionPasses {
  private static final int SHORTEST_SPLIT = 4; // stages
  private static final int MOST_WAVES = 4;
  private static final long MOST_WORKSPACE = 256L << 20;

  /**
   * How a problem is spread over blocks: all of the same length but those of the last split.
   *
   * @param tilesM blocks of a split along the channels of diff_dst
   * @param tilesN and along those of src
   * @param splits how many
   * @param length of a block's contraction in stages
   * @param ahead stages of src besides
   */
  record Plan(int tilesM, int tilesN, int splits, int length, int ahead) {
    long tiles() {
      return (long) tilesM * tilesN;
    }

    long blocks() {
      return tiles() * splits;
    }
  }

  /** Maps of the operands, and for which addresses they were made. */
  private record Maps(long src, long diffDst, MemorySegment ofSrc, MemorySegment ofDiffDst) {
    boolean fit(long otherSrc, long otherDiffDst) {
      return src == otherSrc && diffDst == otherDiffDst;
    }
  }

  private final Conv2dDescriptor d;
  private final DataType type;
  private final HopperWeightTile tile;
  private final Plan plan;
  private final TiledConvolution own;
  private final Kernel kernel;
  private final SplitSum splitSum;
  private volatile @Nullable Maps maps;

  /**
   * @param tile one of {@link #able}
   * @param own does what this cannot
   */
  HopperWeightGradient(
      CudaBackend backend,
      ConvolutionProblem problem,
      HopperWeightTile tile,
      TiledConvolution own) {
    d = problem.d();
    type = problem.type();
    this.tile = tile;
    this.own = own;
    plan = plan(tile, d, new ConvolutionBounds(backend.cudaDevice().multiprocessors()));
    kernel = backend.kernels().get(tile.kernel(type), tile.threads(), tile.sharedMemory());
    splitSum = SplitSum.of(backend, d.weights().elements(), d.oc());
  }

  /** The tiles that can do a pass of a convolution that the tiled kernels can do. */
  static List<HopperWeightTile> able(CudaBackend backend, ConvolutionProblem problem) {
    Conv2dDescriptor d = problem.d();
    boolean able =
        problem.pass() == Pass.WGRAD
            && HopperConvolution.available(backend, problem)
            && d.ic() % 8 == 0
            && d.oc() % 8 == 0;
    return able
        ? HopperWeightTile.all().stream()
            .filter(tile -> tile.window() ? fitsWindow(tile, d) : HopperConvolution.gathers(d))
            .filter(tile -> tile.sharedMemory() <= backend.cudaDevice().sharedMemory())
            .toList()
        : List.of();
  }

  /** Whether all taps are shifts of src against diff_dst, not too many and not too far. */
  private static boolean fitsWindow(HopperWeightTile tile, Conv2dDescriptor d) {
    int taps = d.kh() * d.kw();
    return taps > 1
        && taps <= HopperWeightTile.TAPS
        && d.strideH() == 1
        && d.strideW() == 1
        && d.oh() == d.h()
        && d.ow() == d.w()
        && tile.holds(halo(d));
  }

  /**
   * The tile to take: one that was asked for by name; none where other kernels were; else the one
   * of the least bound, where that is less than of the tile that would do the pass instead.
   */
  static Optional<HopperWeightTile> taken(
      CudaBackend backend,
      List<HopperWeightTile> able,
      ConvolutionProblem problem,
      TiledConvolution own) {
    if (able.isEmpty() || backend.prefersSome()) {
      return able.stream().filter(tile -> backend.prefers(tile.kernel(problem.type()))).findFirst();
    }
    ConvolutionBounds bounds = new ConvolutionBounds(backend.cudaDevice().multiprocessors());
    Tile other = own.chosen(Pass.WGRAD);
    HopperWeightTile best = best(bounds, able, problem.d());
    return bounds.of(best, plan(best, problem.d(), bounds), problem.d()) < bounds.ofWgrad(other)
        ? Optional.of(best)
        : Optional.empty();
  }

  /** Of some tiles the one with the least bound. */
  static HopperWeightTile best(
      ConvolutionBounds bounds, List<HopperWeightTile> able, Conv2dDescriptor d) {
    return able.stream()
        .min(Comparator.comparingDouble(tile -> bounds.of(tile, plan(tile, d, bounds), d)))
        .orElseThrow();
  }

  /** Pixels between what the first and the last tap see. */
  private static long halo(Conv2dDescriptor d) {
    return (d.kh() - 1L) * d.dilationH() * d.w() + (d.kw() - 1L) * d.dilationW();
  }

  /**
   * As many splits as cost least, of those that fill one to four waves of the multiprocessors, each
   * long enough, with partial sums of bounded size. A function of the problem and the number of
   * multiprocessors.
   */
  static Plan plan(HopperWeightTile tile, Conv2dDescriptor d, ConvolutionBounds bounds) {
    int tilesM = tile.tilesM(d);
    int tilesN = tile.tilesN(d);
    int ahead = tile.ahead(halo(d));
    long pixels = (long) d.n() * d.oh() * d.ow();
    long stages = Math.ceilDiv(pixels, (long) HopperWeightTile.STAGE);
    long results = (d.weights().elements() + d.oc()) * Float.BYTES;
    long most = Math.max(1, Math.min(MOST_WORKSPACE / results, stages / SHORTEST_SPLIT));
    Plan best = null;
    double least = Double.POSITIVE_INFINITY;
    for (int waves = 1; waves <= MOST_WAVES; waves++) {
      long wanted = Math.clamp((long) waves * bounds.multiprocessors() / tilesM / tilesN, 1, most);
      int length = Math.toIntExact(Math.ceilDiv(stages, wanted));
      Plan plan =
          new Plan(
              tilesM, tilesN, Math.toIntExact(Math.ceilDiv(stages, (long) length)), length, ahead);
      double cost = bounds.cost(tile, plan, d);
      if (best == null || cost < least) {
        best = plan;
        least = cost;
      }
    }
    return best;
  }

  @Override
  public long scratchBytes() {
    return plan.splits() == 1 ? 0 : splitSum.bytes(plan.splits());
  }

  private Maps maps(Tensor src, Tensor diffDst) {
    Maps known = maps;
    if (known != null && known.fit(src.address(), diffDst.address())) {
      return known;
    }
    Arena arena = Arena.ofAuto();
    long pixels = (long) d.n() * d.oh() * d.ow();
    int stage = HopperWeightTile.STAGE;
    Maps fresh =
        new Maps(
            src.address(),
            diffDst.address(),
            TensorMaps.im2col(
                arena,
                type,
                src.address(),
                new int[] {d.n(), d.h(), d.w(), d.ic()},
                new int[] {-d.padTop(), -d.padLeft()},
                new int[] {
                  (d.oh() - 1) * d.strideH() - d.padTop(), (d.ow() - 1) * d.strideW() - d.padLeft()
                },
                new int[] {d.strideH(), d.strideW()},
                stage),
            TensorMaps.tiled(arena, type, diffDst.address(), pixels, 1, d.oc(), stage));
    maps = fresh;
    return fresh;
  }

  @Override
  public void wgrad(
      CudaStream stream,
      Tensor src,
      Tensor diffDst,
      Tensor diffWeights,
      Tensor diffBias,
      Write write) {
    int splits = plan.splits();
    boolean single = splits == 1;
    boolean aligned =
        (src.address() | diffDst.address()) % 16 == 0
            && (!single || diffWeights.address() % 8 == 0);
    if (!aligned) {
      own.wgrad(stream, src, diffDst, diffWeights, diffBias, write);
      return;
    }
    long partial = single ? 0 : stream.workspace(splitSum.bytes(splits));
    Arguments arguments = stream.arguments();
    if (tile.window()) {
      arguments.pointer(src).pointer(diffDst);
    } else {
      Maps known = maps(src, diffDst);
      arguments.tensorMap(known.ofDiffDst()).tensorMap(known.ofSrc());
    }
    arguments
        .pointer(single ? diffWeights.address() : partial)
        .pointer(single ? diffBias.address() : partial + splitSum.weights() * Float.BYTES)
        .i64(single ? 0 : splitSum.stride())
        .flag(single && write == Write.ACCUMULATE)
        .i32(d.n() * d.oh() * d.ow())
        .i32(plan.length() * HopperWeightTile.STAGE)
        .i32(d.ic())
        .i32(d.oc())
        .i32(d.kh() * d.kw())
        .i32(plan.tilesM())
        .i32(plan.tilesN())
        .i32(d.kw())
        .i32(d.oh())
        .i32(d.ow());
    if (!tile.window()) {
      arguments.i32(d.strideH()).i32(d.strideW());
    }
    arguments.i32(d.padTop()).i32(d.padLeft()).i32(d.dilationH()).i32(d.dilationW());
    if (tile.window()) {
      arguments.i32(plan.ahead());
    }
    stream.launchWaiting(kernel, plan.blocks());
    if (!single) {
      splitSum.run(stream, partial, splits, diffWeights, diffBias, write);
    }
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
    own.fprop(stream, src, packed, bias, epilogue, shortcut, dst);
  }

  @Override
  public void dgrad(
      CudaStream stream,
      Tensor diffDst,
      PackedWeights packed,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    own.dgrad(stream, diffDst, packed, src, diffSrc, write);
  }
}
