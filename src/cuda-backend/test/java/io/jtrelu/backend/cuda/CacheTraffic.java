package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.backend.cuda.TiledConvolution.Tile;
import io.jtrelu.tensor.DataType;
import java.util.stream.IntStream;

/**
 * What a tiled convolution asks of the second-level cache, counted from its definition: of each
 * block the distinct sectors of the activation that its taps touch (the first-level cache answers
 * the others), the weights' rows of its stages, and its part of the result and of the gate. A
 * wgrad's partial sums are written and read again. The emulated device's counters must agree.
 */
final class CacheTraffic {
  private static final int SECTOR = 32;
  private static final int SAMPLE = 4; // images, after which every layer's tiles repeat

  private final Tile tile;
  private final TileVariant v;
  private final Conv2dDescriptor d;
  private final int bytes;

  private CacheTraffic(Tile tile, Conv2dDescriptor d, DataType type) {
    this.tile = tile;
    this.v = tile.variant();
    this.d = d;
    this.bytes = type.bytes();
  }

  /** Bytes read by the first-level caches and past them, and written, by all kernels of a pass. */
  static double secondLevel(Tile tile, Conv2dDescriptor d, DataType type) {
    CacheTraffic traffic = new CacheTraffic(tile, d, type);
    return tile.variant().pass() == Pass.WGRAD
        ? traffic.wgrad() + traffic.partialSums()
        : traffic.gather();
  }

  /** What the wgrad kernel alone asks for; else as {@link #secondLevel}. */
  static double ofKernel(Tile tile, Conv2dDescriptor d, DataType type) {
    CacheTraffic traffic = new CacheTraffic(tile, d, type);
    return tile.variant().pass() == Pass.WGRAD
        ? traffic.wgrad() + traffic.sums()
        : traffic.gather();
  }

  /** Bytes of a wgrad's sums, those of all splits. */
  static double sums(Tile tile, Conv2dDescriptor d) {
    return 4.0 * tile.splits() * (d.weights().elements() + d.oc());
  }

  private double sums() {
    return sums(tile, d);
  }

  private double partialSums() {
    double one = sums() / tile.splits();
    return tile.splits() == 1 ? one : 2 * sums() + one;
  }

  // --- fprop and dgrad ---

  private double gather() {
    boolean dgrad = v.pass() == Pass.DGRAD;
    int images = Math.min(d.n(), SAMPLE);
    int strideH = dgrad ? d.strideH() : 1;
    int strideW = dgrad ? d.strideW() : 1;
    int gridH = Math.ceilDiv(dgrad ? d.h() : d.oh(), strideH);
    int gridW = Math.ceilDiv(dgrad ? d.w() : d.ow(), strideW);
    int outC = dgrad ? d.ic() : d.oc();
    long groups = tile.tilesN(outC);
    double activation = 0;
    double weights = 0;
    for (int phase = 0; phase < strideH * strideW; phase++) {
      int[] taps = taps(dgrad, phase / strideW, phase % strideW);
      long tiles = Math.ceilDiv((long) images * gridH * gridW, (long) v.blockM());
      activation +=
          groups * distinct(dgrad, images, gridH, gridW, taps, phase / strideW, phase % strideW);
      long depth = taps.length / 2L * rowBytes(dgrad ? d.oc() : d.ic());
      weights += tiles * outC * depth;
    }
    double out = (double) images * (dgrad ? d.h() * d.w() : d.oh() * d.ow()) * outC * bytes;
    double whole = (double) d.n() / images;
    // Signs are read or written beside it: a bit for an element of 16, but of images.
    boolean signs = bytes == 2 && outC % 32 == 0;
    return whole * (activation + weights + out * (signs ? 17.0 / 16 : dgrad ? 2 : 1));
  }

  /** Bytes of a tap's row of packed weights: padding shares its sectors. The stem has none. */
  private int rowBytes(int channels) {
    if (v.stem() && channels == v.dstChannels()) {
      return channels * bytes;
    }
    int unit = 16 / bytes;
    return Math.ceilDiv(channels, unit) * unit * bytes;
  }

  /** Taps (r, s) that reach pixels of a phase. */
  private int[] taps(boolean dgrad, int phaseH, int phaseW) {
    return IntStream.range(0, d.kh() * d.kw())
        .filter(
            tap ->
                !dgrad
                    || ((phaseH + d.padTop() - tap / d.kw()) % d.strideH() == 0
                        && (phaseW + d.padLeft() - tap % d.kw()) % d.strideW() == 0))
        .flatMap(tap -> IntStream.of(tap / d.kw(), tap % d.kw()))
        .toArray();
  }

