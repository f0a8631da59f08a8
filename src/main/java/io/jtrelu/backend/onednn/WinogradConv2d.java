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
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * A 3x3 convolution of stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, CVPR
 * 2016): 4x4 tiles of the source, two apart, give 2x2 tiles of the destination with 16
 * multiplications instead of 36.
 *
 * <pre>
 * forward          dst tile   = A^T [ sum over c of (G g G^T) * (B^T d B) ] A
 * backwardData     the same with the kernel turned by 180 degrees and channels exchanged
 * backwardWeights  diff g     = G^T [ sum over tiles of (A e A^T) * (B^T d B) ] G       e a tile of diff_dst
 * </pre>
 *
 * The sums over channels, and over tiles, are 16 matrix products, one for each place in a tile,
 * which oneDNN runs as one batch. Transforms work on rows of tiles: with even and odd columns kept
 * apart, all channels of a row are one contiguous run, which the compiler vectorises. Some rows of
 * tiles go through all steps at once, as many as stay in the second level cache.
 */
final class WinogradConv2d extends Conv2d {
  private static final int PLACES = 16; // in a 4x4 tile
  private static final int CACHED_FLOATS = 6400; // tiles x channels of one place

  // Indices of a lane's arrays.
  private static final int LINE = 0;
  private static final int BIAS = 1;
  private static final int ROWS = 2; // four
  private static final int VERTICAL = 6; // eight
  private static final int HORIZONTAL = 14; // four

  private final Dnnl library;
  private final Lifetime lifetime = new Lifetime("convolution");
  private final Deque<Primitive> primitives = new ArrayDeque<>();
  private final Tiling toDst; // tiles of src that give dst
  private final Tiling toSrc; // tiles of diff_dst that give diff_src
  private final Primitive forward;
  private final Primitive backwardData;
  private final Primitive backwardWeights;
  private final Primitive backwardWeightsMore; // adds to the sum of earlier tiles
  private final Primitive packForward;
  private final Primitive packBackward;
  private final OneDnnPackedWeights.Format format;
  private final long packedForwardBytes;
  private final long packedBackwardBytes;

  /**
   * Whether the method pays. Below some 96 channels the transforms cost what the products save; in
   * a small image so few terms are summed that its rounding errors, which come from all of a tile,
   * stand out.
   */
  static boolean pays(Conv2dDescriptor d, DataType type) {
    return type == DataType.F32
        && applies(d)
        && Math.min(d.ic(), d.oc()) >= 96
        && Math.min(d.oh(), d.ow()) >= 8;
  }

  /** Whether the method applies. */
  static boolean applies(Conv2dDescriptor d) {
    return d.kh() == 3
        && d.kw() == 3
        && d.strideH() == 1
        && d.strideW() == 1
        && d.dilationH() == 1
        && d.dilationW() == 1
        && d.groups() == 1
        && Math.max(d.padTop(), d.padLeft()) <= 2
        && Math.max(d.padBottom(), d.padRight()) <= 2;
  }

  WinogradConv2d(
      Dnnl library, Conv2dDescriptor descriptor, Rectifier activation, Rectifier srcActivation) {
    super(Device.CPU, descriptor, DataType.F32, activation, srcActivation);
    this.library = library;
    Conv2dDescriptor d = descriptor;
    int channels = Math.max(d.ic(), d.oc());
    this.toDst = Tiling.of(d.n(), d.h(), d.w(), d.oh(), d.ow(), d.padTop(), d.padLeft(), channels);
    this.toSrc =
        Tiling.of(d.n(), d.oh(), d.ow(), d.h(), d.w(), 2 - d.padTop(), 2 - d.padLeft(), channels);
    try (Dnnl.Scope scope = library.new Scope()) {
      int abc = dnnl.dnnl_abc;
      int acb = dnnl.dnnl_acb;
      int any = dnnl.dnnl_format_tag_any;
      int ic = d.ic();
      int oc = d.oc();
      int tiles = toDst.tiles();
      this.forward =
          product(
              scope,
              memory(scope, abc, tiles, ic),
              memory(scope, any, ic, oc),
              memory(scope, abc, tiles, oc),
              false);
      this.backwardData =
          product(
              scope,
              memory(scope, abc, toSrc.tiles(), oc),
              memory(scope, any, oc, ic),
              memory(scope, abc, toSrc.tiles(), ic),
              false);
      long transposed = memory(scope, acb, oc, tiles);
      long sources = memory(scope, abc, tiles, ic);
      long planes = memory(scope, abc, oc, ic);
      this.backwardWeights = product(scope, transposed, sources, planes, false);
      this.backwardWeightsMore = product(scope, transposed, sources, planes, true);
      long forwardFormat = forward.memory(dnnl.DNNL_ARG_WEIGHTS);
      long backwardFormat = backwardData.memory(dnnl.DNNL_ARG_WEIGHTS);
      this.packForward = reorder(scope, memory(scope, acb, ic, oc), forwardFormat);
      this.packBackward = reorder(scope, planes, backwardFormat);
      this.format =
          new OneDnnPackedWeights.Format(library.blob(forwardFormat), library.blob(backwardFormat));
      this.packedForwardBytes = library.bytes(forwardFormat);
      this.packedBackwardBytes = library.bytes(backwardFormat);
    } catch (RuntimeException failure) {
      closePrimitives();
      throw failure;
    }
  }

