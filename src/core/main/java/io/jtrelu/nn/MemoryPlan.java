package io.jtrelu.nn;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * Places values with known lifetimes in one block so that no two that live at the same time
 * overlap: largest first, each at the lowest free offset (greedy by size; Pisarchyk and Lee,
 * <i>Efficient memory management for deep neural net inference</i>, arXiv 2001.03288).
 */
final class MemoryPlan {
  /** Every value starts on a cache line. */
  private static final long ALIGNMENT = 64;

  private record Value(int id, long bytes, int first, int last) {
    boolean overlapsInTime(Value other) {
      return first <= other.last && other.first <= last;
    }
  }

  private final List<Value> values = new ArrayList<>();
  private long[] offsets = new long[0];
  private long size;

  /**
   * Adds a value.
   *
   * @param bytes its size
   * @param first step at which it is first written
   * @param last step at which it is last used
   * @return its number, from 0
   */
  int add(long bytes, int first, int last) {
    long aligned = Math.ceilDiv(bytes, ALIGNMENT) * ALIGNMENT;
    values.add(new Value(values.size(), aligned, first, last));
    return values.size() - 1;
  }

  /** Places all values. */
  void solve() {
    offsets = new long[values.size()];
    List<Value> placed = new ArrayList<>(); // by offset
    List<Value> bySize = new ArrayList<>(values);
    bySize.sort(Comparator.comparingLong(Value::bytes).reversed().thenComparingInt(Value::id));
    for (Value value : bySize) {
      long offset = 0;
      int at = 0;
      for (int i = 0; i < placed.size(); i++) {
        Value other = placed.get(i);
        if (value.overlapsInTime(other)) {
          if (offset + value.bytes <= offsets[other.id]) {
            break;
          }
          offset = Math.max(offset, offsets[other.id] + other.bytes);
        }
      }
      offsets[value.id] = offset;
      while (at < placed.size() && offsets[placed.get(at).id] <= offset) {
        at++;
      }
      placed.add(at, value);
      size = Math.max(size, offset + value.bytes);
    }
  }

  /** Byte offset of a value in the block. */
  long offset(int id) {
    return offsets[id];
  }

  /** Size of the block in bytes. */
  long size() {
    return size;
  }
}
