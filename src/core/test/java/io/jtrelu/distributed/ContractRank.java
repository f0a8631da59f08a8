package io.jtrelu.distributed;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.function.Executable;

/** What every communicator fulfils, on each of its ranks. */
final class ContractRank {
  private static final float UNTOUCHED = -7;

  private final Communicator ranks;
  private final Stream stream;
  private final int rank;
  private final int size;

  private ContractRank(Communicator ranks, Stream stream) {
    this.ranks = ranks;
    this.stream = stream;
    this.rank = ranks.rank();
    this.size = ranks.size();
  }

  /** Runs on one of several ranks: with the number that there should be. */
  public static void main(String[] arguments) {
    Communicator ranks = Communicator.open(Duration.ofSeconds(20));
    try {
      assertEquals(Integer.parseInt(arguments[0]), ranks.size());
      check(ranks);
      ranks.close();
      ranks.close();
      System.out.println("rank " + ranks.rank() + " fulfils the contract of " + ranks.name());
    } catch (Throwable failure) {
      failure.printStackTrace();
      ranks.abort(3);
    }
  }

  static void check(Communicator ranks) {
    try (Backend backend = Backends.open("reference");
        Stream stream = backend.newStream()) {
      ContractRank contract = new ContractRank(ranks, stream);
      contract.allToAll();
      contract.allGather();
      contract.broadcast();
      contract.allReduce();
      contract.smallThings();
      nullPointers();
      contract.refusals();
    }
  }

  /** A number for each pair of ranks and each element. */
  private static float value(int from, int to, int element) {
    return 1000 * from + 100 * to + element;
  }

  private static Tensor floats(int count) {
    Tensor tensor = Tensor.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR);
    for (int i = 0; i < count; i++) {
      tensor.put(i, UNTOUCHED);
    }
    return tensor;
  }

  /** Messages of another length for each pair; some are empty, some are null. */
  private void allToAll() {
    for (int factor : new int[] {0, 1, 5_000, 100_000}) { // at once, and by agreement
      List<@Nullable Tensor> send = new ArrayList<>();
      List<@Nullable Tensor> receive = new ArrayList<>();
      List<Tensor> owned = new ArrayList<>();
      for (int other = 0; other < size; other++) {
        Tensor to = floats(factor * (rank + other));
        for (int i = 0; i < to.shape().elements(); i++) {
          to.put(i, value(rank, other, i));
        }
        Tensor from = floats(factor * (other + rank));
        boolean nothing = factor == 0 && other % 2 == 0;
        send.add(nothing ? null : to);
        receive.add(nothing ? null : from);
        owned.addAll(List.of(to, from));
      }
      ranks.allToAll(stream, send, receive);
      for (int other = 0; other < size; other++) {
        Tensor from = receive.get(other);
        for (int i = 0; from != null && i < from.shape().elements(); i++) {
          float expected = other == rank ? UNTOUCHED : value(other, rank, i);
          if (from.get(i) != expected) {
            throw new AssertionError(
                rank + " got " + from.get(i) + " from " + other + ", not " + expected);
          }
        }
      }
      owned.forEach(Tensor::close);
    }
  }

  private void allGather() {
    try (Tensor all = floats(3 * size + 1)) {
      List<Tensor> parts = new ArrayList<>();
      for (int other = 0; other < size; other++) {
        parts.add(all.slice(3L * other, Shape.of(3), Layout.ROW_MAJOR));
      }
      for (int i = 0; i < 3; i++) {
        parts.get(rank).put(i, value(rank, 0, i));
      }
      ranks.allGather(stream, parts);
      for (int other = 0; other < size; other++) {
        for (int i = 0; i < 3; i++) {
          assertEquals(value(other, 0, i), all.get(3L * other + i));
        }
      }
      assertEquals(UNTOUCHED, all.get(3L * size));
    }
  }

  private void broadcast() {
    for (int root = 0; root < size; root++) {
      try (Tensor values = floats(100_000)) {
        for (int i = 0; i < 100_000; i++) {
          values.put(i, value(rank, rank, i));
        }
        ranks.broadcast(stream, values, root);
        assertEquals(value(root, root, 0), values.get(0));
        assertEquals(value(root, root, 99_999), values.get(99_999));
      }
    }
  }

  /** Whole numbers, whose sum is the same in any order. */
  private void allReduce() {
    try (Tensor values = floats(70_000)) {
      for (int i = 0; i < 70_000; i++) {
        values.put(i, (rank + 1) * (i % 100));
      }
      ranks.allReduce(stream, values);
      int factor = size * (size + 1) / 2;
      for (int i = 0; i < 70_000; i++) {
        assertEquals(factor * (i % 100), values.get(i));
      }
    }
  }

  private void smallThings() {
    ranks.barrier(stream);
    assertFalse(ranks.any(false));
    assertTrue(ranks.any(true));
    assertTrue(ranks.any(rank == size - 1));
    assertEquals(
        IntStream.range(0, size).mapToObj("\u00fc"::repeat).toList(),
        ranks.gatherTexts("\u00fc".repeat(rank)));
  }

  /**
   * Compiled code finds them by a signal that UCX, below MPICH, would take for itself: where it
   * does, the process dies here.
   */
  private static void nullPointers() {
    int[] one = new int[1];
    long sum = 0;
    for (int i = 0; i < 200_000; i++) {
      sum += length(one);
    }
    assertEquals(200_000, sum);
    assertThrows(NullPointerException.class, () -> length(null));
  }

  @SuppressWarnings("NullAway") // on purpose
  private static int length(int @Nullable [] values) {
    return values.length;
  }

  private void refusals() {
    refused(size + " ranks", () -> ranks.allGather(stream, List.of()));
    try (Tensor values = floats(1);
        Tensor integers = Tensor.allocate(Shape.of(1), DataType.I32, Layout.ROW_MAJOR)) {
      refused("rank " + size, () -> ranks.broadcast(stream, values, size));
      refused("F32", () -> ranks.allReduce(stream, integers));
    }
  }

  private static void refused(String why, Executable call) {
    String message = assertThrows(OperandException.class, call).getMessage();
    assertTrue(message.contains(why), message);
  }
}
