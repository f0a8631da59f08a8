package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/**
 * An F32 convolution that is 1x1 or strided, or a linear layer, or one that reads few channels.
 *
 * <p>By the definition ({@code native/cpu/direct_kernels.h}, and {@code few_channels_kernels.h}
 * beside it) sums are exact products added up in binary32, in blocks of channels or pixels. 3x3
 * convolutions of stride 2 are done by Winograd's minimal filtering ({@code
 * native/cpu/winograd_strided_kernels.h}): 25 multiplications for 2x2 results instead of 36.
 * Rounding errors then come from all source values of a tile. Large 1x1 convolutions are done by a
 * level of Strassen's method ({@code native/cpu/strassen_kernels.h}): 7 products of half the size
 * instead of 8. Rounding errors then come from both pixels of a pair: {@link Conv2d} has the bound.
 *
 * <p>On matrix units (AMX; {@code native/cpu/matrix_unit_kernels.h}, where a property asks for
 * them) each factor is cut into three bfloat16, and six of the nine products of their parts are
 * added up in binary32. What is left out is at most 2^-24 (1 + 2^-10) of each product, nothing
 * where both factors have at most 17 bits or one of them 8; what is smaller than 2^-126, of
 * factors, parts and sums, counts as zero. A NaN stays one, sums that meet an infinity become one,
 * and a product nearer than 2^-7 to the largest number may.
 */
final class F32Conv2d extends Conv2d {
  private static final int LEAST_CHANNELS = 16; // for vectors to be full

  /**
   * Winograd's method has 16 weights for 9, Strassen's 7 for 4, which cost more to read than they
   * save where a pass has fewer results: of 512 channels one image of 7x7 takes as long as by the
   * definition, four less.
   */
  private static final int LEAST_RESULTS = 100;

  /** Of the windows of a row of results, so that they stay in the second-level cache. */
  private static final int MOST_WINDOW_BYTES = 256 * 1024;

  /** With fewer channels Strassen's sums of pixels and of results cost what its products save. */
  private static final int LEAST_MIXED_CHANNELS = 128;

  private static final int MIXED_CHANNELS = 32; // both halves are in full vectors

  private final F32Convolutions kernels;
  private final Bands bands;
  private final long sizes;
  private final OneDnnPackedWeights.Format format;
  private final long packedForwardBytes;
  private final long packedBackwardBytes;
  private final long workspaceBytes;

  /**
   * The kernels that do this convolution, faster than oneDNN; null where none do.
   *
   * @param mayMix whether 1x1 convolutions may be done by Strassen's method
   */
  static @Nullable F32Convolutions kernelsFor(
      CpuKernels kernels, Conv2dDescriptor d, boolean mayMix) {
    if (fewChannelsApply(d) && fewChannelsPay(d)) {
      return kernels.fewChannels();
    }
    boolean oneTap = d.kh() == 1 && d.kw() == 1;
    boolean strided = d.strideH() > 1 || d.strideW() > 1;
    if (!applies(d) || !(oneTap || strided) || Math.min(d.ic(), d.oc()) < LEAST_CHANNELS) {
      return null;
    }
    if (kernels.usesMatrixUnits()) {
      return kernels.directConvolutions();
    }
    if (winogradApplies(d) && winogradPays(d)) {
      return kernels.stridedWinograd();
    }
    return mayMix && strassenApplies(d) && strassenPays(d)
        ? kernels.strassen()
        : kernels.directConvolutions();
  }

  /** Whether there are kernels that do this convolution by the definition. */
  static boolean applies(Conv2dDescriptor d) {
    return d.groups() == 1
        && d.dilationH() == 1
        && d.dilationW() == 1
        && Math.max(d.kh(), d.kw()) <= F32Convolutions.MOST_TAPS;
  }

  /** Whether there are kernels that do this convolution as one of few channels. */
  static boolean fewChannelsApply(Conv2dDescriptor d) {
    return applies(d) && d.ic() < LEAST_CHANNELS && d.oc() % LEAST_CHANNELS == 0;
  }

  /** Whether these are faster: windows have several values, and a row's are not too many. */
  private static boolean fewChannelsPay(Conv2dDescriptor d) {
    long columns = (d.ow() - 1L) * d.strideW() + d.kw();
    return d.kh() * d.kw() > 1 && columns * d.kh() * d.ic() * Float.BYTES <= MOST_WINDOW_BYTES;
  }

