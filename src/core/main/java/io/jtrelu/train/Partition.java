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
  /** Elements of a slice on a CPU, of which norms are taken: they do not depend on the ranks. */
  static final int SLICE = 1 << 14;

  /** Elements that a slice's size is a multiple of elsewhere, so that all begin aligned. */
  private static final int ALIGNMENT = 64;

  private final long elements;
  private final int ranks;
  private final int slice; // elements of one
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
    this(elements, ranks, SLICE, Math.max(1, bucketBytes / (SLICE * Float.BYTES)));
  }

  private Partition(long elements, int ranks, int slice, long bucket) {
    this.elements = elements;
    this.ranks = ranks;
    this.slice = slice;
    this.slices = Math.toIntExact(Math.ceilDiv(elements, (long) slice));
    this.bucket = Math.toIntExact(Math.min(bucket, Math.max(1, slices)));
  }

  /**
   * For a device on which each slice costs a launch: as few of them as any number of ranks can
   * share, one for each shard in a bucket.
   */
  static Partition ofShards(long elements, int ranks, int shards, long bucketBytes) {
    long bucket = Math.min(elements, bucketBytes / Float.BYTES);
    long slice = Math.ceilDiv(Math.ceilDiv(bucket, (long) shards), (long) ALIGNMENT) * ALIGNMENT;
    return new Partition(elements, ranks, Math.toIntExact(Math.max(ALIGNMENT, slice)), shards);
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

  private long start(int index) {
    return Math.min((long) index * slice, elements);
  }

  /** The most that a rank owns of a bucket. */
  long mostOfBucket() {
    long most = 0;
    for (int index = 0; index < buckets(); index++) {
      for (int rank = 0; rank < ranks; rank++) {
        most = Math.max(most, range(index, rank).elements());
      }
    }
    return most;
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
