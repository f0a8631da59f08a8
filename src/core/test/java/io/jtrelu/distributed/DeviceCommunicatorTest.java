package io.jtrelu.distributed;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.Link;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.lang.reflect.Proxy;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** What becomes of a wait for devices whose link fails, or whose others do not come. */
class DeviceCommunicatorTest {
  private static final byte[] ID = {1, 2, 3};

  /** Nothing comes through it; what waits for it ends when it is aborted. */
  private static final class DeadLink implements Link {
    private final CountDownLatch aborted = new CountDownLatch(1);
    private final @Nullable String failure;

    DeadLink(@Nullable String failure) {
      this.failure = failure;
    }

    @Override
    public String name() {
      return "dead";
    }

    @Override
    public void exchange(
        Stream on,
        List<? extends @Nullable Tensor> send,
        List<? extends @Nullable Tensor> receive) {}

    @Override
    public @Nullable String failure() {
      return failure;
    }

    @Override
    public void abort() {
      aborted.countDown();
    }

    @Override
    public void close() {}
  }

  /** A point that work through the link does not reach. */
  private record Unreached(DeadLink link) implements Event {
    @Override
    public void record(Stream stream) {}

    @Override
    public void await(Stream stream) {}

    @Override
    public void synchronize() {
      try {
        link.aborted.await();
      } catch (InterruptedException interrupted) {
        throw new AssertionError(interrupted);
      }
    }

    @Override
    public void close() {}
  }

  /** A GPU as far as a communicator looks; without a link it has none. */
  private static Backend gpu(@Nullable DeadLink link) {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) ->
                switch (method.getName()) {
                  case "device" -> Device.cuda(0);
                  case "newLinkId" -> {
                    if (link == null) {
                      throw new BackendUnavailableException("no library");
                    }
                    yield ID;
                  }
                  case "link" -> {
                    assertTrue(Arrays.equals(ID, (byte[]) arguments[0]));
                    yield link;
                  }
                  default -> throw new AssertionError("not asked for: " + method.getName());
                });
  }

  private static String failure(Communicator ranks, @Nullable String ofLink) {
    DeadLink link = new DeadLink(ofLink);
    try (Communicator devices = ranks.on(gpu(link))) {
      long begin = System.nanoTime();
      Unreached never = new Unreached(link);
      String told =
          String.valueOf(
              assertThrows(DistributedException.class, () -> devices.await(never)).getMessage());
      assertTrue(System.nanoTime() - begin < 30e9);
      return told;
    }
  }

  @Test
  void aWaitEndsAtTheDeadline() {
    List<String> told = ThreadRanks.run(2, ranks -> failure(ranks, null));
    assertTrue(
        told.get(1).startsWith("rank 1 of 2: waited 1.0 s in vain for an exchange between devices"),
        told.get(1));
  }

  @Test
  void aLinkThatFailsEndsAWaitAndNamesTheRank() {
    List<String> told =
        ThreadRanks.run(
            2, ranks -> failure(ranks, ranks.rank() == 0 ? "it broke" : "it broke too"));
    assertEquals(List.of("rank 0 of 2: it broke", "rank 1 of 2: it broke too"), told);
  }

  @Test
  void whyThereIsNoLinkIsTold() {
    String told =
        String.valueOf(
            assertThrows(
                    DistributedException.class,
                    () -> DeviceCommunicator.open(new Lonely(), gpu(null)))
                .getMessage());
    assertEquals("the devices of 2 processes cannot be brought together: no library", told);
  }

  /** The first of two, whose other one is not asked for anything. */
  private static final class Lonely extends Communicator {
    Lonely() {
      super(0, 2);
    }

    @Override
    public String name() {
      return "lonely";
    }

    @Override
    protected void exchange(
        String what,
        List<? extends @Nullable Tensor> send,
        List<? extends @Nullable Tensor> receive) {}

    @Override
    protected void sum(Tensor values) {}

    @Override
    public void abort(int status) {}

    @Override
    public void close() {}
  }

  @Test
  void aProcessAloneNeedsNoLink() {
    try (Communicator devices = new SoloCommunicator().on(gpu(null));
        Backend cpu = Backends.open("reference")) {
      assertEquals(Device.cuda(0), devices.device());
      assertEquals(0, devices.localRank());
      Communicator host = new SoloCommunicator();
      assertEquals(Device.CPU, host.on(cpu).device());
    }
  }
}
