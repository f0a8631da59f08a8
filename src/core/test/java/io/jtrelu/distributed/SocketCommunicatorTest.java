package io.jtrelu.distributed;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import java.io.IOException;
import java.net.Socket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Ranks that are threads here, and speak by TCP all the same. */
@Timeout(30)
class SocketCommunicatorTest {
  private static final Duration PLENTY = Duration.ofSeconds(20);

  private interface Body<T> {
    T run(SocketCommunicator ranks, Stream stream) throws Exception;
  }

  /** Spreads addresses among threads. */
  private static final class Meeting {
    private final String[] addresses;
    private final CyclicBarrier all;

    Meeting(int count) {
      addresses = new String[count];
      all = new CyclicBarrier(count);
    }

    List<String> gather(int rank, String mine) {
      addresses[rank] = mine;
      try {
        all.await(20, TimeUnit.SECONDS);
      } catch (Exception failure) {
        throw new AssertionError(failure);
      }
      return List.of(addresses);
    }
  }

  private static <T> List<T> run(int count, Duration deadline, Body<T> body) throws Exception {
    Meeting meeting = new Meeting(count);
    try (ExecutorService threads = Executors.newFixedThreadPool(count);
        Backend backend = Backends.open("reference")) {
      List<Future<T>> running =
          IntStream.range(0, count)
              .mapToObj(
                  rank ->
                      threads.submit(
                          () -> {
                            try (SocketCommunicator ranks =
                                    SocketCommunicator.open(
                                        rank,
                                        "localhost",
                                        mine -> meeting.gather(rank, mine),
                                        deadline);
                                Stream stream = backend.newStream()) {
                              return body.run(ranks, stream);
                            }
                          }))
              .toList();
      return running.stream().map(SocketCommunicatorTest::get).toList();
    }
  }

  private static <T> T get(Future<T> future) {
    try {
      return future.get();
    } catch (Exception failure) {
      throw new AssertionError(failure.getCause());
    }
  }

  /** What the others of three say when the last one does something at their second barrier. */
  private static List<String> says(Duration deadline, Body<?> last) throws Exception {
    return run(
        3,
        deadline,
        (ranks, stream) -> {
          ranks.barrier(stream);
          if (ranks.rank() == 2) {
            last.run(ranks, stream);
            return "";
          }
          Throwable failure = assertThrows(DistributedException.class, () -> ranks.barrier(stream));
          ranks.abort(String.valueOf(failure.getMessage()));
          return ranks.isLost() + ": " + failure.getMessage();
        });
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4})
  void ranksFulfilTheContract(int count) throws Exception {
    run(
        count,
        PLENTY,
        (ranks, stream) -> {
          assertEquals(count, ranks.size());
          ContractRank.check(ranks);
          ranks.close();
          ranks.close();
          assertThrows(IllegalStateException.class, () -> ranks.barrier(stream));
          return true;
        });
  }

  @Test
  void whoIsMissingAtTheDeadlineIsNamed() throws Exception {
    CountDownLatch told = new CountDownLatch(2);
    List<String> messages =
        run(
            3,
            Duration.ofMillis(500),
            (ranks, stream) -> {
              ranks.barrier(stream);
              if (ranks.rank() == 2) {
                told.await();
                ranks.abort(1);
                return "";
              }
              Throwable failure =
                  assertThrows(DistributedException.class, () -> ranks.barrier(stream));
              told.countDown();
              told.await(); // until the other one has said the same
              return String.valueOf(failure.getMessage());
            });
    for (int rank = 0; rank < 2; rank++) {
      assertEquals(
          "rank " + rank + " of 3, barrier number 2: waited 0.5 s in vain for rank 2",
          messages.get(rank));
    }
  }

  @Test
  void whoDoesNotComeIsNamed() throws Exception {
    List<String> addresses =
        run(2, PLENTY, (ranks, stream) -> "localhost 1 " + "00".repeat(16)); // for their form
    DistributedException late =
        assertThrows(
            DistributedException.class,
            () ->
                SocketCommunicator.open(
                    0,
                    "localhost",
                    mine -> List.of(mine, addresses.get(1)),
                    Duration.ofMillis(300)));
    assertEquals(
        "rank 0 of 2, connection number 0: waited 0.3 s in vain for rank 1", late.getMessage());
    DistributedException refused =
        assertThrows(
            DistributedException.class,
            () ->
                SocketCommunicator.open(
                    1, "localhost", mine -> List.of(addresses.get(0), mine), PLENTY));
    String message = String.valueOf(refused.getMessage());
    assertTrue(message.startsWith("rank 1 cannot reach the others: rank 0 at localhost"), message);
  }

  /** It tells why; who hears of it in another way passes that on. */
  @Test
  void aRankThatFailsTellsAllWhy() throws Exception {
    List<String> messages = says(PLENTY, (ranks, stream) -> abort(ranks));
    for (int rank = 0; rank < 2; rank++) {
      assertEquals("false: rank 2 of 3 failed: it is out of paper", messages.get(rank));
    }
  }

  private static boolean abort(SocketCommunicator ranks) {
    ranks.abort("it is out of paper");
    return true;
  }

  /** As the system closes the connections of a process that dies. */
  @Test
  void aRankThatDiesEndsAll() throws Exception {
    List<String> messages =
        says(
            PLENTY,
            (ranks, stream) -> {
              ranks.abort(9);
              return true;
            });
    for (int rank = 0; rank < 2; rank++) {
      String message = messages.get(rank);
      assertTrue(message.startsWith("true: rank "), message);
      assertTrue(message.contains("connection to rank 2 has ended"), message);
    }
  }

  @Test
  void ranksThatDoDifferentThingsAreTold() throws Exception {
    List<String> messages =
        says(
            PLENTY,
            (ranks, stream) ->
                assertThrows(DistributedException.class, () -> ranks.gatherTexts("else")));
    assertTrue(
        messages.stream()
            .anyMatch(
                m -> m.contains("of 4 bytes, but rank 2 is at all-gather number 2 of 4 bytes")),
        messages.toString());
  }

  /** Of another run, or nobody's. */
  @Test
  void strangersAreNotTakenIn() throws Exception {
    Meeting meeting = new Meeting(2);
    try (ExecutorService threads = Executors.newFixedThreadPool(2)) {
      List<Future<Boolean>> running =
          IntStream.range(0, 2)
              .mapToObj(rank -> threads.submit(() -> besideStrangers(meeting, rank)))
              .toList();
      for (Future<Boolean> rank : running) {
        assertFalse(get(rank));
      }
    }
  }

  private static boolean besideStrangers(Meeting meeting, int rank) {
    try (SocketCommunicator ranks =
        SocketCommunicator.open(
            rank, "localhost", mine -> disturbed(meeting, rank, mine), PLENTY)) {
      return ranks.any(false);
    }
  }

  /** Connects before the other rank does. */
  private static List<String> disturbed(Meeting meeting, int rank, String mine) {
    if (rank == 0) {
      int port = Integer.parseInt(mine.split(" ", 3)[1]);
      try {
        Socket silent = new Socket("localhost", port);
        silent.shutdownOutput();
        Socket guessing = new Socket("localhost", port);
        guessing.getOutputStream().write(new byte[100]);
      } catch (IOException failure) {
        throw new AssertionError(failure);
      }
    }
    return meeting.gather(rank, mine);
  }
}
