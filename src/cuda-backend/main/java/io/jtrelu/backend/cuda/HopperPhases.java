package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * The data gradient of a strided convolution as conv2d_dgrad_strided_sm90.cu sees it: pixels of
 * diff_src of one phase (y mod strideH, x mod strideW) are reached by the same taps. Explained in
 * cuda/include/conv2d_sm90_strided.cuh.
 *
 * @param h along H
 * @param w along W
 */
record HopperPhases(Axis h, Axis w) {
  /** Phases that fit into the parameters. */
  static final int MOST = 16;

  /**
   * A phase along one axis: place {@code at + i * stride} of diff_src sees the places {@code i +
   * corner + offset + t * dilation} of diff_dst, by the filter's taps {@code first - t * step}.
   *
   * @param at its first place
   * @param taps how many reach it
   * @param offset of the place that the first one sees, from that of all phases
   * @param first of them
   */
  record Phase(int at, int taps, int offset, int first) {}

  /**
   * All phases along one axis.
   *
   * @param out places of diff_src
   * @param grid places of each phase
   * @param stride of the convolution
   * @param step backwards in the filter from one tap of a phase to the next
   * @param dilation places of diff_dst from one tap to the next
   * @param corner where the first tap of any phase looks from the first place
   * @param reach how far from there the last one looks
   * @param phases by their first place
   */
  record Axis(
      int out,
      int grid,
      int stride,
      int step,
      int dilation,
      int corner,
      int reach,
      List<Phase> phases) {
    static Axis of(int out, int kernel, int stride, int dilation, int pad) {
      int step = stride / gcd(stride, dilation);
      int apart = step * dilation / stride;
      List<Phase> found = new ArrayList<>(); // offsets are from place 0 for now
      for (int at = 0; at < Math.min(stride, out); at++) {
        int tap = 0;
        while (tap < Math.min(kernel, step) && (at + pad - tap * dilation) % stride != 0) {
          tap++;
        }
        int taps = tap < step ? Math.max(0, Math.ceilDiv(kernel - tap, step)) : 0;
        int last = tap + (taps - 1) * step;
        found.add(
            taps == 0
                ? new Phase(at, 0, 0, 0)
                : new Phase(at, taps, (at + pad - last * dilation) / stride, last));
      }
      int corner = found.stream().filter(p -> p.taps > 0).mapToInt(Phase::offset).min().orElse(0);
      List<Phase> phases =
          found.stream()
              .map(p -> new Phase(p.at, p.taps, p.taps > 0 ? p.offset - corner : 0, p.first))
              .toList();
      int reach =
          phases.stream().mapToInt(p -> p.offset + Math.max(0, p.taps - 1) * apart).max().orElse(0);
      return new Axis(out, Math.ceilDiv(out, stride), stride, step, apart, corner, reach, phases);
    }

    private static int gcd(int a, int b) {
      return b == 0 ? a : gcd(b, a % b);
    }
  }

  /** Phases of both axes. */
  private record Both(Phase h, Phase w) {
    int taps() {
      return h.taps * w.taps;
    }
  }

  static HopperPhases of(Conv2dDescriptor d) {
    return new HopperPhases(
        Axis.of(d.h(), d.kh(), d.strideH(), d.dilationH(), d.padTop()),
        Axis.of(d.w(), d.kw(), d.strideW(), d.dilationW(), d.padLeft()));
  }

  /** Of diff_src. */
  long pixels(int batch) {
    return (long) batch * h.out * w.out;
  }

  int count() {
    return h.phases.size() * w.phases.size();
  }

  /** The order of their tiles: those of most taps first. */
  private List<Both> ordered() {
    return h.phases.stream()
        .flatMap(y -> w.phases.stream().map(x -> new Both(y, x)))
        .sorted(Comparator.comparingInt(Both::taps).reversed())
        .toList();
  }

  /** What one tile takes, a mean of all phases. Where no tap reaches, it multiplies zeros once. */
  HopperTile.Work work(HopperTile tile, int chunks) {
    return ordered().stream()
        .map(
            phase ->
                phase.taps() == 0
                    ? tile.work(1, 1, 0).withoutAsking()
                    : tile.work(
                        phase.taps(),
                        chunks,
                        (phase.h.taps - 1L) * h.dilation * w.grid
                            + (phase.w.taps - 1L) * w.dilation))
        .reduce(HopperTile.Work::plus)
        .orElseThrow()
        .over(count());
  }

  /** Packs what a Conv2dSm90StridedParams has besides. */
  void pack(Arguments arguments, long result, int phaseTiles, int phasePixels, int chunks) {
    arguments
        .pointer(result)
        .i32(phaseTiles)
        .i32(h.out)
        .i32(w.out)
        .i32(h.stride)
        .i32(w.stride)
        .i32(h.step)
        .i32(w.step)
        .i32(phasePixels);
    for (Both phase : ordered()) {
      boolean none = phase.taps() == 0;
      arguments
          .i32(phase.h.at)
          .i32(phase.w.at)
          .i32(none ? 1 : phase.h.taps)
          .i32(none ? 1 : phase.w.taps)
          .i32(none ? 0 : phase.h.offset)
          .i32(none ? 0 : phase.w.offset)
          .i32(none ? 0 : phase.h.first)
          .i32(none ? 0 : phase.w.first)
          .i32(none ? 1 : chunks)
          .i32(none ? chunks * HopperTile.CHUNK : 0);
    }
    arguments.skip((MOST - count()) * 10 * Integer.BYTES);
  }
}
