package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.HostMemory;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongUnaryOperator;

/**
 * The forward pass of a convolution cut into bands, which threads can do side by side: some images,
 * or some rows of the results of one. Each is a convolution of its own, of the rows that it reads,
 * padded only where the image ends. Results have the bits that the whole has where rows that a
 * kernel computes together stay together.
 */
final class Bands implements AutoCloseable {
  /** Multiply-adds of a band at least: some microseconds, of which meeting takes one. */
  private static final long LEAST_PRODUCTS = 250_000;

  /** Images, and rows of results. */
  record Band(int image, int images, int row, int rows) {}

  /** Sizes of a convolution as its kernel takes them. */
  interface Sizes {
    /** Those with another number of images, of rows, and of rows of padding above. */
    int[] of(int n, int h, int oh, int padTop);
  }

  /** Computes a band. */
  interface Pass {
    /**
     * Computes it.
     *
     * @param sizes address of the kernel's sizes
     * @param src bytes from the beginning of the source to that of the band
     * @param dst likewise of the results
     * @param workspace address
     */
    void run(long sizes, long src, long dst, long workspace);
  }

  private final HostMemory memory; // sizes of the whole, then of each band
  private final long stride; // bytes
  private final long[] src;
  private final long[] dst;
  private final long workspaceBytes;

  /**
   * @param together rows of results that the kernel computes together
   * @param most bands of use
   * @param workspace bytes for the sizes at an address
   */
  Bands(
      Conv2dDescriptor d,
      DataType type,
      int together,
      int most,
      Sizes sizes,
      LongUnaryOperator workspace) {
    List<Band> bands = cut(d, together, most);
    int[] whole = sizes.of(d.n(), d.h(), d.oh(), d.padTop());
    stride = (long) whole.length * Integer.BYTES;
    memory = HostMemory.allocate(stride * (1 + bands.size()));
    src = new long[bands.size()];
    dst = new long[bands.size()];
    put(0, whole);
    long bytes = workspace.applyAsLong(sizes());
    long srcRow = (long) d.w() * d.ic() * type.bytes();
    long dstRow = (long) d.ow() * d.oc() * type.bytes();
    for (int i = 0; i < src.length; i++) {
      Band band = bands.get(i);
      int above = band.row() * d.strideH() - d.padTop(); // the first row that is read
      int first = Math.max(0, above);
      int end = above + (band.rows() - 1) * d.strideH() + (d.kh() - 1) * d.dilationH() + 1;
      int rows = band.images() > 1 ? d.h() : Math.min(end, d.h()) - first;
      put(i + 1, sizes.of(band.images(), rows, band.rows(), first - above));
      src[i] = ((long) band.image() * d.h() + first) * srcRow;
      dst[i] = ((long) band.image() * d.oh() + band.row()) * dstRow;
      bytes = Math.max(bytes, workspace.applyAsLong(memory.address() + (i + 1) * stride));
    }
    workspaceBytes = bytes;
  }

  private void put(int index, int[] values) {
    for (int i = 0; i < values.length; i++) {
      memory.segment().setAtIndex(JAVA_INT, (long) index * values.length + i, values[i]);
    }
  }

  /** None where one would be left. */
  static List<Band> cut(Conv2dDescriptor d, int together, int most) {
    int steps = Math.ceilDiv(d.oh(), together);
    long products = (long) d.oh() * d.ow() * d.oc() * d.ic() * d.kh() * d.kw();
    long useful = Math.min(most, d.n() * products / LEAST_PRODUCTS);
    List<Band> bands = new ArrayList<>();
    if (useful > d.n()) {
      int each = (int) Math.min(steps, useful / d.n());
      for (int i = 0; i < d.n() * each; i++) {
        int row = i % each * steps / each * together;
        int end = Math.min((i % each + 1) * steps / each * together, d.oh());
        bands.add(new Band(i / each, 1, row, end - row));
      }
    } else {
      for (int i = 0; i < useful; i++) {
        int image = (int) ((long) i * d.n() / useful);
        int end = (int) ((i + 1L) * d.n() / useful);
        bands.add(new Band(image, end - image, 0, d.oh()));
      }
    }
    return bands.size() > 1 ? bands : List.of();
  }

  /** Address of the sizes of the whole. */
  long sizes() {
    return memory.address();
  }

  /** Computes all of it: on a stream of several threads in bands, else at once. */
  void run(OneDnnStream stream, Pass pass) {
    Team team = stream.team();
    if (team == null || src.length == 0) {
      pass.run(sizes(), 0, 0, stream.workspace(workspaceBytes));
      return;
    }
    team.share(
        src.length,
        (i, member) ->
            pass.run(
                sizes() + (i + 1) * stride,
                src[i],
                dst[i],
                stream.workspace(member, workspaceBytes)));
  }

  @Override
  public void close() {
    memory.close();
  }
}
