package io.jtrelu.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class ProgressTest {
  @Test
  void linesComeFromThoseWhoKnowTheAddress() throws IOException, InterruptedException {
    BlockingQueue<String> lines = new LinkedBlockingQueue<>();
    try (Progress.Receiver receiver = new Progress.Receiver(lines::add)) {
      String address = receiver.address("localhost");
      try (Progress.Sender stranger = new Progress.Sender(address.replaceAll(" [^ ]*$", " x"))) {
        stranger.tell("not for the log");
      }
      try (Progress.Sender sender = new Progress.Sender(address)) {
        sender.tell("epoch 1");
        sender.tell("epoch 2");
      }
      assertEquals("epoch 1", lines.poll(20, TimeUnit.SECONDS));
      assertEquals("epoch 2", lines.poll(20, TimeUnit.SECONDS));
    }
    assertEquals(0, lines.size());
  }

  /** No run fails for want of somebody to talk to. */
  @Test
  void nobodyNeedListen() throws IOException {
    try (Progress.Sender sender = new Progress.Sender("localhost 1 x")) {
      sender.tell("hello");
    }
  }
}