  /** Whether there are kernels that do this convolution by Winograd's method. */
  static boolean winogradApplies(Conv2dDescriptor d) {
    return applies(d)
        && d.kh() == 3
        && d.kw() == 3
        && d.strideH() == 2
        && d.strideW() == 2
        && d.ic() % LEAST_CHANNELS == 0
        && d.oc() % LEAST_CHANNELS == 0;
  }

  /**
   * Whether Winograd's method is faster, and its errors do not stand out: sums have enough terms,
   * and none has no term at all (a window in the padding, a source value in no window).
   */
  private static boolean winogradPays(Conv2dDescriptor d) {
    return (long) d.n() * d.oh() * d.ow() >= LEAST_RESULTS
        && Math.min(d.oh(), d.ow()) >= WinogradConv2d.LEAST_EXTENT
        && Math.max(d.padTop(), d.padLeft()) <= 1
        && Math.max(d.padBottom(), d.padRight()) <= 1
        && 2 * d.oh() + 1 >= d.h() + d.padTop()
        && 2 * d.ow() + 1 >= d.w() + d.padLeft();
  }

  /** Whether there are kernels that do this convolution by Strassen's method. */
  static boolean strassenApplies(Conv2dDescriptor d) {
    return applies(d)
        && d.kh() == 1
        && d.kw() == 1
        && d.strideH() == 1
        && d.strideW() == 1
        && d.oh() == d.h()
        && d.ow() == d.w()
        && d.ic() % MIXED_CHANNELS == 0
        && d.oc() % MIXED_CHANNELS == 0;
  }

  /** Whether Strassen's method is faster. */
  private static boolean strassenPays(Conv2dDescriptor d) {
    return (long) d.n() * d.oh() * d.ow() >= LEAST_RESULTS
        && Math.min(d.oh(), d.ow()) >= WinogradConv2d.LEAST_EXTENT // few pixels have no neighbour
        && Math.min(d.ic(), d.oc()) >= LEAST_MIXED_CHANNELS;
  }

  /**
   * @param threads that may share a forward pass
   */
  F32Conv2d(
      F32Convolutions kernels,
      Conv2dDescriptor d,
      Rectifier activation,
      Rectifier srcActivation,
      int threads) {
    super(Device.CPU, d, DataType.F32, activation, srcActivation);
    this.kernels = kernels;
    this.bands =
        new Bands(
            d,
            DataType.F32,
            kernels.together(),
            threads,
            (n, h, oh, top) ->
                new int[] {
                  n,
                  h,
                  d.w(),
                  d.ic(),
                  oh,
                  d.ow(),
                  d.oc(),
                  d.kh(),
                  d.kw(),
                  d.strideH(),
                  d.strideW(),
                  top,
                  d.padLeft()
                },
            kernels::workspaceBytes);
    this.sizes = bands.sizes();
    this.packedForwardBytes = kernels.packedBytes(sizes, false);
    this.packedBackwardBytes = kernels.packedBytes(sizes, true);
    this.workspaceBytes = kernels.workspaceBytes(sizes);
    this.format =
        new OneDnnPackedWeights.Format(
            named(d.kh() + "x" + d.kw() + ": " + d.ic() + " to " + d.oc()),
            named(kernels.toString()));
  }

  private static ByteBuffer named(String name) {
    return ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8));
  }

  /** Method and instruction set, for tests. */
  String method() {
    return kernels.toString();
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    return new OneDnnPackedWeights(format, packedForwardBytes, packedBackwardBytes);
  }

  private OneDnnPackedWeights require(OneDnnStream lane, PackedWeights packed) {
    return OneDnnPackedWeights.require(lane, packed, format, descriptor());
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    OneDnnStream lane = OneDnnStream.of(stream);
    OneDnnPackedWeights own = require(lane, packed);
    kernels.pack(sizes, weights.address(), own.forwardToPack(), own.backwardToPack());
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
    bands.run(
        lane,
        (band, from, to, workspace) ->
            kernels.forward(band, x + from, packed, b, activation(), y + to, workspace));
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
    kernels.backwardData(
        sizes,
        diffDst.address(),
        require(lane, weights).backward(),
        srcActivation().isIdentity() ? 0 : src.address(),
        srcActivation(),
        write,
        diffSrc.address(),
        lane.workspace(workspaceBytes));
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    kernels.gradients(
        sizes,
        src.address(),
        diffDst.address(),
        diffWeights.address(),
        diffBias.address(),
        write,
        lane.workspace(workspaceBytes));
  }

  @Override
  protected void release() {
    bands.close();
  }
}
