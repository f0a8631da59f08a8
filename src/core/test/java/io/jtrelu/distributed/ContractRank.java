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
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.function.Executable;

/** What every communicator fulfils, on each of its ranks. */
public final class ContractRank {
  private static final float UNTOUCHED = -7;

  private final Communicator ranks;
  private final Backend backend;
  private final Stream stream;
  private final int rank;
  private final int size;

  private ContractRank(Communicator ranks, Backend backend, Stream stream) {
    this.ranks = ranks;
    this.backend = backend;
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
    try (Backend backend = Backends.open("reference")) {
      check(ranks, backend);
    }
  }

  /** Throws where a communicator does not exchange tensors of a backend as it should. */
  public static void check(Communicator ranks, Backend backend) {
    try (Stream stream = backend.newStream()) {
      ContractRank contract = new ContractRank(ranks, backend, stream);
      contract.allToAll();
      contract.allGather();
      contract.broadcast();
      if (ranks.device().equals(Device.CPU)) {
        contract.allReduce();
      }
      contract.smallThings();
      nullPointers();
      contract.refusals();
    }
  }

  /** A number for each pair of ranks and each element. */
  private static float value(int from, int to, int element) {
    return 1000 * from + 100 * to + element;
  }

  private Tensor tensor(int count, IntToDoubleFunction value) {
    Tensor tensor = backend.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR);
    try (Tensor host = Tensor.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR)) {
      for (int i = 0; i < count; i++) {
        host.put(i, (float) value.applyAsDouble(i));
      }
      backend.copy(stream, host, tensor);
      stream.synchronize();
    }
    return tensor;
  }

  private void expect(Tensor tensor, IntToDoubleFunction value) {
    try (Tensor host = Tensor.allocate(tensor.shape(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, tensor, host);
      stream.synchronize();
      for (int i = 0; i < host.shape().elements(); i++) {
        if (host.get(i) != (float) value.applyAsDouble(i)) {
          throw new AssertionError(
              "rank " + rank + " has " + host.get(i) + ", not " + value.applyAsDouble(i));
        }
      }
    }
  }

  /** Messages of another length for each pair; some are empty, some are null. */
  private void allToAll() {
    for (int factor : new int[] {0, 1, 5_000, 100_000}) { // at once, and by agreement
      List<@Nullable Tensor> send = new ArrayList<>();
      List<@Nullable Tensor> receive = new ArrayList<>();
      List<Tensor> owned = new ArrayList<>();
      for (int to = 0; to < size; to++) {
        int other = to;
        Tensor out = tensor(factor * (rank + other), i -> value(rank, other, i));
        Tensor in = tensor(factor * (other + rank), i -> UNTOUCHED);
        boolean nothing = factor == 0 && other % 2 == 0;
        send.add(nothing ? null : out);
        receive.add(nothing ? null : in);
        owned.addAll(List.of(out, in));
      }
      ranks.allToAll(stream, send, receive);
      for (int from = 0; from < size; from++) {
        int other = from;
        Tensor in = receive.get(other);
        if (in != null) {
          expect(in, i -> other == rank ? UNTOUCHED : value(other, rank, i));
        }
      }
      owned.forEach(Tensor::close);
    }
  }

  private void allGather() {
    try (Tensor all =
        tensor(3 * size + 1, i -> i / 3 == rank ? value(rank, 0, i % 3) : UNTOUCHED)) {
      List<Tensor> parts = new ArrayList<>();
      for (int other = 0; other < size; other++) {
        parts.add(all.slice(3L * other, Shape.of(3), Layout.ROW_MAJOR));
      }
      ranks.allGather(stream, parts);
      expect(all, i -> i == 3 * size ? UNTOUCHED : value(i / 3, 0, i % 3));
    }
  }

  private void broadcast() {
    for (int from = 0; from < size; from++) {
      int root = from;
      try (Tensor values = tensor(100_000, i -> value(rank, rank, i))) {
        ranks.broadcast(stream, values, root);
        expect(values, i -> value(root, root, i));
      }
    }
  }

  /** Whole numbers, whose sum is the same in any order. */
  private void allReduce() {
    try (Tensor values = tensor(70_000, i -> (rank + 1) * (i % 100))) {
      ranks.allReduce(stream, values);
      int factor = size * (size + 1) / 2;
      expect(values, i -> factor * (i % 100));
    }
  }

  private void smallThings() {
    ranks.barrier(stream);
    assertFalse(ranks.any(false));
    assertTrue(ranks.any(true));
    assertTrue(ranks.any(rank == size - 1));
    assertEquals(rank, ranks.localRank()); // on one machine
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
    try (Tensor values = tensor(1, i -> 0);
        Tensor integers = backend.allocate(Shape.of(1), DataType.I32, Layout.ROW_MAJOR)) {
      refused("rank " + size, () -> ranks.broadcast(stream, values, size));
      refused("F32", () -> ranks.allReduce(stream, integers));
    }
  }

  private static void refused(String why, Executable call) {
    String message = assertThrows(OperandException.class, call).getMessage();
    assertTrue(message.contains(why), message);
  }
}