  private static long memory(Dnnl.Scope scope, int tag, long rows, long columns) {
    return scope.memory(dnnl.dnnl_f32, tag, PLACES, rows, columns);
  }

  private Primitive product(Dnnl.Scope scope, long a, long b, long c, boolean accumulate) {
    long attributes = scope.attributes();
    if (accumulate) {
      scope.addSum(attributes);
    }
    return own(
        library.create(
            "dnnl_matmul_primitive_desc_create", library.engine(), a, b, 0L, c, attributes),
        dnnl.DNNL_ARG_SRC,
        dnnl.DNNL_ARG_WEIGHTS,
        dnnl.DNNL_ARG_DST);
  }

  private Primitive reorder(Dnnl.Scope scope, long from, long to) {
    long engine = library.engine();
    return own(
        library.create(
            "dnnl_reorder_primitive_desc_create", from, engine, to, engine, scope.attributes()),
        dnnl.DNNL_ARG_FROM,
        dnnl.DNNL_ARG_TO);
  }

  private Primitive own(long primitiveDescriptor, int... operands) {
    Primitive primitive = new Primitive(library, primitiveDescriptor, operands);
    primitives.push(primitive);
    return primitive;
  }

  /**
   * How an image is cut into tiles.
   *
   * @param images batch size
   * @param h height of what is read
   * @param w its width
   * @param outH height of what is written
   * @param outW its width
   * @param top rows of padding above
   * @param left columns of padding on the left
   * @param high tiles in a column
   * @param wide tiles in a row
   * @param rows rows of tiles that are worked on at once; they may belong to several images
   */
  private record Tiling(
      int images,
      int h,
      int w,
      int outH,
      int outW,
      int top,
      int left,
      int high,
      int wide,
      int rows) {

    static Tiling of(
        int images, int h, int w, int outH, int outW, int top, int left, int channels) {
      int high = Math.ceilDiv(outH, 2);
      int wide = Math.ceilDiv(outW, 2);
      int total = Math.max(1, images * high);
      int most = Math.clamp(CACHED_FLOATS / (channels * wide), 1, total);
      int rows = Math.ceilDiv(total, Math.ceilDiv(total, most)); // equal shares
      return new Tiling(images, h, w, outH, outW, top, left, high, wide, rows);
    }

    int tiles() {
      return rows * wide;
    }

    int totalRows() {
      return images * high;
    }

    /** Floats of all places of the tiles worked on at once. */
    long floats(int channels) {
      return (long) PLACES * tiles() * channels;
    }
  }

  @Override
  public PackedWeights newPackedWeights() {
    lifetime.requireOpen();
    return new OneDnnPackedWeights(format, packedForwardBytes, packedBackwardBytes);
  }

  private OneDnnPackedWeights require(PackedWeights packed) {
    return OneDnnPackedWeights.require(packed, format, descriptor());
  }

