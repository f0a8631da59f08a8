package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.HostMemory;
import io.jtrelu.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * A 3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray, CVPR 2016): 46
 * multiplications for 4x4 results instead of 144 (with complex points: Meng and Brothers, 2019), or
 * 16 for 2x2 results instead of 36. {@code native/cpu/winograd_kernels.h} holds the method.
 *
 * <p>Rounding errors come from all source values of a tile: they are within c * eps * (the sum of
 * |src| |weights| over the tile), not over each result's own window. With BF16 activations
 * transformed values are F32 all the same, unless kernels are given that round them to BF16 too.
 */
final class WinogradConv2d extends Conv2d {
  private static final int CHANNELS = 16; // the kernels' vectors
  static final int LEAST_EXTENT =
      6; // in smaller images sums have so few terms that a tile's errors stand out

  /**
   * Places of a tile of 4x4, and of 2x2: products of its transformed values, each with a weight of
   * its own.
   */
  private static final int PLACES_OF_FOURS = 46;

  private static final int PLACES_OF_TWOS = 16;

  /** What it takes to read a weight, in products: measured where the two kinds of tiles tie. */
  private static final int PRODUCTS_OF_WEIGHT = 7;

  private final CpuKernels.Convolutions kernels;
  private final int tile;
  private final Bands toDst;
  private final HostMemory toSrc;
  private final OneDnnPackedWeights.Format format;
  private final long workspaceBytes;

  /** Whether the kernels do this convolution, and faster than oneDNN's direct ones. */
  static boolean pays(Conv2dDescriptor d) {
    return applies(d) && Math.min(d.oh(), d.ow()) >= LEAST_EXTENT;
  }

  /** Whether the kernels do this convolution. */
  static boolean applies(Conv2dDescriptor d) {
    return d.kh() == 3
        && d.kw() == 3
        && d.strideH() == 1
        && d.strideW() == 1
        && d.dilationH() == 1
        && d.dilationW() == 1
        && d.groups() == 1
        && d.ic() % CHANNELS == 0
        && d.oc() % CHANNELS == 0
        && Math.max(d.padTop(), d.padLeft()) <= 2
        && Math.max(d.padBottom(), d.padRight()) <= 2;
  }

  /**
   * Results of a tile along an axis for the least time: 4 where what they save in products, of a
   * pair of channels, is more than reading their weights takes.
   */
  static int bestTile(Conv2dDescriptor d) {
    long saved = d.n() * (productsOfTwos(d) - productsOfFours(d));
    return saved >= PRODUCTS_OF_WEIGHT * (PLACES_OF_FOURS - PLACES_OF_TWOS) ? 4 : 2;
  }

  /** Products of an image, in tiles of 2x2: an axis has 4 points a tile, 3 where it ends odd. */
  private static long productsOfTwos(Conv2dDescriptor d) {
    return (long) (2 * d.oh() + d.oh() % 2) * (2 * d.ow() + d.ow() % 2);
  }

  /**
   * Products of an image, in tiles of four results, the rest of an axis in tiles of two: real times
   * real points take one, real times complex ones three, of two complex ones six.
   */
  private static long productsOfFours(Conv2dDescriptor d) {
    long fours = foursOf(d.oh());
    long foursAcross = foursOf(d.ow());
    long real = 4 * tilesOf(d.oh()) - d.oh() % 2;
    long realAcross = 4 * tilesOf(d.ow()) - d.ow() % 2;
    return real * realAcross
        + 3 * (real * foursAcross + fours * realAcross)
        + 6 * fours * foursAcross;
  }

  private static long foursOf(long extent) {
    return extent / 4 + extent % 4 / 3;
  }

  private static long tilesOf(long extent) {
    return (extent + 3) / 4;
  }

  /**
   * @param tile results of a tile along an axis: 4 or 2
   * @param threads that may share a forward pass
   */
  WinogradConv2d(
      CpuKernels.Convolutions kernels,
      Conv2dDescriptor d,
      DataType type,
      Rectifier activation,
      Rectifier srcActivation,
      int tile,
      int threads) {
    super(Device.CPU, d, type, activation, srcActivation);
    this.kernels = kernels;
    this.tile = tile;
    this.toDst =
        new Bands(
            d,
            type,
            tile,
            threads,
            (n, h, oh, top) ->
                new int[] {n, h, d.w(), d.ic(), oh, d.ow(), d.oc(), top, d.padLeft(), tile},
            kernels::workspaceBytes);
    int padTop = 2 - d.padTop();
    int padLeft = 2 - d.padLeft();
    this.toSrc = ints(d.n(), d.oh(), d.ow(), d.oc(), d.h(), d.w(), d.ic(), padTop, padLeft, tile);
    this.workspaceBytes =
        Math.max(kernels.workspaceBytes(toDst.sizes()), kernels.workspaceBytes(toSrc.address()));
    this.format =
        new OneDnnPackedWeights.Format(
            named("winograd " + tile + ": " + d.ic() + " to " + d.oc()), named(kernels.toString()));
  }

  private static HostMemory ints(int... values) {
    HostMemory memory = HostMemory.allocate((long) values.length * Integer.BYTES);
    for (int i = 0; i < values.length; i++) {
      memory.segment().setAtIndex(JAVA_INT, i, values[i]);
    }
    return memory;
  }

  private static ByteBuffer named(String name) {
    return ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8));
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    return new OneDnnPackedWeights(
        format, kernels.packedBytes(ic, oc, tile), kernels.packedBytes(oc, ic, tile));
  }

  private OneDnnPackedWeights require(OneDnnStream lane, PackedWeights packed) {
    return OneDnnPackedWeights.require(lane, packed, format, descriptor());
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    OneDnnStream lane = OneDnnStream.of(stream);
    OneDnnPackedWeights own = require(lane, packed);
    Conv2dDescriptor d = descriptor();
    kernels.pack(
        weights.address(), d.ic(), d.oc(), tile, own.forwardToPack(), own.backwardToPack());
    own.setPacked();
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long packed = require(lane, weights).forward();
    long x = src.address();
    long y = dst.address();
    long b = bias.address();
    toDst.run(
        lane,
        (sizes, from, to, workspace) ->
            kernels.convolve(
                sizes, x + from, packed, y + to, b, 0, activation(), Write.OVERWRITE, workspace));
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    kernels.convolve(
        toSrc.address(),
        diffDst.address(),
        require(lane, weights).backward(),
        diffSrc.address(),
        0,
        srcActivation().isIdentity() ? 0 : src.address(),
        srcActivation(),
        write,
        lane.workspace(workspaceBytes));
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    kernels.gradients(
        toDst.sizes(),
        src.address(),
        diffDst.address(),
        diffWeights.address(),
        diffBias.address(),
        write,
        lane.workspace(workspaceBytes));
  }

  @Override
  protected void release() {
    toDst.close();
    toSrc.close();
  }
}