  /** Bytes of the activation that the row tiles of a phase touch, each tile for itself. */
  private double distinct(
      boolean dgrad, int images, int gridH, int gridW, int[] taps, int phaseH, int phaseW) {
    int inH = dgrad ? d.oh() : d.h();
    int inW = dgrad ? d.ow() : d.w();
    int pixelBytes = (dgrad ? d.oc() : d.ic()) * bytes;
    Sectors sectors = new Sectors((long) images * inH * inW, pixelBytes);
    int rows = images * gridH * gridW;
    for (int m = 0; m < rows; m++) {
      if (m % v.blockM() == 0) {
        sectors.begin();
      }
      int n = m / (gridH * gridW);
      int row = m / gridW % gridH;
      int column = m % gridW;
      if (dgrad
          && (row * d.strideH() + phaseH >= d.h() || column * d.strideW() + phaseW >= d.w())) {
        continue; // a row of the grid that no pixel belongs to is gathered all the same, rarely
      }
      for (int t = 0; t < taps.length; t += 2) {
        int y =
            dgrad
                ? Math.floorDiv(row * d.strideH() + phaseH + d.padTop() - taps[t], d.strideH())
                : row * d.strideH() - d.padTop() + taps[t];
        int x =
            dgrad
                ? Math.floorDiv(
                    column * d.strideW() + phaseW + d.padLeft() - taps[t + 1], d.strideW())
                : column * d.strideW() - d.padLeft() + taps[t + 1];
        if (y >= 0 && y < inH && x >= 0 && x < inW) {
          sectors.touch(((long) n * inH + y) * inW + x);
        }
      }
    }
    return sectors.bytes();
  }

  // --- wgrad ---

  private double wgrad() {
    int images = Math.min(d.n(), SAMPLE);
    int taps = d.kh() * d.kw();
    int columns = taps * d.ic();
    int unit = d.ic() % 64 == 0 ? 64 : d.ic();
    int tilesN = Math.ceilDiv(columns, v.blockN());
    int tilesM = Math.ceilDiv(d.oc(), v.blockM());
    double src = 0;
    for (int n = 0; n < tilesN; n++) {
      int begin = n * v.blockN();
      int end = Math.min(begin + v.blockN(), columns);
      for (int u = begin / (taps * unit); u * taps * unit < end; u++) {
        int from = Math.max(begin - u * taps * unit, 0) / unit;
        int to = Math.ceilDiv(Math.min(end - u * taps * unit, taps * unit), unit);
        src += distinct(images, from, to, unit);
      }
    }
    double diffDst = (double) d.n() * d.oh() * d.ow() * d.oc() * bytes * tilesN;
    return diffDst + tilesM * src * d.n() / images;
  }

  /** Bytes of a unit of channels that taps [from, to) touch over all pixels. */
  private double distinct(int images, int from, int to, int unit) {
    Sectors sectors = new Sectors((long) images * d.h() * d.w(), unit * bytes);
    sectors.begin();
    for (int m = 0; m < images * d.oh() * d.ow(); m++) {
      int n = m / (d.oh() * d.ow());
      for (int tap = from; tap < to; tap++) {
        int y = m / d.ow() % d.oh() * d.strideH() - d.padTop() + tap / d.kw();
        int x = m % d.ow() * d.strideW() - d.padLeft() + tap % d.kw();
        if (y >= 0 && y < d.h() && x >= 0 && x < d.w()) {
          sectors.touch(((long) n * d.h() + y) * d.w() + x);
        }
      }
    }
    return sectors.bytes();
  }

  /** Counts the distinct sectors of pixels, tile by tile. */
  private static final class Sectors {
    private final int[] lastTile;
    private final int pixelBytes;
    private final int pixelsOfSector;
    private int tile;
    private long count;

    Sectors(long pixels, int pixelBytes) {
      this.pixelBytes = pixelBytes;
      this.pixelsOfSector = Math.max(1, SECTOR / pixelBytes);
      this.lastTile = new int[Math.toIntExact(Math.ceilDiv(pixels, (long) pixelsOfSector))];
    }

    void begin() {
      tile++;
    }

    void touch(long pixel) {
      int at = (int) (pixel / pixelsOfSector);
      if (lastTile[at] != tile) {
        lastTile[at] = tile;
        count++;
      }
    }

    double bytes() {
      return (double) count * Math.max(SECTOR, pixelBytes);
    }
  }
}