  /** G g G^T for all channels, as 16 planes [oc, ic]. */
  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    OneDnnStream lane = lifetime.requireOpen(stream);
    OneDnnPackedWeights own = require(packed);
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    int size = ic * oc;
    float[] krsc = lane.array(0, 9 * size);
    float[][] g = new float[9][];
    for (int tap = 0; tap < 9; tap++) {
      g[tap] = lane.array(1 + tap, size);
    }
    Elements.load(DataType.F32, weights.address(), krsc, 9 * size);
    for (int k = 0; k < oc; k++) {
      for (int tap = 0; tap < 9; tap++) {
        System.arraycopy(krsc, (k * 9 + tap) * ic, g[tap], k * ic, ic);
      }
    }
    float[][] half = new float[12][]; // G g: four rows of three
    for (int i = 0; i < 12; i++) {
      half[i] = lane.array(10 + i, size);
    }
    for (int s = 0; s < 3; s++) {
      filter(g[s], g[3 + s], g[6 + s], half[s], half[3 + s], half[6 + s], half[9 + s], size);
    }
    float[][] row = {lane.array(0, size), g[0], g[1], g[2]};
    long pad = align(Math.max(packForward.scratchpadBytes(), packBackward.scratchpadBytes()));
    long workspace = lane.workspace(pad + 2L * PLACES * size * Float.BYTES);
    long planes = workspace + pad;
    long turned = planes + (long) PLACES * size * Float.BYTES;
    for (int i = 0; i < 4; i++) {
      filter(half[3 * i], half[3 * i + 1], half[3 * i + 2], row[0], row[1], row[2], row[3], size);
      for (int j = 0; j < 4; j++) {
        long bytes = (long) size * Float.BYTES;
        Elements.store(DataType.F32, row[j], planes + (4 * i + j) * bytes, size);
        // Turning the kernel exchanges the first and the last row and column of a tile.
        Elements.store(DataType.F32, row[j], turned + (4 * turn(i) + turn(j)) * bytes, size);
      }
    }
    packForward.run(lane, workspace, planes, own.forward(), 0, 0);
    packBackward.run(lane, workspace, turned, own.backward(), 0, 0);
  }

  private static int turn(int i) {
    return i == 0 ? 3 : i == 3 ? 0 : i;
  }

  /** (y0, y1, y2, y3) = G (x0, x1, x2). */
  private static void filter(
      float[] x0,
      float[] x1,
      float[] x2,
      float[] y0,
      float[] y1,
      float[] y2,
      float[] y3,
      int count) {
    for (int i = 0; i < count; i++) {
      float outer = 0.5f * (x0[i] + x2[i]);
      float inner = 0.5f * x1[i];
      y0[i] = x0[i];
      y1[i] = outer + inner;
      y2[i] = outer - inner;
      y3[i] = x2[i];
    }
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    OneDnnStream lane = lifetime.requireOpen(stream);
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    long packed = require(weights).forward();
    float[] offsets = lane.array(BIAS, toDst.outW * oc);
    Elements.load(DataType.F32, bias.address(), offsets, oc);
    for (int column = 1; column < toDst.outW; column++) {
      System.arraycopy(offsets, 0, offsets, column * oc, oc);
    }
    long transformed = align(forward.scratchpadBytes());
    long products = transformed + toDst.floats(ic) * Float.BYTES;
    long workspace = lane.workspace(products + toDst.floats(oc) * Float.BYTES);
    for (int first = 0; first < toDst.totalRows(); first += toDst.rows) {
      source(lane, toDst, ic, src.address(), first, workspace + transformed);
      forward.run(lane, workspace, workspace + transformed, packed, workspace + products, 0);
      destination(lane, toDst, oc, workspace + products, first, dst.address(), null, 0, null);
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
    OneDnnStream lane = lifetime.requireOpen(stream);
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    long packed = require(weights).backward();
    long transformed = align(backwardData.scratchpadBytes());
    long products = transformed + toSrc.floats(oc) * Float.BYTES;
    long workspace = lane.workspace(products + toSrc.floats(ic) * Float.BYTES);
    for (int first = 0; first < toSrc.totalRows(); first += toSrc.rows) {
      source(lane, toSrc, oc, diffDst.address(), first, workspace + transformed);
      backwardData.run(lane, workspace, workspace + transformed, packed, workspace + products, 0);
      destination(
          lane,
          toSrc,
          ic,
          workspace + products,
          first,
          diffSrc.address(),
          srcActivation(),
          src.address(),
          write);
    }
  }

  /** B^T d B of some rows of tiles, into memory [16, tiles, channels]. */
  private static void source(
      OneDnnStream lane, Tiling t, int channels, long x, int first, long transformed) {
    int run = t.wide * channels;
    int parity = run + channels; // even columns, then odd ones, each with one more than tiles
    float[] line = lane.array(LINE, t.w * channels);
    float[][] d = lane.arrays(ROWS, 4, 2 * parity);
    float[][] v = lane.arrays(VERTICAL, 4, 2 * parity);
    float[][] h = lane.arrays(HORIZONTAL, 4, run);
    long place = (long) t.tiles() * channels * Float.BYTES;
    int last = Math.min(first + t.rows, t.totalRows());
    for (int row = first; row < last; row++) {
      int image = row / t.high;
      int top = row % t.high * 2 - t.top;
      boolean overlaps = row > first && row % t.high > 0; // with the row of tiles before
      for (int i = 0; i < 4; i++) {
        if (overlaps && i < 2) {
          float[] kept = d[i + 2];
          d[i + 2] = d[i];
          d[i] = kept;
        } else {
          split(x, t, image, top + i, channels, line, d[i]);
        }
      }
      tile(d[0], d[1], d[2], d[3], v[0], v[1], v[2], v[3], 2 * parity);
      for (int i = 0; i < 4; i++) {
        columns(v[i], channels, parity, h[0], h[1], h[2], h[3], run);
        long to = transformed + (long) (row - first) * run * Float.BYTES;
        for (int j = 0; j < 4; j++) {
          Elements.store(DataType.F32, h[j], to + (4 * i + j) * place, run);
        }
      }
    }
  }

  /** Reads a row of an image, its even columns first; what lies outside is zero. */
  private static void split(
      long x, Tiling t, int image, int y, int channels, float[] line, float[] to) {
    int parity = (t.wide + 1) * channels;
    if (y < 0 || y >= t.h) {
      Arrays.fill(to, 0, 2 * parity, 0);
      return;
    }
    int length = t.w * channels;
    Elements.load(DataType.F32, x + ((long) image * t.h + y) * length * Float.BYTES, line, length);
    for (int column = 0; column < 2 * t.wide + 2; column++) {
      int from = column - t.left;
      int at = (column & 1) * parity + (column >> 1) * channels;
      if (from >= 0 && from < t.w) {
        System.arraycopy(line, from * channels, to, at, channels);
      } else {
        Arrays.fill(to, at, at + channels, 0);
      }
    }
  }

  /** (y0, y1, y2, y3) = B^T (x0, x1, x2, x3). */
  private static void tile(
      float[] x0,
      float[] x1,
      float[] x2,
      float[] x3,
      float[] y0,
      float[] y1,
      float[] y2,
      float[] y3,
      int count) {
    for (int i = 0; i < count; i++) {
      y0[i] = x0[i] - x2[i];
      y1[i] = x1[i] + x2[i];
      y2[i] = x2[i] - x1[i];
      y3[i] = x1[i] - x3[i];
    }
  }

  /** The same along a row whose even and odd columns are apart. */
  private static void columns(
      float[] x,
      int channels,
      int parity,
      float[] y0,
      float[] y1,
      float[] y2,
      float[] y3,
      int count) {
    for (int i = 0; i < count; i++) {
      float x0 = x[i];
      float x1 = x[i + parity];
      float x2 = x[i + channels];
      float x3 = x[i + parity + channels];
      y0[i] = x0 - x2;
      y1[i] = x1 + x2;
      y2[i] = x2 - x1;
      y3[i] = x1 - x3;
    }
  }

  /**
   * A^T m A of some rows of tiles, then bias and rectifier (psi null), or accumulation and
   * derivative.
   */
  private void destination(
      OneDnnStream lane,
      Tiling t,
      int channels,
      long products,
      int first,
      long y,
      @Nullable Rectifier psi,
      long source,
      @Nullable Write write) {
    int run = t.wide * channels;
    int length = t.outW * channels;
    float[] line = lane.array(LINE, Math.max(t.w, t.outW) * channels);
    float[] offsets = lane.array(BIAS, 0);
    float[][] m = lane.arrays(ROWS, 4, run);
    float[][] v = lane.arrays(VERTICAL, 8, run);
    float[][] h = lane.arrays(HORIZONTAL, 2, run);
    long place = (long) t.tiles() * channels * Float.BYTES;
    int last = Math.min(first + t.rows, t.totalRows());
    for (int row = first; row < last; row++) {
      long from = products + (long) (row - first) * run * Float.BYTES;
      for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) {
          Elements.load(DataType.F32, from + (4 * i + j) * place, m[i], run);
        }
        pair(m[0], m[1], m[2], m[3], v[j], v[4 + j], run);
      }
      for (int i = 0; i < 2; i++) {
        int outRow = row % t.high * 2 + i;
        if (outRow >= t.outH) {
          break;
        }
        pair(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3], h[0], h[1], run);
        for (int column = 0; column < t.outW; column++) {
          System.arraycopy(
              h[column & 1], (column >> 1) * channels, line, column * channels, channels);
        }
        long offset = ((long) (row / t.high) * t.outH + outRow) * length * Float.BYTES;
        if (psi == null || write == null) {
          addTo(line, offsets, length);
          Elements.rectify(activation(), line, length);
          Elements.store(DataType.F32, line, y + offset, length);
        } else {
          for (int i0 = 0; i0 < length; i0 += Elements.CHUNK) {
            int count = Math.min(Elements.CHUNK, length - i0);
            float[] gradient = lane.chunk(0);
            System.arraycopy(line, i0, gradient, 0, count);
            long at = offset + (long) i0 * Float.BYTES;
            Elements.storeGradient(
                lane, gradient, psi, DataType.F32, source + at, y + at, count, write);
          }
        }
      }
    }
  }

  /** (y0, y1) = A^T (x0, x1, x2, x3). */
  private static void pair(
      float[] x0, float[] x1, float[] x2, float[] x3, float[] y0, float[] y1, int count) {
    for (int i = 0; i < count; i++) {
      y0[i] = x0[i] + x1[i] + x2[i];
      y1[i] = x1[i] - x2[i] - x3[i];
    }
  }

  private static void addTo(float[] x, float[] y, int count) {
    for (int i = 0; i < count; i++) {
      x[i] += y[i];
    }
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    OneDnnStream lane = lifetime.requireOpen(stream);
    Tiling t = toDst;
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    int size = ic * oc;
    double[] sums = lane.doubles(t.outW * oc);
    Arrays.fill(sums, 0, t.outW * oc, 0);
    long sources =
        align(Math.max(backwardWeights.scratchpadBytes(), backwardWeightsMore.scratchpadBytes()));
    long gradients = sources + t.floats(ic) * Float.BYTES;
    long planes = gradients + t.floats(oc) * Float.BYTES;
    long workspace = lane.workspace(planes + (long) PLACES * size * Float.BYTES);
    if (t.totalRows() == 0) {
      Elements.zero(workspace + planes, (long) PLACES * size * Float.BYTES);
    }
    for (int first = 0; first < t.totalRows(); first += t.rows) {
      source(lane, t, ic, src.address(), first, workspace + sources);
      gradient(lane, t, oc, diffDst.address(), first, workspace + gradients, sums);
      (first == 0 ? backwardWeights : backwardWeightsMore)
          .run(lane, workspace, workspace + gradients, workspace + sources, workspace + planes, 0);
    }
    storeWeights(lane, workspace + planes, diffWeights.address(), write);
    float[] bias = lane.chunk(0);
    for (int i = 0; i < oc; i += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, oc - i);
      for (int k = 0; k < count; k++) {
        double sum = 0;
        for (int column = 0; column < t.outW; column++) {
          sum += sums[column * oc + i + k];
        }
        bias[k] = (float) sum;
      }
      long to = diffBias.address() + (long) i * Float.BYTES;
      Elements.storeGradient(lane, bias, Rectifier.IDENTITY, DataType.F32, 0, to, count, write);
    }
  }

  /** A e A^T of some rows of tiles, into memory [16, tiles, channels]; adds e to sums by column. */
  private static void gradient(
      OneDnnStream lane,
      Tiling t,
      int channels,
      long diffDst,
      int first,
      long transformed,
      double[] sums) {
    int run = t.wide * channels;
    int length = t.outW * channels;
    float[] line = lane.array(LINE, Math.max(t.w * channels, length));
    float[][] e = lane.arrays(ROWS, 2, 2 * run);
    float[][] v = lane.arrays(VERTICAL, 4, 2 * run);
    float[][] h = lane.arrays(HORIZONTAL, 4, run);
    long place = (long) t.tiles() * channels * Float.BYTES;
    int last = Math.min(first + t.rows, t.totalRows());
    for (int row = first; row < first + t.rows; row++) {
      long to = transformed + (long) (row - first) * run * Float.BYTES;
      if (row >= last) { // what is left over from an equal share adds nothing
        for (int k = 0; k < PLACES; k++) {
          Elements.zero(to + k * place, (long) run * Float.BYTES);
        }
        continue;
      }
      for (int i = 0; i < 2; i++) {
        int y = row % t.high * 2 + i;
        if (y >= t.outH) {
          Arrays.fill(e[i], 0, 2 * run, 0);
          continue;
        }
        Elements.load(
            DataType.F32,
            diffDst + ((long) (row / t.high) * t.outH + y) * length * Float.BYTES,
            line,
            length);
        addTo(sums, line, length);
        for (int column = 0; column < 2 * t.wide; column++) {
          int at = (column & 1) * run + (column >> 1) * channels;
          if (column < t.outW) {
            System.arraycopy(line, column * channels, e[i], at, channels);
          } else {
            Arrays.fill(e[i], at, at + channels, 0);
          }
        }
      }
      spread(e[0], 0, e[1], 0, v[0], v[1], v[2], v[3], 2 * run);
      for (int i = 0; i < 4; i++) {
        spread(v[i], 0, v[i], run, h[0], h[1], h[2], h[3], run);
        for (int j = 0; j < 4; j++) {
          Elements.store(DataType.F32, h[j], to + (4 * i + j) * place, run);
        }
      }
    }
  }

  private static void addTo(double[] sums, float[] x, int count) {
    for (int i = 0; i < count; i++) {
      sums[i] += x[i];
    }
  }

  /** (y0, y1, y2, y3) = A (x0, x1). */
  private static void spread(
      float[] x0,
      int from0,
      float[] x1,
      int from1,
      float[] y0,
      float[] y1,
      float[] y2,
      float[] y3,
      int count) {
    for (int i = 0; i < count; i++) {
      float a = x0[from0 + i];
      float b = x1[from1 + i];
      y0[i] = a;
      y1[i] = a + b;
      y2[i] = a - b;
      y3[i] = -b;
    }
  }

  /** G^T m G of all channels, from 16 planes [oc, ic] to KRSC. */
  private void storeWeights(OneDnnStream lane, long planes, long diffWeights, Write write) {
    int ic = descriptor().ic();
    int oc = descriptor().oc();
    int size = ic * oc;
    float[][] m = lane.arrays(1, 4, size);
    float[][] half = lane.arrays(5, 12, size); // G^T m: three rows of four
    float[][] g = lane.arrays(17, 9, size);
    for (int j = 0; j < 4; j++) {
      for (int i = 0; i < 4; i++) {
        Elements.load(DataType.F32, planes + (4L * i + j) * size * Float.BYTES, m[i], size);
      }
      gather(m[0], m[1], m[2], m[3], half[j], half[4 + j], half[8 + j], size);
    }
    for (int r = 0; r < 3; r++) {
      gather(
          half[4 * r],
          half[4 * r + 1],
          half[4 * r + 2],
          half[4 * r + 3],
          g[3 * r],
          g[3 * r + 1],
          g[3 * r + 2],
          size);
    }
    float[] krsc = lane.array(0, 9 * size);
    if (write == Write.ACCUMULATE) {
      Elements.load(DataType.F32, diffWeights, krsc, 9 * size);
    }
    for (int k = 0; k < oc; k++) {
      for (int tap = 0; tap < 9; tap++) {
        int at = (k * 9 + tap) * ic;
        if (write == Write.OVERWRITE) {
          System.arraycopy(g[tap], k * ic, krsc, at, ic);
        } else {
          addTo(krsc, at, g[tap], k * ic, ic);
        }
      }
    }
    Elements.store(DataType.F32, krsc, diffWeights, 9 * size);
  }

  private static void addTo(float[] x, int xFrom, float[] y, int yFrom, int count) {
    for (int i = 0; i < count; i++) {
      x[xFrom + i] += y[yFrom + i];
    }
  }

  /** (y0, y1, y2) = G^T (x0, x1, x2, x3). */
  private static void gather(
      float[] x0,
      float[] x1,
      float[] x2,
      float[] x3,
      float[] y0,
      float[] y1,
      float[] y2,
      int count) {
    for (int i = 0; i < count; i++) {
      float sum = 0.5f * (x1[i] + x2[i]);
      y0[i] = x0[i] + sum;
      y1[i] = 0.5f * (x1[i] - x2[i]);
      y2[i] = sum + x3[i];
    }
  }

  private static long align(long bytes) {
    return Math.ceilDiv(bytes, 4096) * 4096;
  }

  @Override
  public void close() {
    if (lifetime.close()) {
      closePrimitives();
    }
  }

  private void closePrimitives() {
    while (!primitives.isEmpty()) {
      primitives.pop().close();
    }
  }
}
