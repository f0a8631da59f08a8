package io.jtrelu.train;

import java.util.ArrayList;
import java.util.List;

/**
 * Who of several ranks owns which parameters of an arena: it adds up their gradients, keeps the
 * optimiser's state for them and updates them. The arena is cut into buckets that are exchanged one
 * after the other, which bounds the memory on the way; each bucket into slices of fixed size; and
 * each rank owns consecutive slices of each bucket, as many as the others or one more.
 *
 * <p>Immutable.
 */
final class Partition {
  /** Elements of a slice, of which norms are taken: they do not depend on the ranks. */
  static final int SLICE = 1 << 14;

  private final long elements;
  private final int ranks;
  private final int slices;
  private final int bucket; // slices of one

  /** Elements of the arena, from the first up to but not including the last. */
  record Range(long from, long to) {
    long elements() {
      return to - from;
    }
  }

  /**
   * @param elements of the arena
   * @param bucketBytes of one bucket, about
   */
  Partition(long elements, int ranks, long bucketBytes) {
    this.elements = elements;
    this.ranks = ranks;
    this.slices = Math.toIntExact(Math.ceilDiv(elements, (long) SLICE));
    this.bucket =
        Math.toIntExact(Math.clamp(bucketBytes / (SLICE * Float.BYTES), 1, Math.max(1, slices)));
  }

  int ranks() {
    return ranks;
  }

  int slices() {
    return slices;
  }

  int buckets() {
    return Math.ceilDiv(slices, bucket);
  }

  /** Index of the first slice of a bucket that belongs to a rank or to one behind it. */
  int firstSlice(int index, int rank) {
    int first = index * bucket;
    int count = Math.min(bucket, slices - first);
    return first + (int) ((long) count * rank / ranks);
  }

  /** What a rank owns of a bucket; may be empty. */
  Range range(int index, int rank) {
    return new Range(start(firstSlice(index, rank)), start(firstSlice(index, rank + 1)));
  }

  /** A slice. */
  Range slice(int index) {
    return new Range(start(index), start(index + 1));
  }

  private long start(int slice) {
    return Math.min((long) slice * SLICE, elements);
  }

  /** What a rank owns of each bucket, in their order. */
  List<Range> owned(int rank) {
    List<Range> owned = new ArrayList<>();
    for (int index = 0; index < buckets(); index++) {
      owned.add(range(index, rank));
    }
    return owned;
  }
}
