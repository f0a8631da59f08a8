package io.jtrelu.train;

import java.util.ArrayList;
import java.util.List;

/**
 * Who of several ranks owns which parameters of an arena: it adds up their gradients, keeps the
 * optimiser's state for them and updates them. The arena is cut into slices, of which norms are
 * taken, and which depend on neither ranks nor buckets; consecutive slices make buckets, which are
 * exchanged one after the other; and each rank owns consecutive slices of each bucket, as many as
 * the others or one more.
 *
 * <p>Immutable.
 */
final class Partition {
  /** Bytes of a bucket: large enough for latency not to count. */
  static final long BUCKET_BYTES = 25L << 20;

  /** Elements of a slice on a CPU. */
  static final int SLICE = 1 << 14;

  /** Elements that a slice's size is a multiple of elsewhere, so that all begin aligned. */
  private static final int ALIGNMENT = 64;

  /** Blocks that the weights are cut into at least, on a device. */
  private static final int BLOCKS = 8;

  private final int ranks;
  private final long[] starts; // of slices, and where the last one ends
  private final int[] firsts; // slices of buckets, and one behind the last

  /** Elements of the arena, from the first up to but not including the last. */
  record Range(long from, long to) {
    long elements() {
      return to - from;
    }
  }

  private Partition(int ranks, List<Long> starts, List<Integer> firsts) {
    this.ranks = ranks;
    this.starts = starts.stream().mapToLong(Long::longValue).toArray();
    this.firsts = firsts.stream().mapToInt(Integer::intValue).toArray();
  }

  /**
   * In slices of one size.
   *
   * @param elements of the arena
   * @param bucketBytes of one bucket, about
   */
  static Partition ofSlices(long elements, int ranks, long bucketBytes) {
    List<Long> starts = new ArrayList<>(List.of(0L));
    List<Integer> firsts = new ArrayList<>(List.of(0));
    int bucket = Math.toIntExact(Math.max(1, bucketBytes / (SLICE * Float.BYTES)));
    cut(elements, SLICE, bucket, starts, firsts);
    return new Partition(ranks, starts, firsts);
  }

  /**
   * For a device, where each slice costs a launch, and exchanges go on beside the backward pass: in
   * blocks of as few slices as any number of ranks can share, one for each shard. What follows on
   * the weights has blocks and buckets of its own: biases of all layers, which are complete only
   * when the pass has ended.
   *
   * @param weights of the elements, which come first
   * @param bucket blocks of one bucket
   */
  static Partition ofShards(long weights, long elements, int ranks, int shards, int bucket) {
    List<Long> starts = new ArrayList<>(List.of(0L));
    List<Integer> firsts = new ArrayList<>(List.of(0));
    long block = Math.ceilDiv(weights, (long) BLOCKS);
    cut(weights, slice(block, shards), shards * bucket, starts, firsts);
    cut(elements, slice(elements - weights, shards), shards * bucket, starts, firsts);
    return new Partition(ranks, starts, firsts);
  }

  /** Elements of a slice, so many of which make a block of about so many. */
  private static long slice(long block, int shards) {
    long most = Math.min(block, BUCKET_BYTES / Float.BYTES);
    long units = Math.ceilDiv(most, (long) ALIGNMENT * shards);
    return Math.max(1, units) * ALIGNMENT;
  }

  /** Adds slices and buckets to those that there are. */
  private static void cut(
      long end, long slice, int bucket, List<Long> starts, List<Integer> firsts) {
    for (int slices = 1; starts.getLast() < end; slices++) {
      starts.add(Math.min(starts.getLast() + slice, end));
      if (slices % bucket == 0 || starts.getLast() == end) {
        firsts.add(starts.size() - 1);
      }
    }
  }

  int ranks() {
    return ranks;
  }

  int slices() {
    return starts.length - 1;
  }

  int buckets() {
    return firsts.length - 1;
  }

  /** Index of the first slice of a bucket that belongs to a rank or to one behind it. */
  int firstSlice(int index, int rank) {
    int count = firsts[index + 1] - firsts[index];
    return firsts[index] + (int) ((long) count * rank / ranks);
  }

  /** What a rank owns of a bucket; may be empty. */
  Range range(int index, int rank) {
    return new Range(starts[firstSlice(index, rank)], starts[firstSlice(index, rank + 1)]);
  }

  /** A bucket. */
  Range bucket(int index) {
    return new Range(starts[firsts[index]], starts[firsts[index + 1]]);
  }

  /** A slice. */
  Range slice(int index) {
    return new Range(starts[index], starts[index + 1]);
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
